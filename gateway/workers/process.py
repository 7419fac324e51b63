"""One worker, as its supervisor sees it: a process, what it has said, and what it answers."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from gateway.workers.channel import LINE_LIMIT_BYTES, Order, read, written, written_order

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 1.0  # one that takes longer is silent; what scrapes and probes health waits for several seconds


class WorkerProcess:
    """A worker from its start (`WorkerProcess.start`) to its end (`ended`).

    `has_started` once it has said that it serves; `on_started` hears of that. `failure` is why it cannot, in its own
    words. `metrics` are the last that it has told (`Metrics.report`).
    """

    def __init__(
        self,
        order: Order,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_started: Callable[[], None],
    ) -> None:
        self.number = order.number
        self.own = frozenset(order.own)
        self.drain = order.settings.drain
        self.pid = process.pid
        self.node_id: str | None = None
        self.failure: str | None = None
        self.metrics: dict[str, Any] = {"library": "", "hot": {}}
        self.began = time.monotonic()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._asked = 0
        self._answers: dict[int, asyncio.Future[Mapping[str, bool] | None]] = {}
        self.has_started = False
        self.has_answered = False
        self.hangs = False
        self._on_started = on_started
        self.ended = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, order: Order, on_started: Callable[[], None]) -> "WorkerProcess":
        """Start a worker. Raises OSError where the system has no process left for it."""
        ours, theirs = socket.socketpair()
        descriptors = [fd for queues in (order.proxy, order.admin) for queue in queues for fd in queue]
        with theirs:
            try:
                process = await _python(theirs, descriptors)
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_LIMIT_BYTES)
        writer.write(written_order(order))
        return cls(order, process, reader, writer, on_started)

    @property
    def serves(self) -> bool:
        """Whether it has said that it does, and has not ended."""
        return self.has_started and not self.ended.done()

    async def ask(self, *, is_with_metrics: bool) -> Mapping[str, bool] | None:
        """Its checks, none of them before it can tell; None where it does not answer in time. Renews `metrics`."""
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[Mapping[str, bool] | None] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._say("report", to=number, metrics=is_with_metrics)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._answers[number]

    def mind(self, numbers: Iterable[int]) -> None:
        """Have it accept connections from these queues of others, and from no others of theirs."""
        self._say("mind", numbers=sorted(numbers))

    def leave(self) -> None:
        """Have it finish what is under way, streams and sockets too, and end: another has taken its place."""
        self._say("leave")

    def terminate(self) -> None:
        """Have it finish what is under way, and end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    def _say(self, what: str, **members: object) -> None:
        if not self._writer.is_closing():
            self._writer.write(written(what, **members))

    async def _follow(self) -> int:
        """Hear it out; returns its exit code, negative where a signal has ended it."""
        try:
            while line := await self._reader.readline():
                self._hear(read(line))
        except ConnectionError:
            pass  # it has ended with something unread
        except ValueError as error:
            log.error("worker_unintelligible", worker=self.number, pid=self.pid, error=str(error))
            self.kill()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)
        self._writer.close()
        return await self._process.wait()

    def _hear(self, message: Mapping[str, object]) -> None:
        match message:
            case {"say": "report", "to": int(to), "checks": dict(checks), "metrics": metrics}:
                if isinstance(metrics, dict):
                    self.metrics = metrics
                self.has_answered = True
                answer = self._answers.get(to)
                if answer is not None and not answer.done():
                    answer.set_result(checks)
            case {"say": "started", "node": str(node)}:
                self.node_id = node
                self.has_started = True
                log.info("worker_serving", worker=self.number, pid=self.pid, node=node)
                self._on_started()
            case {"say": "failed", "message": str(text)}:
                self.failure = text
            case {"say": "farewell", "metrics": dict(metrics)}:
                self.metrics = metrics
            case _:
                raise ValueError(f"it says {message.get('say')!r}")


async def _python(channel: socket.socket, descriptors: Iterable[int]) -> asyncio.subprocess.Process:
    """A fresh interpreter with the code of this one.

    Not a fork, which would share the state of a running loop. In a process group of its own, so that Ctrl-C reaches the
    supervisor alone.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "gateway.workers.node",
        stdin=channel.fileno(),
        pass_fds=tuple(descriptors),
        process_group=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},  # noqa: PTH109
    )
