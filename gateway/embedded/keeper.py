"""The process between the embedded servers and whoever uses them, which never leaves a server behind.

`Keeper` is the user's side: it starts `python -m gateway.embedded.keeper` and holds the other end of its standard
input. However the user ends, also by SIGKILL, that pipe closes, and the keeper stops the servers. The keeper runs in
a session of its own, so that Ctrl-C reaches the user alone, who decides the order of stopping.

On the pipes: one JSON line in (the order), one JSON line out (`Addresses`, or `{"error": ...}`).
"""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from gateway.embedded.postgres import EmbeddedPostgres
from gateway.embedded.redis import EmbeddedRedis
from gateway.embedded.server_process import EmbeddedServerError

STOP_SECONDS = 30.0
# The servers of an `up` that was killed a moment ago need a moment to stop.
LOCK_SECONDS = 3.0


@dataclass(frozen=True)
class Addresses:
    """Where the servers listen, and their process ids. The passwords are in the addresses: never log them."""

    postgres_dsn: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    postgres_pid: int | None = None
    redis_pid: int | None = None


class Keeper:
    """Servers in the folder `data`, which exist while this object's process does.

    `postgres` and `redis` say which. A fixed port serves those who stop a server and want it back at the same
    address. `is_durable=False` gives up surviving a crash of the machine for speed.
    """

    def __init__(
        self,
        data: Path,
        *,
        postgres: bool = True,
        redis: bool = True,
        postgres_port: int | None = None,
        redis_port: int | None = None,
        is_durable: bool = True,
    ) -> None:
        self._order = {
            "data": str(data.absolute()),
            "postgres": postgres,
            "redis": redis,
            "postgres_port": postgres_port,
            "redis_port": redis_port,
            "is_durable": is_durable,
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Addresses:
        """Start the servers and wait until they answer. Blocks; raises EmbeddedServerError."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway.embedded.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        stdin, stdout = self._pipes()
        answer: dict[str, object] = {}
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(self._order) + "\n")
            stdin.flush()
            answer = json.loads(stdout.readline() or "{}")
        if "error" in answer or not answer:
            self.stop()
            raise EmbeddedServerError(str(answer.get("error", "the keeper of the embedded servers died")))
        return Addresses(**answer)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Stop the servers and wait for their end. Blocks; no-op when they do not run."""
        if self._process is None:
            return
        for pipe in self._pipes():
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel then ends the servers
            self._process.wait()
        self._process = None

    def wait_for_end(self) -> None:
        """Block until the keeper has ended, as it does when one of its servers dies."""
        if self._process is not None:
            self._process.wait()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


@contextlib.contextmanager
def locked(data: Path) -> Iterator[int]:
    """Hold the folder `data` for oneself; the descriptor holds it too, in whichever process has inherited it.

    Raises EmbeddedServerError when somebody else holds it for longer than LOCK_SECONDS.
    """
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"{data} is in use by another process: stop it, or choose another folder"
                    ) from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def run(order: dict[str, object], ended: IO[str], answer: IO[str]) -> None:
    """Start what `order` asks for, say so on `answer`, and stop it once `ended` is at its end."""
    with contextlib.ExitStack() as stack:
        try:
            addresses, servers = _start(order, stack)
        except (EmbeddedServerError, OSError) as error:
            print(json.dumps({"error": str(error)}), file=answer, flush=True)
            return
        print(json.dumps(asdict(addresses)), file=answer, flush=True)
        _wait_for_end(ended, servers)


def _start(
    order: dict[str, object], stack: contextlib.ExitStack
) -> tuple[Addresses, list[EmbeddedPostgres | EmbeddedRedis]]:
    data = Path(str(order["data"]))
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Inherited by the servers: the folder is taken until the last of their processes has ended.
    lock = stack.enter_context(locked(data))
    os.set_inheritable(lock, True)
    facts: dict[str, str | int | None] = {}
    servers: list[EmbeddedPostgres | EmbeddedRedis] = []
    if order["postgres"]:
        postgres = EmbeddedPostgres(
            data,
            port=_port(order["postgres_port"]),
            is_durable=bool(order["is_durable"]),
            kept_open=(lock,),
        )
        stack.callback(postgres.stop)
        facts |= {"postgres_dsn": postgres.start(), "postgres_pid": postgres.pid}
        servers.append(postgres)
    if order["redis"]:
        redis = EmbeddedRedis(data, port=_port(order["redis_port"]), kept_open=(lock,))
        stack.callback(redis.stop)
        facts |= {"redis_url": redis.start(), "redis_pid": redis.pid}
        servers.append(redis)
    return Addresses(**facts), servers  # type: ignore[arg-type]


def _port(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _wait_for_end(ended: IO[str], servers: list[EmbeddedPostgres | EmbeddedRedis]) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    with selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        selector.register(read_end, selectors.EVENT_READ)
        while not stopping and all(server.is_running() for server in servers):
            for key, _ in selector.select():
                if key.fileobj is ended:
                    return
                os.read(read_end, 1024)


if __name__ == "__main__":
    run(json.loads(sys.stdin.readline()), sys.stdin, sys.stdout)
