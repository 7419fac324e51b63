"""The file of settings, read again when told to, or when what stands in it has changed."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from gateway.configuration import ConfigurationError, load, parse
from gateway.running.sockets import LISTENERS
from gateway.settings import Settings

log = structlog.get_logger(__name__)

# Looked at, instead of being told by the kernel: what Kubernetes swaps is a link to a folder, and what a network file
# system changes nobody tells. A change counts once the file has been the same for two looks: it may be half written.
LOOK_SECONDS: Final = 1.0


class ConfigurationFile:
    """The file at `path`; `environ` (default: the process's) gives the values of `${VAR}`."""

    def __init__(self, path: Path, environ: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._environ = os.environ if environ is None else environ
        self._last: bytes | None = None  # what was read last, good or bad

    def read(self) -> Settings:
        """The settings. Raises ConfigurationError."""
        self._last = self._content()
        if self._last is None:
            return load(self._path, self._environ)  # it says why
        return parse(self._last, str(self._path), self._environ)

    async def read_again(self, before: Settings) -> Settings | None:
        """The settings as they are now; None, and in the log why, where they cannot take the place of `before`."""
        try:
            settings = await asyncio.to_thread(self.read)  # a long file takes a while, in which others are served
        except ConfigurationError as error:
            for mistake in error.mistakes:
                log.error("configuration_refused", mistake=str(mistake), line=mistake.line)
            return None
        mistakes = list(_moved(before, settings))
        for text in mistakes:
            log.error("configuration_refused", mistake=text)
        return None if mistakes else settings

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever there is something else in the file than was read last, for two looks in a row.

        A file that is away, or cannot be read, has not changed.
        """
        seen = self._last
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before, seen = seen, self._content()
            if seen is not None and seen == before and seen != self._last:
                log.info("configuration_changed", file=str(self._path))
                changed()

    def _content(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None


def _moved(before: Settings, now: Settings) -> list[str]:
    """What cannot change while sockets are open."""
    told = [
        f"listen.{name}: a new address needs a restart"
        for name in LISTENERS
        if getattr(before.listen, name) != getattr(now.listen, name)
    ]
    if before.listen.handover != now.listen.handover:
        told.append("listen.handover: a new path needs a restart")
    return told
