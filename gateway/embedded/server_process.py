"""What the embedded servers have in common: a child process, a log, a free port, files for the owner alone."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.embedded import launcher
from gateway.errors import GatewayError

HOST = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01
START_ATTEMPTS = 5  # a port that was free may be taken before the server binds it


class EmbeddedServerError(GatewayError):
    """A server could not be started. The message says what to do, or ends in the server's last words."""


def free_port() -> int:
    """A loopback TCP port that nobody listens on.

    Below the range that the system picks from, so that no outgoing connection takes it while a server restarts.
    """
    for _ in range(200):
        port = random.randrange(20_000, 32_000)  # noqa: S311  # not a secret
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise EmbeddedServerError("no free TCP port between 20000 and 32000")


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody but its owner can read, from the moment it exists."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


class ServerProcess:
    """One server as our child: started through the launcher, logging into a file.

    `death_signal` is what the kernel sends it should we die without stopping it. `uid` and `gid` are -1 to stay who
    we are. `kept_open` are descriptors that it inherits.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, death_signal: int, uid: int, gid: int, kept_open: Sequence[int]
    ) -> None:
        numbers = [str(number) for number in (os.getpid(), int(death_signal), uid, gid)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", launcher.__file__, *numbers, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},  # without PG* variables, which would be obeyed
                pass_fds=kept_open,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def wait_until(self, is_ready: Callable[[int], bool]) -> bool:
        """Wait until `is_ready(pid)`; False when the process ended or took longer than START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while self.is_running() and time.monotonic() < deadline:
            if is_ready(self.pid):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def stop(self, stop_signal: int) -> None:
        """Send `stop_signal` and wait; kill what has not ended after STOP_SECONDS."""
        if self.is_running():
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def is_port_lost(log: Path) -> bool:
    """Whether the server's log ends in the complaint that its port was taken."""
    return "Address already in use" in last_words(log)


def last_words(log: Path) -> str:
    """The end of a server's log, on one line."""
    return " | ".join(log.read_text(errors="replace").splitlines()[-5:])
