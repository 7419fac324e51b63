"""What a supervisor and its worker say to each other, over a socket pair that is the worker's standard input.

First comes the order, pickled: the settings travel as they were validated, with their secrets, and stand in no
argument, environment or file. Then both speak lines of JSON. However one of them ends, the other reads the end of the
stream.
"""

import json
import pickle
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.settings import Settings

LINE_LIMIT_BYTES: Final = 64 * 1024 * 1024  # the metrics of a node are one line
_LENGTH: Final = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do. `proxy` and `admin` are the descriptors of all queues; `own` are the numbers of its own.

    One that is to take the place of somebody who serves (`is_replacing`) accepts nobody before it is ready.
    """

    number: int
    settings: Settings = field(repr=False)
    is_replacing: bool
    own: tuple[int, ...]
    proxy: tuple[tuple[int, ...], ...]
    admin: tuple[tuple[int, ...], ...]


def written_order(order: Order) -> bytes:
    """What `read_order` reads."""
    data = pickle.dumps(order)
    return _LENGTH.pack(len(data)) + data


def read_order(channel: socket.socket) -> Order:
    """Wait for the order, and read nothing behind it. Raises EOFError where the supervisor has ended."""
    (length,) = _LENGTH.unpack(_read_exactly(channel, _LENGTH.size))
    order = pickle.loads(_read_exactly(channel, length))  # noqa: S301  # of the process that has started this one
    assert isinstance(order, Order)
    return order


def written(say: str, **members: Any) -> bytes:
    """A line.

    From the supervisor: `report` (`to`: a number for the answer; `metrics`: whether they are wanted), and `mind`
    (`numbers`: the queues of others from which this one accepts connections as well), and `leave` (as another has taken
    its place; SIGTERM says that it ends). From the worker: `started`; `failed` (`message`); `report` (`to`, `checks`,
    `metrics`); and at the end `farewell` (`metrics`). Metrics are what `Metrics.report` says.
    """
    return json.dumps({"say": say, **members}).encode() + b"\n"


def read(line: bytes) -> dict[str, Any]:
    """What `written` wrote. Raises ValueError for anything else."""
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("it is no object")
    return message


def _read_exactly(channel: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        data = channel.recv(length - len(parts))
        if not data:
            raise EOFError
        parts += data
    return bytes(parts)
