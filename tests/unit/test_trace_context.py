"""What is read of a caller's trace, and how long that may take."""

import time

import pytest

from gateway.proxy.tunnel import handshake
from gateway.telemetry.trace_context import TraceContext, read
from tests.unit.reading import head
from tests.unit.reading import read as read_head

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LINE = f"00-{TRACE}-{PARENT}-01".encode()


@pytest.mark.parametrize("gap", [b"", b" ", b" \t "])
def test_blanks_around_a_value_are_no_part_of_it(gap: bytes) -> None:
    """RFC 9110 5.5, of both fields; several lines of the state are one list (W3C 3.3)."""
    lines = b"Traceparent:" + gap + LINE + gap + b"\r\nTraceState:" + gap + b"a=1" + gap + b"\r\ntracestate: b=2\r\n"
    assert read(lines) == TraceContext(TRACE, PARENT, True, "a=1,b=2")


BLANKS = b" " * 40_000  # more than a head may have: what takes a time with the square of it, takes a minute here


def test_a_line_of_blanks_takes_no_time() -> None:
    """Whoever asks without a key has their lines read, too: none may stop the loop for as long as it likes."""
    began = time.process_time()
    assert read(b"traceparent: a" + BLANKS + b"b\r\n") is None
    assert read(b"traceparent: " + LINE + b"\r\ntracestate: a" + BLANKS + b"b\r\n") is not None
    request = read_head(head(b"GET / HTTP/1.1", b"Host: a", b"Connection: upgrade", b"Upgrade: websocket"))
    request.kept = b"Sec-WebSocket-Key: a" + BLANKS + b"b\r\n"
    assert handshake(request, frozenset({b"websocket"})) is None
    assert time.process_time() - began < 1.0
