"""How log lines look: one line per event, escaped, and tracebacks without the values of variables (R324, R325).

As text for people, in which a traceback takes lines of its own; or as JSON, where a line is an event whatever it holds.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Final, Literal, Protocol, TextIO, cast, get_args

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Level = Literal["info", "warning", "error"]  # of lines of the access log
LEVELS: Final = get_args(Level)

SECRET: Final = re.compile(r"((?:[a-z0-9-]{1,16}_){1,2}[0-9A-Za-z]{6})[0-9A-Za-z]{26,}")


JSON: Final = json.JSONEncoder(default=repr)  # one for all lines: to make one costs as much as a line


class File(Protocol):
    """Where lines go: a text file, or what takes lines as one does (gateway.telemetry.lines)."""

    def write(self, text: str, /) -> int: ...  # noqa: D102

    def flush(self) -> None: ...  # noqa: D102

    def isatty(self) -> bool: ...  # noqa: D102


def write_logs(file: File, *, level: str = "info", is_json: bool = False, **always: int) -> None:
    """Send everything from `level` on to `file`; every line says what `always` holds.

    Variables are never shown with a traceback: among them are requests with their keys, and addresses with passwords.
    """
    renderer: Processor = as_json
    if not is_json:
        renderer = structlog.dev.ConsoleRenderer(
            colors=file.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            partial(saying, always),
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
            escaped,
            structlog.processors.format_exc_info,  # text, and no variables in it
            masked,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", file)),  # a line is one write
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
    )


class RequestLines:
    """Lines of the access log: they look as all others do, and none of structlog's steps is taken for them.

    Fields hold text that is fit to be written already. `levels` are those that are written at all: to be asked before a
    line is put together.
    """

    def __init__(self) -> None:
        config = structlog.get_config()
        logger: FilteringBoundLogger = structlog.get_logger()
        processors = config["processors"]
        self._is_json = processors[-1] is as_json
        saying_always = (one for one in processors if isinstance(one, partial) and one.func is saying)
        self._always: Mapping[str, int] = next((one.args[0] for one in saying_always), {})
        self.levels = frozenset(
            level for level in LEVELS if logger.is_enabled_for(logging.getLevelNamesMapping()[level.upper()])
        )
        self._write = config["logger_factory"]().msg
        self._second = 0
        self._stamp = ""

    def write(self, level: Level, fields: Mapping[str, object]) -> None:
        """Write one, of `levels`."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        timestamp = f"{self._stamp}.{int((now - second) * 1_000_000):06}Z"
        event = {"timestamp": timestamp, "level": level, "event": "request", **self._always, **fields}
        self._write(JSON.encode(event) if self._is_json else as_pairs(event))


def as_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """As a structlog processor: an object in a line. What is not ASCII is escaped, and so are all kinds of breaks."""
    return JSON.encode(event)


def as_pairs(event: EventDict) -> str:
    """Like the lines for people, without their colours."""
    head = f"{event.pop('timestamp')} [{event.pop('level'):<9}] {event.pop('event')}"
    return " ".join((head, *(f"{name}={value}" for name, value in escaped(None, "", event).items())))


def saying(always: Mapping[str, int], logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """As a structlog processor: which process of several speaks."""
    event.update(always)
    return event


def masked(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """As a structlog processor: what looks like a key or an admin token keeps its display prefix alone.

    None should ever be here; but one sent where an id belongs would come back in the text of an error.
    """
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = SECRET.sub(r"\1***", value)
    return event


def escaped(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """As a structlog processor: no text of an event can begin a line, or reach a terminal's controls."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event
