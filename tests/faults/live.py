"""Callers whose connection stays: one listens to a stream, one talks on a socket. Both open it again when it ends."""

import asyncio
import json
import time
from typing import TYPE_CHECKING, Final

import aiohttp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from gateway.embedded.server_process import HOST
from tests.faults.permitted import ADMITTED, BROKEN, CUT, SILENT, UNREACHABLE
from tests.faults.stage import Node

if TYPE_CHECKING:
    from tests.faults.traffic import Asked, Traffic

SILENCE_SECONDS: Final = 3.0  # of a stream or socket, that is an interruption
TALK_SECONDS: Final = 0.1
AGAIN_SECONDS: Final = 0.2
OPEN_SECONDS: Final = 6.0


class Lives:
    """Those of one node."""

    def __init__(self, node: Node, traffic: "Traffic") -> None:
        self._node = node
        self._traffic = traffic

    # -- a stream

    async def listen(self) -> None:
        """Listen for ever."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=OPEN_SECONDS, sock_read=SILENCE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
            while True:
                await self._stream(session)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        secret = self._traffic.somebody()
        number, asked = self._traffic.ask("opening", secret, is_repeatable=True)
        scheme = "https" if self._node.tls else "http"
        url = f"{scheme}://{HOST}:{self._node.process.proxy_port}/feed/{number}"
        is_open = False
        try:
            async with session.get(url, headers=dict([secret.header]), ssl=self._node.tls or True) as answer:
                if answer.status != 200:
                    said = await answer.json(content_type=None)
                    self._opened(asked, f"{answer.status} {said.get('code')}")
                    return
                self._opened(asked, ADMITTED)
                is_open = True
                tick = 0
                async for line in answer.content:
                    if line.strip():
                        self._goes_on(asked, line.decode().strip(), f"data: {number}:{tick}")
                        tick += 1
                outcome = CUT
        except TimeoutError:
            outcome = SILENT
        except aiohttp.ClientConnectorError:
            outcome = UNREACHABLE
        except (aiohttp.ClientError, ConnectionError):
            outcome = CUT if is_open else BROKEN
        self._ended(asked, outcome, is_open=is_open)

    # -- a socket

    async def talk(self) -> None:
        """Talk for ever."""
        while True:
            await self._socket()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _socket(self) -> None:
        secret = self._traffic.somebody()
        number, asked = self._traffic.ask("opening", secret, is_repeatable=True)
        scheme = "wss" if self._node.tls else "ws"
        url = f"{scheme}://{HOST}:{self._node.process.proxy_port}/sockets/{number}"
        is_open = False
        try:
            async with connect(
                url,
                additional_headers=[secret.header],
                ssl=self._node.tls,
                proxy=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=0.5,
                ping_interval=None,
            ) as socket:
                self._opened(asked, ADMITTED)
                is_open = True
                for said in range(1_000_000):
                    await socket.send(f"{number}:{said}")
                    async with asyncio.timeout(SILENCE_SECONDS):
                        self._goes_on(asked, str(await socket.recv()), f"{number}:{said}")
                    await asyncio.sleep(TALK_SECONDS)
                outcome = CUT
        except InvalidStatus as error:
            outcome = _refusal(error)
        except TimeoutError:
            outcome = SILENT
        except ConnectionClosed:
            outcome = CUT
        except (InvalidHandshake, EOFError):
            outcome = BROKEN
        except OSError as error:
            outcome = UNREACHABLE if isinstance(error, ConnectionRefusedError) else BROKEN
        self._ended(asked, outcome, is_open=is_open)

    # -- what comes of it

    def _opened(self, asked: "Asked", outcome: str) -> None:
        self._traffic.heard(self._node, asked, outcome, "a stream or socket is opened")

    def _goes_on(self, asked: "Asked", said: str, due: str) -> None:
        if said != due:
            self._traffic.strange(said, due)
        asked.sent_at = time.monotonic()
        self._traffic.heard(self._node, asked, ADMITTED, "", kind="live")

    def _ended(self, asked: "Asked", outcome: str, *, is_open: bool) -> None:
        story = "a stream or socket that was open has ended" if is_open else "a stream or socket is opened"
        self._traffic.heard(self._node, asked, outcome, story, kind="live" if is_open else None)


def _refusal(error: InvalidStatus) -> str:
    try:
        return f"{error.response.status_code} {json.loads(error.response.body or b'{}').get('code')}"
    except ValueError:
        return str(error.response.status_code)
