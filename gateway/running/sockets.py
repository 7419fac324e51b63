"""The listeners' sockets, in queues: the connections that nobody has accepted yet wait in one of them.

They are held by the process that bound them, or has taken them over, and not by what serves: so they outlive a worker
that dies, and a gateway that is replaced. Several queues share a port (SO_REUSEPORT), over which the kernel spreads
connections: one for each worker.
"""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gateway.listeners import BACKLOG, Bound, ListenerFailed, Sockets
from gateway.settings import Address, Listen

Queues = tuple[Sockets, ...]

log = structlog.get_logger(__name__)

LISTENERS: Final = ("proxy", "admin", "status")
_SHARED: Final = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)


@dataclass(frozen=True)
class Held:
    """The queues of each listener: of the first two as many of one as of the other, of the third one.

    Nobody waits in those that have not been listened on: `open_count` says how many of the first two have.
    """

    proxy: Queues
    admin: Queues
    status: Queues
    open_count: int

    @classmethod
    def bound(cls, listen: Listen, count: int) -> "Held":
        """Bind all addresses, and listen; for callers and operators on `count` queues. Raises ListenerFailed."""
        held: list[Queues] = []
        try:
            for address, queues in ((listen.proxy, count), (listen.admin, count), (listen.status, 1)):
                held.append(_listen(address, queues))
        except BaseException:
            _close(sock for queues in held for queue in queues for sock in queue)
            raise
        proxy, admin, status = held
        return cls(proxy, admin, status, count)

    def extended(self, listen: Listen, count: int) -> "Held":
        """With more queues where there are less than `count`, for who listens on them once all are ready.

        As many as before where the system does not allow it: the sockets may be another user's.
        """
        proxy, admin, missing = self.proxy, self.admin, count - len(self.proxy)
        if missing > 0:
            try:
                proxy, admin = _more(listen.proxy, proxy, missing), _more(listen.admin, admin, missing)
            except ListenerFailed as error:
                log.warning("workers_share_a_queue", reason=str(error))
                _close(sock for queue in proxy[self.open_count :] for sock in queue)
                proxy = self.proxy
        return replace(self, proxy=proxy, admin=admin)

    def close(self) -> None:
        """Close them; those that something serves, it closes itself."""
        _close(sock for queues in (self.proxy, self.admin, self.status) for queue in queues for sock in queue)


def whole(address: Address, queues: Queues) -> Bound:
    """A listener that serves all queues, with sockets of its own."""
    return Bound(address, tuple(sock.dup() for queue in queues for sock in queue))


def share(queues: int, workers: int, number: int) -> tuple[int, ...]:
    """Which of the queues are those of a worker; both count from 0. Where there are too few, some have the same."""
    return (number % queues,) if queues < workers else tuple(range(number, queues, workers))


def descriptors(queues: Queues) -> tuple[tuple[int, ...], ...]:
    """The numbers by which a child knows them that has inherited them."""
    return tuple(tuple(sock.fileno() for sock in queue) for queue in queues)


def from_descriptors(queues: Sequence[Sequence[int]]) -> Queues:
    """What `descriptors` has told a child of."""
    return tuple(tuple(socket.socket(fileno=descriptor) for descriptor in queue) for queue in queues)


def _close(sockets: Iterator[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _listen(address: Address, count: int) -> Queues:
    by_queue: list[list[socket.socket]] = [[] for _ in range(count)]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, wanted in dict.fromkeys(found):
            where = _free(family, wanted)
            for queue in by_queue:
                queue.append(_bound(family, where, _SHARED))
                queue[-1].listen(BACKLOG)
    except OSError as error:
        _close(sock for queue in by_queue for sock in queue)
        raise ListenerFailed(address, error) from error
    return tuple(tuple(queue) for queue in by_queue)


def _more(address: Address, queues: Queues, count: int) -> Queues:
    added: list[Sockets] = []
    try:
        for _ in range(count):
            added += [tuple(_bound(sock.family, sock.getsockname(), _SHARED) for sock in queues[0])]
    except OSError as error:
        _close(sock for queue in added for sock in queue)
        raise ListenerFailed(address, error) from error
    return (*queues, *added)


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
