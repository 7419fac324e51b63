"""Boundaries of WebSocket frames: the same state however the bytes arrive, and right for frames of another's making."""

from gateway.proxy.tunnel import FrameBoundary, close_frame
from tests.fuzz.reference import cuts


def check(data: bytes) -> None:
    """`data` is what a server sends behind its 101."""
    expected = ends_between_frames(data)
    for pieces in cuts(data):
        boundary = FrameBoundary()
        for piece in pieces:
            boundary.feed(piece)
        assert boundary.is_between_frames == expected
        if expected:
            boundary.feed(close_frame(1008))
            assert boundary.is_between_frames
    for cut in range(0, len(data), 7):
        check_last(data[:cut], data[cut:])


def check_last(before: bytes, data: bytes) -> None:
    """Of `data` only what belongs to the frame that `before` has begun is taken."""
    boundary = FrameBoundary()
    boundary.feed(before)
    size = boundary.feed(data, is_last=True)
    if ends_between_frames(before):
        assert size == 0
        return
    assert boundary.is_between_frames == ends_between_frames(before + data[:size])
    assert boundary.is_between_frames or size == len(data)
    assert not any(ends_between_frames(before + data[:less]) for less in range(size))


def ends_between_frames(data: bytes) -> bool:
    """RFC 6455 5.2, read off at once."""
    while data:
        if len(data) < 2:
            return False
        length, size = data[1] & 0x7F, 2
        if length == 126:
            length, size = int.from_bytes(data[2:4]), 4
        elif length == 127:
            length, size = int.from_bytes(data[2:10]), 10
        if data[1] & 0x80:
            size += 4
        if len(data) < size + length:
            return False
        data = data[size + length :]
    return True


SEEDS = [
    b"",
    b"\x81\x05hello",
    b"\x81\x05hello\x88\x02\x03\xe8",
    b"\x82\x7e\x00\x03abc\x89\x00",
    b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x03abc",
    b"\x81\x83\x01\x02\x03\x04abc\x01\x01a",
    b"\x82\xfe\x00\x01\x01\x02\x03\x04a",
    b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff1234",
]
TOKENS = [b"\x81\x00", b"\x82\x7e\x00\x01", b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01", b"\x82\x80", b"\x88\x02"]
