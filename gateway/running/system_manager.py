"""What systemd is told of a service of `Type=notify`: datagrams to the socket that it names (sd_notify(3))."""

import socket
import time
from collections.abc import Mapping

import structlog

log = structlog.get_logger(__name__)

NAME = "NOTIFY_SOCKET"


class SystemManager:
    """Tells whoever has started this process how it is; nobody, where the environment names no socket."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get(NAME, "")
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self) -> None:
        """It serves, or does so by its new settings."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads its settings again."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """It begins to end."""
        self._tell("STOPPING=1")

    def replaced(self, pid: int) -> None:
        """Another process is the service from now on. Only the old one is listened to, unless all of them are."""
        self._tell(f"MAINPID={pid}", "READY=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("system_manager_not_told", told=lines[0], error=str(error))
