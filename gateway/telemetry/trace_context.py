"""W3C Trace Context, as far as a proxy has to know it: `traceparent` read strictly, and replaced in a head. Pure.

Who makes no span passes both headers on as they came, whatever they say: so does the gateway, for every request that it
does not trace. Who makes one must not build on a context that is malformed: it is dropped, `tracestate` with it, and a
new trace begins.
"""

import re
from typing import Final, NamedTuple

# For lines in lower case, each behind a break: patterns that begin with letters take a tenth of the time.
# Blanks around a value are taken off afterwards: a pattern for them would take a second over a line full of them.
_NAME: Final = b"\ntraceparent:"  # mostly there is none: looking for bytes costs less than a pattern
_LINE: Final = re.compile(_NAME + rb"([^\r\n]*)")
_STATE: Final = re.compile(rb"\ntracestate:([^\r\n]*)")
_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TO_REPLACE: Final = re.compile(rb"^(?:traceparent|tracestate):[^\r]*\r\n", re.IGNORECASE | re.MULTILINE)
_END: Final = b"\r\n\r\n"
BLANKS: Final = b" \t"
LONGEST_STATE: Final = 512  # bytes that have to be passed on (W3C 3.3.1.5); what is longer is dropped as a whole


class TraceContext(NamedTuple):
    """What a caller says of the trace that its request belongs to. `state` is for others alone."""

    trace_id: str
    parent_id: str
    is_sampled: bool
    state: str


def read(lines: bytes) -> TraceContext | None:
    """The context in these header lines; None where there is none, or one that is malformed (W3C 3.2)."""
    text = b"\n" + lines
    lower = text.lower()
    if _NAME not in lower:
        return None
    found = _values(_LINE, text, lower)
    if len(found) != 1:
        return None
    parent = _PARENT.fullmatch(found[0])
    if parent is None:
        return None
    version, trace_id, parent_id, flags, more = parent.groups()
    is_known = version == b"00" and more is None
    if version == b"ff" or not (is_known or version != b"00") or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    state = b",".join(_values(_STATE, text, lower))
    return TraceContext(
        trace_id.decode(),
        parent_id.decode(),
        bool(int(flags, 16) & 1),
        state.decode() if state.isascii() and len(state) <= LONGEST_STATE else "",
    )


def _values(name: re.Pattern[bytes], text: bytes, lower: bytes) -> list[bytes]:
    """What stands in the lines of this name, as it was written."""
    return [text[found.start(1) : found.end(1)].strip(BLANKS) for found in name.finditer(lower)]


def replaced(head: bytes, trace_id: str, span_id: str, state: str) -> bytes:
    """A head of a request whose parent is now this span, which is sampled."""
    start = _TO_REPLACE.sub(b"", head.removesuffix(_END) + b"\r\n")
    lines = f"traceparent: 00-{trace_id}-{span_id}-01\r\n" + (f"tracestate: {state}\r\n" if state else "")
    return start + lines.encode() + b"\r\n"
