"""A play for the engine: clients and upstreams in memory that do what an input's bytes say, and all that is then seen.

An input is a byte of flags, then steps, each behind `STEP`: a letter for what happens, and what it takes.
"""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import structlog

from gateway.auth.admission import Admission, Admitted
from gateway.auth.refusal import Refusal
from gateway.errors import StoreUnavailable
from tests.fixtures.admission_world import World
from tests.fuzz import answers, parts
from tests.fuzz.transports import MemoryLoop, MemoryTransport, Network

STEP = b"\xfe"
MOST_STEPS = 60
MOST_BYTES = 8192
FLOOD_BYTES = 300_000
MOST_ROUNDS = 100  # of long waits, behind the last step: each request of a long pipeline may need some
PASSES = {b"0": 0.1, b"1": 0.6, b"2": 1.1, b"3": 3.0, b"4": 11.0, b"5": 31.0, b"6": 76.0, b"7": 301.0}


class Witness:
    """Stands before admission and counts whom it lets in."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.admitted = 0

    def admit(self, *asked: Any, is_stream: bool = False, **more: Any) -> Any:
        """As Admission."""
        return self._note(self._admission.admit(*asked, is_stream=is_stream, **more), is_stream)

    async def resolve(self, *asked: Any, is_stream: bool = False, **more: Any) -> Any:
        """As Admission."""
        return self._note(await self._admission.resolve(*asked, is_stream=is_stream, **more), is_stream)

    def _note(self, decision: Admitted | Refusal | None, is_stream: bool) -> Admitted | Refusal | None:
        self.admitted += isinstance(decision, Admitted) and not is_stream
        return decision


@dataclass
class Peer:
    """A client: what it has sent, and its transport, whose `written` is what it got."""

    transport: MemoryTransport
    address: str
    sent: bytes = b""
    has_left: bool = False  # by itself, whatever was still to come


@dataclass
class Seen:
    """All that there is to see after a play."""

    clients: list[Peer]
    network: Network
    witness: Witness
    faults: list[BaseException] = field(default_factory=list)
    is_poisoned: bool = False  # upstreams have said other things than whole replies
    is_calm: bool = True  # nobody left, broke off, refused or ran out of time


class Stage:
    """Everything that is under way. The letters of `steps` are the language of inputs."""

    def __init__(self, flags: int, network: Network, loop: MemoryLoop, faults: list[BaseException]) -> None:
        self.loop = loop
        self.world = World(clock=network.clock, has_shared=bool(flags & 1))
        self.world.plant(parts.SECRET.decode())
        self.witness = Witness(self.world.admission)
        self.engine = parts.Engine(self.world, self.witness)
        self.network = network
        self.is_tls = bool(flags & 2)
        self.peers: dict[str, Peer] = {}
        self.seen = Seen([], network, self.witness, faults)
        self.flood_bytes = FLOOD_BYTES
        self.current = 0  # which open upstream connection is meant, counted from the last
        self.steps: dict[bytes, Callable[[bytes], object]] = {
            b"c": lambda data: self.say(parts.STRANGER, data),
            b"C": lambda data: self.say(parts.TRUSTED, data),
            b"e": lambda _: self.end(parts.STRANGER),
            b"E": lambda _: self.end(parts.TRUSTED),
            b"x": lambda _: self.leave(parts.STRANGER),
            b"X": lambda _: self.leave(parts.TRUSTED),
            b"p": lambda _: self.block(parts.STRANGER, True),
            b"P": lambda _: self.block(parts.STRANGER, False),
            b"o": self.choose,
            b"u": self.answer_raw,
            b"r": self.answer,
            b"i": lambda _: self.half_close(),
            b"h": lambda _: self.hang_up(None),
            b"H": lambda _: self.hang_up(ConnectionResetError("reset")),
            b"w": lambda _: self.block_upstream(True),
            b"W": lambda _: self.block_upstream(False),
            b"f": self.arrange,
            b"t": self.pass_time,
            b"y": lambda _: self.flood(),
            b"a": self.trouble,
            b"k": lambda _: self.revoke(),
            b"d": lambda _: self.drain(),
        }

    # -- clients

    def peer(self, address: str) -> Peer:
        """The client at this address; connects if it has not, or is gone."""
        peer = self.peers.get(address)
        if peer is None or (peer.transport.is_lost and not self.engine.server.is_draining):
            transport = MemoryTransport(self.engine.client(), address, [], can_half_close=not self.is_tls)
            peer = self.peers[address] = Peer(transport, address)
            self.seen.clients.append(peer)
            transport.begin()
        return peer

    def say(self, address: str, data: bytes) -> None:
        """A client sends."""
        peer = self.peer(address)
        if not peer.has_left and not peer.transport.is_closing():
            peer.sent += data
            peer.transport.deliver(data)

    def flood(self) -> None:
        """A client sends more than anybody would read; once in a play."""
        self.say(parts.STRANGER, b"y" * self.flood_bytes)
        self.flood_bytes = 0

    def end(self, address: str) -> None:
        """A client sends no more."""
        peer = self.peer(address)
        self.seen.is_calm = False
        if not peer.has_left and not peer.transport.is_closing():
            peer.has_left = True
            peer.transport.deliver(None)

    def leave(self, address: str) -> None:
        """A client's connection is gone."""
        peer = self.peer(address)
        self.seen.is_calm = False
        peer.has_left = True
        peer.transport.break_off(ConnectionResetError("gone"))

    def block(self, address: str, is_blocked: bool) -> None:
        """A client takes no more, or does again."""
        self.peer(address).transport.block(is_blocked)

    # -- upstreams

    def upstream(self) -> MemoryTransport | None:
        """The connection that is meant."""
        is_open = [transport for transport in self.network.made if not transport.is_closing()]
        return is_open[-1 - self.current % len(is_open)] if is_open else None

    def choose(self, data: bytes) -> None:
        """Another upstream connection is meant from now on."""
        self.current = data[0] if data else self.current + 1

    def answer_raw(self, data: bytes) -> None:
        """An upstream sends what it likes."""
        transport = self.upstream()
        if transport is not None:
            self.seen.is_poisoned = True
            self.seen.is_calm = False
            transport.deliver(data)

    def answer(self, data: bytes) -> None:
        """An upstream answers the last request that it has got, well."""
        transport = self.upstream()
        if transport is None:
            return
        for kind in (data[index : index + 1] for index in range(min(len(data), 4))):
            if not transport.is_closing():
                transport.deliver(answers.answer(kind, bytes(transport.written)))

    def half_close(self) -> None:
        """An upstream sends no more."""
        transport = self.upstream()
        self.seen.is_calm = False
        if transport is not None:
            transport.deliver(None)

    def hang_up(self, error: Exception | None) -> None:
        """An upstream's connection is gone."""
        transport = self.upstream()
        self.seen.is_calm = False
        if transport is not None:
            transport.break_off(error)

    def block_upstream(self, is_blocked: bool) -> None:
        """An upstream takes no more, or does again."""
        transport = self.upstream()
        if transport is not None:
            transport.block(is_blocked)

    def arrange(self, data: bytes) -> None:
        """New connections are refused, met with silence, or made again."""
        self.seen.is_calm = False
        self.network.is_refusing = data[:1] == b"r"
        self.network.is_silent = data[:1] == b"s"

    # -- the world

    def pass_time(self, data: bytes) -> None:
        """Time passes; the sweep comes by if enough of it did."""
        self.seen.is_calm = False
        self.network.clock.now += PASSES.get(data[:1], 0.5)

    def revoke(self) -> None:
        """The key is revoked, and the node hears of it."""
        self.seen.is_calm = False
        self.world.change(parts.SECRET.decode(), is_revoked=True)

    def trouble(self, data: bytes) -> None:
        """The key store fails, is slow, or tells no news; or it is well again."""
        self.seen.is_calm = False
        trouble, gate = self.world.truth.trouble, self.world.truth.trouble.gate
        if gate is not None:
            gate.set()
        trouble.error = StoreUnavailable("away") if data[:1] == b"e" else None
        trouble.gate = asyncio.Event() if data[:1] == b"g" else None
        self.world.view.fresh_until = 0.0 if data[:1] == b"v" else inf

    def drain(self) -> None:
        """The gateway begins to stop."""
        self.seen.is_calm = False
        self.engine.server.pre_shutdown()

    async def play(self, steps: list[bytes]) -> None:
        """Do each step; the loop turns once behind each, and often where a step says nothing."""
        for step in steps[:MOST_STEPS]:
            act = self.steps.get(step[:1])
            if act is None:
                await self.loop.settled()
            else:
                act(step[1:])
                await asyncio.sleep(0)
        await self.loop.settled()

    async def end_play(self) -> None:
        """Let so much time pass that nothing may be left."""
        for transport in (*self.network.made, *(peer.transport for peer in self.seen.clients)):
            transport.block(False)
        self.network.is_silent = False
        self.trouble(b"")
        for _ in range(MOST_ROUNDS):
            await self.loop.settled()
            self.network.clock.now += 320.0
            if all(peer.transport.is_lost for peer in self.seen.clients):
                break
        await self.loop.settled()
        for peer in self.seen.clients:
            assert peer.transport.is_lost, "a client's connection outlives every deadline"
        for upstream in self.engine.services.upstreams.values():
            for target in upstream.targets:
                assert not target.busy_count, "an upstream's connection outlives every deadline"
        await self.engine.server.shutdown(0)
        await self.world.admission.close()
        assert len(asyncio.all_tasks()) == 1, "a task outlives everything"


def perform(data: bytes) -> Seen:
    """Play the input."""
    first, *steps = data[:MOST_BYTES].split(STEP)
    network = Network()
    faults: list[BaseException] = []
    before = structlog.get_config()
    structlog.configure(processors=[_collector(faults)])
    try:
        with asyncio.Runner(loop_factory=lambda: MemoryLoop(network)) as runner:
            return runner.run(_perform(first[0] if first else 0, steps, network, faults))
    finally:
        structlog.configure(**before)


async def _perform(flags: int, steps: list[bytes], network: Network, faults: list[BaseException]) -> Seen:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MemoryLoop)
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception") or Fault(str(context))))
    stage = Stage(flags, network, loop, faults)
    stage.engine.server.start()
    await stage.play(steps)
    await stage.end_play()
    return stage.seen


class Fault(Exception):
    """Something went wrong that was no exception."""


def _collector(faults: list[BaseException]) -> Any:
    """A log that keeps errors: what nobody foresaw is answered with a 500 and told here, and nowhere else."""

    def collect(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method in ("error", "critical", "exception"):
            faults.append(sys.exc_info()[1] or Fault(str(event)))
        raise structlog.DropEvent

    return collect
