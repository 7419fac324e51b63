"""The sockets of the listeners, one for each worker (SO_REUSEPORT): the kernel spreads connections over them.

They are the supervisor's, which listens but never accepts; workers do. When one dies they stay, and with them the
connections that it had not accepted yet.
"""

import contextlib
import socket
from collections.abc import Mapping
from typing import Final

from gateway.listeners import BACKLOG, ListenerFailed, Sockets
from gateway.settings import Address

OwnSockets = Mapping[int, Sockets]  # by the number of the worker whose own they are

_OPTIONS: Final = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)


def listen(address: Address, numbers: range, stack: contextlib.ExitStack) -> OwnSockets:
    """Listen on `address` once for each of `numbers`; `stack` closes the sockets. Raises ListenerFailed."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        by_number: dict[int, Sockets] = dict.fromkeys(numbers, ())
        for family, _, _, _, wanted in dict.fromkeys(found):
            where = _free(family, wanted)
            for number in numbers:
                sock = stack.enter_context(_bound(family, where, _OPTIONS))
                sock.listen(BACKLOG)
                by_number[number] += (sock,)
        return by_number
    except OSError as error:
        raise ListenerFailed(address, error) from error


def descriptors(sockets: OwnSockets) -> dict[int, tuple[int, ...]]:
    """The numbers by which a child knows them that has inherited them."""
    return {number: tuple(sock.fileno() for sock in own) for number, own in sockets.items()}


def _free(family: int, where: tuple[object, ...]) -> tuple[object, ...]:
    """The address, with a port if it had none, if nobody listens there.

    A socket that does not share its port finds out: those that do would let a second gateway in beside the first.
    """
    with _bound(family, where, (socket.SO_REUSEADDR,)) as probe:
        found: tuple[object, ...] = probe.getsockname()
    return found


def _bound(family: int, where: tuple[object, ...], options: tuple[int, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the other has sockets of its own
        sock.setblocking(False)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock
