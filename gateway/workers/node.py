"""A worker: a node like any other, but that its sockets and settings are given, and its supervisor asks how it is.

It is told to stop by SIGTERM, or by the end of the channel: without a supervisor there is no worker.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import structlog
import uvloop

from gateway.app import Gateway
from gateway.errors import GatewayError
from gateway.listeners import Bound, Places
from gateway.running.sockets import from_descriptors
from gateway.settings import Address
from gateway.telemetry.lines import Lines
from gateway.telemetry.logs import write_logs
from gateway.workers.channel import LINE_LIMIT_BYTES, Order, read, read_order, written

log = structlog.get_logger(__name__)


class Worker:
    """One worker, from its order to its farewell."""

    def __init__(self, order: Order, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lines: Lines) -> None:
        places = Places(
            _bound(order.settings.listen.proxy, order.own, order.proxy),
            _bound(order.settings.listen.admin, order.own, order.admin),
        )
        self._is_replacing = order.is_replacing
        self._gateway = Gateway(order.settings, places=places, lines=lines)
        self._reader = reader
        self._writer = writer
        self._stopping = asyncio.Event()
        self._is_leaving = False

    async def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        listening = asyncio.create_task(self._listen())
        try:
            return await self._serve()
        finally:
            listening.cancel()
            self._say("farewell", metrics=self._gateway.metrics.report())
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
            self._writer.close()

    async def _serve(self) -> int:
        try:
            await self._gateway.prepare()
            try:
                if self._is_replacing:
                    await self._wait_until_well()
                if not self._stopping.is_set():
                    await self._gateway.listen()
                    self._say("started", node=self._gateway.node_id)
                    await self._gateway.serve_until(self._stopping)
            finally:
                await (self._gateway.leave() if self._is_leaving else self._gateway.close())
        except GatewayError as error:
            self._say("failed", message=str(error))
            return 1
        return 0

    async def _wait_until_well(self) -> None:
        well = asyncio.create_task(self._gateway.wait_until_well())
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((well, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if well.done():
            well.result()
        well.cancel()

    def stop(self) -> None:
        """Finish what is under way, and end; where it finishes already, streams and sockets as well."""
        self._stopping.set()
        self._gateway.hurry()

    def _say(self, what: str, **members: object) -> None:
        if not self._writer.is_closing():
            self._writer.write(written(what, **members))

    async def _listen(self) -> None:
        """Answer the supervisor for as long as there is one."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                await self._answer(read(line))
        if self._is_leaving or not self._stopping.is_set():
            log.error("supervisor_is_gone")
            self.stop()

    async def _answer(self, message: Mapping[str, object]) -> None:
        match message:
            case {"say": "report", "to": to, "metrics": is_with_metrics}:
                checks = {name: is_well() for name, is_well in self._gateway.checks.items()}
                metrics = self._gateway.metrics.report() if is_with_metrics else None
                self._say("report", to=to, checks=checks, metrics=metrics)
            case {"say": "mind", "numbers": list() as numbers}:
                await self._gateway.listeners.mind(frozenset(numbers))
            case {"say": "leave"}:
                self._is_leaving = not self._stopping.is_set()
                self._stopping.set()
            case _:
                raise AssertionError(f"the supervisor says {message.get('say')!r}")


def _bound(address: Address, own: Sequence[int], descriptors: Sequence[Sequence[int]]) -> Bound:
    queues = dict(enumerate(from_descriptors(descriptors)))
    return Bound(address, tuple(sock for number in own for sock in queues.pop(number)), queues)


async def run(order: Order, channel: socket.socket, lines: Lines) -> int:
    """Be the worker that `order` says."""
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=LINE_LIMIT_BYTES)
    worker = Worker(order, reader, writer, lines)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    return await worker.run()


def main() -> None:
    """What `python -m gateway.workers.node` does, with the channel as its standard input."""
    # The first two are the supervisor's to act on; the third is sent to who writes to a terminal from the background.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:  # noqa: PTH123  # for its descriptor
        os.dup2(nothing.fileno(), 0)
    try:
        order = read_order(channel)
    except EOFError:
        return
    form = order.settings.log
    with contextlib.closing(Lines(sys.stdout)) as lines:
        write_logs(lines, level=form.level, is_json=form.format == "json", worker=order.number)
        code = uvloop.run(run(order, channel, lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
