"""The header that a connection begins with behind the PROXY protocol: a load balancer's word on who its client is.

It is read from the bare socket, before TLS, to its last byte and no further. Reading it is a library's.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from proxyprotocol import ProxyProtocolIncompleteError
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.result import is_ipv4, is_ipv6

from gateway.proxy.edge import IpAddress, address_in

LONGEST_LINE: Final = 107  # of version 1, CRLF included
LONGEST_HEADER: Final = 4096  # of version 2: addresses, and a certificate's worth of extras


class BadHeader(Exception):
    """What came is no PROXY header."""


async def header_of(connection: socket.socket) -> IpAddress | None:
    """Read the header of a connection; see `read_header`. Raises OSError as well."""
    return await read_header(partial(_receive_some, connection))


async def _receive_some(connection: socket.socket, most: int, is_line: bool) -> bytes:
    """At least one byte of a header, `most` at most, and nothing behind the end of a line if it is one."""
    loop = asyncio.get_running_loop()
    if not is_line:
        return await loop.sock_recv(connection, most)
    data = await loop.sock_recv(connection, 1)
    if data in (b"", b"\n") or most == 1:
        return data
    try:
        seen = connection.recv(most - 1, socket.MSG_PEEK)
        return data + connection.recv(seen.find(b"\n") + 1 or len(seen))
    except BlockingIOError:
        return data


async def read_header(receive: Callable[[int, bool], Awaitable[bytes]]) -> IpAddress | None:
    """The client's address in a header; None where the balancer speaks for itself, or of no Internet address.

    `receive` gives some bytes: so many at most, and nothing behind the end of a line if told so. Raises BadHeader.
    """
    protocol, data = ProxyProtocolDetect(), b""
    while True:
        try:
            result = protocol.unpack(data)
            break
        except ProxyProtocolIncompleteError as error:
            is_line = error.want_read.want_bytes is None
            most = LONGEST_LINE - len(data) if is_line else error.want_read.want_bytes or 0
        except (ValueError, struct.error) as error:
            raise BadHeader(str(error)) from error
        if most <= 0 or len(data) + most > LONGEST_HEADER:
            raise BadHeader("too long")
        received = await receive(most, is_line)
        if not received:
            raise BadHeader("the connection ended inside the header")
        data += received
    if is_ipv4(result) or is_ipv6(result):
        return address_in(str(result.source[0]).encode())
    return None
