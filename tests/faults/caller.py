"""A caller on a kept connection, who notices an answer that is lost, cut off, another's, or comes a second time."""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any

import httptools

from gateway.embedded.server_process import HOST
from tests.faults.permitted import ADMITTED, BROKEN, CUT, REFUSED, SILENT, UNREACHABLE

CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """What came of a request: an outcome (permitted.py), the code of a refusal, and the JSON that came."""

    outcome: str
    code: str = ""
    said: Any = None


class Caller:
    """Asks one port, one request at a time. `extra` counts answers to nothing."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._connection: _Connection | None = None
        self.extra = 0

    async def ask(self, request: bytes, *, patience_seconds: float) -> Answer:
        """Send one request; one without an answer by then is given up with its connection."""
        connection = self._connection
        if connection is None or connection.is_closed:
            connection = self._connection = await self._connect()
            if connection is None:
                return Answer(UNREACHABLE)
        answered = connection.send(request)
        try:
            async with asyncio.timeout(patience_seconds):
                return await answered
        except TimeoutError:
            return Answer(CUT if connection.has_begun else SILENT)
        finally:
            self.extra += connection.extra
            connection.extra = 0
            if not answered.done() or connection.is_closed:
                self.close()

    async def _connect(self) -> "_Connection | None":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    _Connection, HOST, self._port, ssl=self._tls, server_hostname=HOST if self._tls else None
                )
        except (OSError, TimeoutError):
            return None
        return connection

    def close(self) -> None:
        """End the connection. The next request makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_closed = False
        self.has_begun = False
        self.extra = 0
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Answer] | None = None
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes) -> "asyncio.Future[Answer]":
        """Ask. The one before must have been answered."""
        assert self._transport is not None
        self.has_begun = False
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        if self._answered is None:
            self.extra += 1  # an answer to nothing, or what stands behind one
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._tell(Answer(f"nonsense: {error}"))
            self.close()

    def on_message_begin(self) -> None:
        """A reply begins."""
        self.has_begun = True
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._body += body

    def on_message_complete(self) -> None:
        """A reply is whole."""
        status = self._parser.get_status_code()
        self.is_closed = not self._parser.should_keep_alive()
        said = _read(self._body)
        code = str(said.get("code", "")) if isinstance(said, dict) else ""
        if status in (int(ADMITTED), int(REFUSED)):
            self._tell(Answer(str(status), code, said))
        else:
            self._tell(Answer(f"{status} {code}".strip(), code, said))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._tell(Answer(CUT if self.has_begun else BROKEN))

    def _tell(self, answer: Answer) -> None:
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(answer)

    def close(self) -> None:
        """End it."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
