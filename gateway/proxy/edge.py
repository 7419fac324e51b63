"""Who is at the other end of a client's connection: as the upstream is told, and as address rules see it.

The word of a trusted proxy on its own client is believed, of everybody else only the socket (R297). Must not know: what
a request is for.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

Network = IPv4Network | IPv6Network
IpAddress = IPv4Address | IPv6Address
Lines = Sequence[tuple[bytes, bytes]]  # (lower-cased name, value)

UNKNOWN: Final = "unknown"
HOST_BITS: Final = 64  # of an IPv6 address, which its owner chooses at will
HOST: Final = re.compile(rb"[A-Za-z0-9._\-:\[\]]{1,255}")
# One pair of a Forwarded element (RFC 7239 4), and what ends it: `;` the pair, `,` the element.
_PAIR: Final = re.compile(
    rb"[ \t]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=([!#$%&'*+\-.^_`|~0-9A-Za-z]+|\"[^\"\\\\]*\"))?[ \t]*(;|,|$)"
)


class Said(NamedTuple):
    """What a proxy says of its client: the addresses that the request came through, first to last."""

    chain: tuple[bytes, ...] = ()
    proto: bytes = b""
    host: bytes = b""


NOTHING: Final = Said()


class TrustedProxies:
    """Whose word is believed, and in which header they give it: `x-forwarded-for` and its kin, or `forwarded`."""

    def __init__(self, networks: Iterable[Network], *, header: str) -> None:
        self._networks = tuple(networks)
        self._is_standard = header.lower() == "forwarded"

    def trusts(self, address: IpAddress | None) -> bool:
        """Whether this is the address of one of them."""
        return address is not None and any(address in network for network in self._networks)

    def read(self, lines: Lines) -> Said:
        """What the lines of one of them say. The other kind of header is the client's own talk."""
        return read_forwarded(lines) if self._is_standard else read_x_forwarded(lines)

    def client_of(self, chain: Sequence[bytes]) -> IpAddress | None:
        """The client at the head of a chain: the last address that is none of theirs. None where it cannot be told."""
        address: IpAddress | None = None
        for text in reversed(chain):
            address = address_in(text)
            if not self.trusts(address):
                return address
        return address


def read_x_forwarded(lines: Lines) -> Said:
    """X-Forwarded-For, -Proto and -Host, each as one list."""
    said: dict[bytes, bytes] = {}
    for name, value in lines:
        said[name] = said[name] + b", " + value if name in said else value
    chain = tuple(part.strip(b" \t") for part in said.get(b"x-forwarded-for", b"").split(b","))
    return Said(
        tuple(part for part in chain if part), said.get(b"x-forwarded-proto", b""), said.get(b"x-forwarded-host", b"")
    )


def read_forwarded(lines: Lines) -> Said:
    """Forwarded (RFC 7239): the chain of its `for`, and `proto` and `host` of its first element.

    One malformed pair, and the whole of it says nothing.
    """
    text = b",".join(value for name, value in lines if name == b"forwarded")
    elements: list[dict[bytes, bytes]] = [{}]
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            return NOTHING
        if pair[1]:
            elements[-1][pair[1].lower()] = pair[2].strip(b'"')
        if pair[3] == b",":
            elements.append({})
        position = pair.end()
    first, host = elements[0], elements[0].get(b"host", b"")
    return Said(
        tuple(_bare(element[b"for"]) for element in elements if b"for" in element),
        proto if (proto := first.get(b"proto", b"")).isalpha() else b"",
        host if HOST.fullmatch(host) else b"",
    )


def _bare(node: bytes) -> bytes:
    """A node without its port, if it is an address; `unknown` for one that hides itself (RFC 7239 6)."""
    address = address_in(node)
    return UNKNOWN.encode() if address is None else str(address).encode()


def address_in(text: bytes) -> IpAddress | None:
    """The address in a text, which may be bracketed or have a port. An IPv4-mapped one reads as IPv4."""
    bare = text.decode("ascii", "replace")
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def address_of(peername: object) -> IpAddress | None:
    """The address of a socket's peer; None for one without: a Unix socket, or one that its peer has reset."""
    return address_in(str(peername[0]).encode()) if isinstance(peername, tuple) else None


def counted(address: IpAddress | None) -> str:
    """What an address counts as: an IPv6 one as its network, since its owner chooses the rest; all unknown as one."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, HOST_BITS), strict=False))
    return UNKNOWN if address is None else str(address)


@dataclass(frozen=True, slots=True)
class AddressRule:
    """From where something may be used. `allow` empty means from anywhere; `deny` wins."""

    allow: tuple[Network, ...]
    deny: tuple[Network, ...]

    def admits(self, address: IpAddress | None) -> bool:
        """Whether a client at `address` may come in; one whose address is not known is in no network."""
        if address is None:
            return not self.allow
        is_denied = any(address in network for network in self.deny)
        return not is_denied and (not self.allow or any(address in network for network in self.allow))


class Edge:
    """The peer of one connection. `address` is the socket's, or that of a PROXY header; `scheme` http or https."""

    __slots__ = ("_counted", "_is_trusted", "_last", "_lines", "_proxies", "_scheme", "_text", "address")

    def __init__(self, address: IpAddress | None, scheme: str, proxies: TrustedProxies) -> None:
        self.address = address
        self._counted = counted(address)
        self._text = (UNKNOWN if address is None else str(address)).encode()
        self._scheme = scheme.encode()
        self._proxies = proxies
        self._is_trusted = proxies.trusts(address)
        self._lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (self._text, self._scheme)
        self._last = (b"", self._lines)  # (host, lines): a client rarely changes the host it talks to

    @property
    def is_trusted(self) -> bool:
        """Whether it is one of the trusted proxies, with many clients behind it."""
        return self._is_trusted

    def forwarded_lines(self, said: Lines, host: bytes) -> bytes:
        """`X-Forwarded-For`, `-Proto` and `-Host`, each with its CRLF; `said` are the request's own such lines. Hot."""
        if self._is_trusted and said:
            return self._appended(self._proxies.read(said), host)
        if host != self._last[0]:
            self._last = (host, b"%bX-Forwarded-Host: %b\r\n" % (self._lines, host) if host else self._lines)
        return self._last[1]

    def _appended(self, said: Said, host: bytes) -> bytes:
        chain = b", ".join((*said.chain, self._text))
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (chain, said.proto or self._scheme)
        host = said.host or host
        return lines + (b"X-Forwarded-Host: %b\r\n" % host if host else b"")

    def client_name(self, said: Lines) -> str:
        """What the client behind this connection counts as: its address, an IPv6 one as its network (R297)."""
        if not self._is_trusted:
            return self._counted
        return counted(self._proxies.client_of((*self._proxies.read(said).chain, self._text)))

    def is_admitted(self, rule: AddressRule, said: Lines) -> bool:
        """Whether the client behind this connection may come in."""
        if not self._is_trusted:
            return rule.admits(self.address)
        return rule.admits(self._proxies.client_of((*self._proxies.read(said).chain, self._text)))
