"""The listeners' sockets, handed to the process that takes this one's place: another version, or other settings.

Both hold the same open sockets from then on, so no connection finds nobody. Over a Unix socket that only its owner can
open, and at which each asks for the other's user all the same:

    the new one connects
    the old one     {"pid", "listen", "queues"}, then the descriptors (SCM_RIGHTS), in messages of up to a hundred
    the new one     `ready`, once it serves; if it ends without, nothing has happened
    the old one     `yours`: the path is free, and it begins to leave
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.errors import GatewayError
from gateway.running.sockets import LISTENERS, Held, Queues, descriptors
from gateway.settings import Listen

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 5.0  # of the other process, in which nothing is waited for
MESSAGE_BYTES: Final = 65_536
DESCRIPTORS: Final = 100  # of one message; the system takes no more than 253
ROOT: Final = 0
READY: Final = b"ready"
YOURS: Final = b"yours"
_PEER: Final = struct.Struct("3i")  # of SO_PEERCRED: process, user, group


class TakeOverFailed(GatewayError):
    """There is no process to take the place of, or it does not give it."""


class Handover:
    """Where a successor asks for the sockets that this process has `held`. `taken` completes with its process id.

    One successor at a time: another waits, and gives up.
    """

    def __init__(self, path: str, listen: Listen, held: Held) -> None:
        self.taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._path = Path(path)
        self._listen = listen
        self._held = held
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Listen. Raises TakeOverFailed where that is impossible, or another process does there."""
        made = self._path.with_name(f".{os.getpid()}")  # nobody connects before only the owner can
        try:
            if _is_answered(self._path):
                raise TakeOverFailed(f"listen.handover: {self._path} is somebody else's. Choose another path")
            made.unlink(missing_ok=True)
            self._listener.bind(str(made))
            made.chmod(stat.S_IRUSR | stat.S_IWUSR)
            self._listener.listen(1)
            made.rename(self._path)
        except OSError as error:
            raise TakeOverFailed(
                f"listen.handover: cannot listen at {self._path}: {error.strerror or error}"
            ) from error
        self._listener.setblocking(False)
        self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        """Listen no more, and leave nothing behind."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._leave()

    def _leave(self) -> None:
        if self._listener.fileno() >= 0:
            is_there = self._task is not None
            self._listener.close()
            if is_there:
                self._path.unlink(missing_ok=True)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._listener.fileno() >= 0:
            connection, _ = await loop.sock_accept(self._listener)
            with connection:
                connection.setblocking(False)
                try:
                    await self._attend(connection)
                except OSError as error:
                    log.error("take_over_failed", reason=str(error))

    async def _attend(self, connection: socket.socket) -> None:
        pid, user = _peer(connection)
        if not _is_ours(user):
            log.error("take_over_refused", pid=pid, user=user)
            return
        log.info("take_over_asked", pid=pid)
        for message, fds in self._messages():
            socket.send_fds(connection, [message], fds)
        if await asyncio.get_running_loop().sock_recv(connection, MESSAGE_BYTES) != READY:
            log.error("take_over_given_up", pid=pid)
            return
        self._leave()  # the successor listens there from now on
        await asyncio.get_running_loop().sock_sendall(connection, YOURS)
        log.info("taken_over", pid=pid)
        self.taken.set_result(pid)

    def _messages(self) -> Iterator[tuple[bytes, Sequence[int]]]:
        queues = {name: descriptors(getattr(self._held, name)) for name in LISTENERS}
        told = {
            "pid": os.getpid(),
            "listen": {name: str(getattr(self._listen, name)) for name in LISTENERS},
            "queues": {name: [len(queue) for queue in of_one] for name, of_one in queues.items()},
        }
        yield json.dumps(told).encode(), ()
        fds = [fd for of_one in queues.values() for queue in of_one for fd in queue]
        for first in range(0, len(fds), DESCRIPTORS):
            yield b"sockets", fds[first : first + DESCRIPTORS]


class Predecessor:
    """The process whose place this one takes, with `held`, its sockets; it serves until `relieve`."""

    def __init__(self, pid: int, held: Held, connection: socket.socket) -> None:
        self.pid = pid
        self.held = held
        self._connection = connection

    @classmethod
    def met(cls, listen: Listen) -> "Predecessor":
        """Ask it for its sockets. Blocks, for some seconds at most. Raises TakeOverFailed."""
        if listen.handover is None:
            raise TakeOverFailed("--take-over needs listen.handover, in the settings of both processes")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(listen.handover)
            pid, user = _peer(connection)
            if not _is_ours(user):  # who else could put a socket there would have us serve theirs
                raise TakeOverFailed(f"process {pid} at {listen.handover} is of another user ({user})")
            return cls(*received(connection, listen), connection)
        except OSError as error:
            connection.close()
            reason = "it is busy with another" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise TakeOverFailed(f"no process gives its place at {listen.handover}: {reason}") from error
        except BaseException:
            connection.close()
            raise

    async def relieve(self) -> None:
        """Let it leave: this process serves. Raises TakeOverFailed where it does not answer; one that died is gone."""
        loop = asyncio.get_running_loop()
        self._connection.setblocking(False)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.sock_sendall(self._connection, READY)
                answer = await loop.sock_recv(self._connection, MESSAGE_BYTES)
        except TimeoutError:
            raise TakeOverFailed(f"process {self.pid} does not answer") from None
        except ConnectionError:
            answer = b""
        if answer != YOURS:
            log.warning("predecessor_has_ended", pid=self.pid)

    def close(self) -> None:
        """Speak with it no more. Before `relieve` this means that it goes on."""
        self._connection.close()


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end."""
    pid, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, user


def _is_ours(user: int) -> bool:
    return user in (ROOT, os.geteuid())


def received(connection: socket.socket, listen: Listen) -> tuple[int, Held]:
    """The process at the other end, and the sockets that it gives. Raises TakeOverFailed, OSError."""
    message = connection.recv(MESSAGE_BYTES)
    if not message:
        raise TakeOverFailed(f"the process at {listen.handover} does not know this user")
    told = _told(message)
    if told is None:
        raise TakeOverFailed(f"the process at {listen.handover} speaks another language")
    count = sum(sum(queues) for queues in told["queues"].values())
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        while len(sockets) < count:
            data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            sockets += [stack.enter_context(socket.socket(fileno=fd)) for fd in fds]
            if not data:
                raise TakeOverFailed(f"process {told['pid']} has ended meanwhile")
        moved = [name for name in LISTENERS if told["listen"][name] != str(getattr(listen, name))]
        if moved:
            raise TakeOverFailed(
                "; ".join(
                    f"listen.{name} is {getattr(listen, name)}, and process {told['pid']} is at {told['listen'][name]}:"
                    " a new address needs a restart"
                    for name in moved
                )
            )
        stack.pop_all()
    remaining = iter(sockets)
    held = {name: _queues(told["queues"][name], remaining) for name in LISTENERS}
    return told["pid"], Held(**held, open_count=len(held["proxy"]))


def _told(message: bytes) -> Mapping[str, Any] | None:
    """What the other process says of itself, where it is what `Handover` says; None for anything else."""
    try:
        told = json.loads(message)
        is_whole = isinstance(told["pid"], int) and all(
            isinstance(told["listen"][name], str)
            and isinstance(told["queues"][name], list)
            and all(type(length) is int and length >= 0 for length in told["queues"][name])
            for name in LISTENERS
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return told if is_whole and told["queues"].keys() == set(LISTENERS) else None


def _queues(lengths: Sequence[int], sockets: Iterator[socket.socket]) -> Queues:
    return tuple(tuple(next(sockets) for _ in range(length)) for length in lengths)


def _is_answered(path: Path) -> bool:
    """Whether a process listens at a path, or something else is there than a socket that a killed one has left."""
    if path.exists() and not path.is_socket():
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(ANSWER_SECONDS)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
