"""What another implementation, h11, makes of the same bytes; and the ways to cut bytes into pieces."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11

Fields = tuple[tuple[bytes, bytes], ...]

NO_LIMIT = 1 << 24  # bytes of a head: h11's own limit is not what is compared here


class Refused(Exception):
    """h11 does not take these bytes."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as h11 reads it. `payload` is what has come of the body; `rest` lies behind a complete request.

    `is_body_refused`: the head is good, the body is not.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: Fields
    expects_continue: bool
    payload: bytes
    is_complete: bool
    is_body_refused: bool
    rest: bytes

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as h11 reads it; as `Request`."""

    status: int
    reason: bytes
    version: bytes
    fields: Fields
    payload: bytes
    is_complete: bool
    is_body_refused: bool
    rest: bytes

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name]


def _next(connection: h11.Connection) -> Any:
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        raise Refused(str(error)) from error


def _read_body(connection: h11.Connection) -> tuple[bytes, bool, bool]:
    """Payload, whether it is complete, whether it is refused."""
    payload = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return payload, False, True
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
        else:
            return payload, isinstance(event, h11.EndOfMessage), False


def _fields(headers: Any) -> Fields:
    return tuple((bytes(name), bytes(value)) for name, value in headers.raw_items())


def read_request(data: bytes) -> Request | None:
    """The first request in `data`; None where its head is not complete. Raises Refused."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=NO_LIMIT)
    connection.receive_data(data)
    event = _next(connection)
    if not isinstance(event, h11.Request):
        return None
    expects = connection.they_are_waiting_for_100_continue
    payload, is_complete, is_refused = _read_body(connection)
    return Request(
        bytes(event.method),
        bytes(event.target),
        bytes(event.http_version),
        _fields(event.headers),
        expects,
        payload,
        is_complete,
        is_refused,
        connection.trailing_data[0],
    )


def read_reply(data: bytes, method: bytes, *, is_ended: bool) -> Reply | None:
    """The first reply in `data`, to a request of this method that would also switch protocols; as `read_request`.

    `is_ended`: the server has closed its side behind `data`.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=NO_LIMIT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a.test"), ("Upgrade", "websocket")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if is_ended:
        connection.receive_data(b"")
    event = _next(connection)
    if isinstance(event, h11.InformationalResponse):
        payload, is_complete, is_refused = b"", True, False
    elif isinstance(event, h11.Response):
        payload, is_complete, is_refused = _read_body(connection)
    else:
        return None
    return Reply(
        event.status_code,
        bytes(event.reason),
        bytes(event.http_version),
        _fields(event.headers),
        payload,
        is_complete,
        is_refused,
        connection.trailing_data[0],
    )


def bytewise(data: bytes) -> list[bytes]:
    """One piece a byte."""
    return [data[index : index + 1] for index in range(len(data))]


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Ways in which `data` may arrive: whole, byte by byte, and in pieces that its own checksum picks."""
    yield [data]
    yield bytewise(data)
    seed, pieces, position = zlib.crc32(data), [], 0
    while position < len(data):
        seed = (seed * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        size = 1 + (seed >> 16) % 9
        pieces.append(data[position : position + size])
        position += size
    yield pieces
