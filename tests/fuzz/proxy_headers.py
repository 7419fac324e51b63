"""PROXY protocol headers: any bytes are an address, none, or refused; and nothing behind the header is read."""

from ipaddress import ip_address

from gateway.proxy.edge import IpAddress
from gateway.proxy.proxy_protocol import LONGEST_HEADER, LONGEST_LINE, BadHeader, read_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
Outcome = tuple[bool, IpAddress | None, int]  # whether it was refused, the address, how much was read


def outcome(data: bytes, most: int) -> Outcome:
    """What comes of a connection that gives `most` bytes at once."""
    position = 0

    async def receive(wanted: int, is_line: bool) -> bytes:
        nonlocal position
        piece = data[position : position + min(wanted, most)]
        if is_line and b"\n" in piece:
            piece = piece[: piece.index(b"\n") + 1]
        position += len(piece)
        return piece

    try:
        read_header(receive).__await__().send(None)  # it waits for nothing but `receive`, which does not wait
    except StopIteration as done:
        return False, done.value, position
    except BadHeader:
        return True, None, position
    raise AssertionError("it waits")


def check(data: bytes) -> None:
    """`data` is what a balancer sends first."""
    is_refused, address, size = outcome(data, LONGEST_HEADER)
    for most in (1, 5):
        again = outcome(data, most)
        assert again[:2] == (is_refused, address), "the reading depends on how the bytes arrive"
        assert is_refused or again[2] == size
    if not is_refused:
        assert address == (said_by_2(data[:size]) if data.startswith(SIGNATURE) else said_by_1(data[:size]))


def said_by_1(header: bytes) -> IpAddress | None:
    """The source in a line."""
    assert header.startswith(b"PROXY ")
    assert header.endswith(b"\r\n")
    assert header.count(b"\n") == 1
    assert len(header) <= LONGEST_LINE
    words = header[:-2].split(b" ")
    return None if words[1] == b"UNKNOWN" else plain(ip_address(words[2].decode()))


def said_by_2(header: bytes) -> IpAddress | None:
    """The source in a binary header."""
    assert len(header) == 16 + int.from_bytes(header[14:16])
    assert len(header) <= LONGEST_HEADER
    size = {1: 4, 2: 16}.get(header[13] >> 4)
    is_own = not header[12] & 0x0F  # the balancer speaks for itself
    return None if is_own or size is None else plain(ip_address(header[16 : 16 + size]))


def plain(address: IpAddress) -> IpAddress:
    """An IPv4-mapped address reads as IPv4."""
    return getattr(address, "ipv4_mapped", None) or address


_V4 = bytes([192, 0, 2, 7, 10, 0, 0, 1, 0x1F, 0x90, 0, 80])
SEEDS = [
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\nGET / HTTP/1.1\r\n",
    b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n",
    b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5000 80\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n",
    b"PROXY " + b"x" * 120 + b"\r\n",
    SIGNATURE + b"\x21\x11\x00\x0c" + _V4 + b"GET / HTTP/1.1\r\n",
    SIGNATURE + b"\x20\x00\x00\x00",
    SIGNATURE + b"\x20\x11\x00\x0c" + _V4,
    SIGNATURE + b"\x21\x21\x00\x24" + bytes(10) + b"\xff\xff" + _V4[:4] + bytes(20),
    SIGNATURE + b"\x21\x11\x00\x10" + _V4 + b"\x04\x00\x01\x00",
    SIGNATURE + b"\x21\x31\x00\xd8" + b"/tmp/x" + bytes(210),
    SIGNATURE + b"\x21\x11\xff\xff" + _V4,
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]
TOKENS = [
    *(SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b" 10.0.0.1", b" ::1", b" 80", b"\r\n", b"\x21\x11"),
]
