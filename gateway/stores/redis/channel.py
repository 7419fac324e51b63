"""The push channel: writers publish changes, nodes apply them and reply. Must not know: what a view does with them.

One connection of our own listens, on the changes and on the replies to this process. It is pinged, and a pong proves
that everything published before its ping has been handed on, since both come through the same connection in order.
redis-py's PubSub would subscribe again behind our back after a break; here a break is told.
"""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from redis.asyncio.connection import AbstractConnection

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.stores.records import Invalidation
from gateway.stores.redis.connection import REDIS_ERRORS, Redis
from gateway.stores.redis.names import changes_channel, replies_channel
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics

# A change with more subjects is published without them: the nodes poll.
MOST_INVALIDATIONS = 1_000
# A change waits for its publication, a reply for nobody: both may take longer than a read of an entry.
PUBLISH_SECONDS = 0.25
CONNECT_SECONDS = 1.0
FIRST_BACK_OFF_SECONDS = 0.05
LAST_BACK_OFF_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """A change as it is pushed: the highest revision, what it made void, and who wants to hear that it was applied.

    `invalidations` is empty where there were too many. `writer` is None where no reply can be heard.
    """

    last: int
    invalidations: tuple[Invalidation, ...]
    writer: str | None


class Listener(Protocol):
    """Who is told what the channel brings. Plain calls, in the order of arrival."""

    def subscribed(self, at: float) -> None:
        """The subscription stands since `at` (monotonic), or may have missed something before `at`."""
        ...

    def unsubscribed(self) -> None:
        """It does not stand any more."""
        ...

    def ponged(self, ping_sent_at: float) -> None:
        """All that was published before `ping_sent_at` has been told."""
        ...

    def pushed(self, batch: Batch) -> None:
        """A writer has published a change."""
        ...

    def replied(self, node_id: str, revision: int) -> None:
        """A node has applied everything up to `revision`."""
        ...


class Channel:
    """One process's ear and voice. `writer` names it to those who reply; `bound_seconds` as for the view."""

    def __init__(
        self, redis: Redis, seal: Seal, *, writer: str, clock: Clock, bound_seconds: float, metrics: Metrics
    ) -> None:
        self.listeners: list[Listener] = []
        self.subscription = 0  # counts subscriptions; 0 while none stands
        self.heard_until = 0.0  # all replies published before this moment (monotonic) have been told
        self._redis = redis
        self._seal = seal
        self._writer = writer
        self._monotonic = clock.monotonic
        self._ping_seconds = bound_seconds / 4
        self._silence_seconds = bound_seconds
        self._changes = changes_channel(redis.environment)
        self._replies = replies_channel(redis.environment, writer)
        self._numbers = itertools.count(1)
        self._refused = metrics.cache_events.cell("channel", "refused")

    # -- the voice

    async def publish(self, last: int, invalidations: Sequence[Invalidation]) -> None:
        """Push a change to all nodes; when this returns, Redis has it. Raises StoreUnavailable."""
        told = invalidations if len(invalidations) <= MOST_INVALIDATIONS else ()
        message = {
            "last": last,
            "invalidations": [[invalidation.revision, invalidation.subject] for invalidation in told],
            "writer": self._writer if self.subscription else None,
        }
        await self._send(self._changes, message)

    async def reply(self, writer: str, node_id: str, revision: int) -> None:
        """Tell `writer` how far this node is. Raises StoreUnavailable, also where nobody heard it."""
        name = replies_channel(self._redis.environment, writer)
        if await self._send(name, {"node": node_id, "revision": revision}) == 0:
            raise StoreUnavailable("Redis: the writer does not listen any more")

    async def _send(self, name: str, message: dict[str, Any]) -> int:
        if not self._seal.is_known:
            raise StoreUnavailable("Redis: the seal key has not arrived")
        sealed = self._seal.close(name, json.dumps(message, separators=(",", ":")).encode())
        command = "SPUBLISH" if self._redis.is_cluster else "PUBLISH"
        heard = await self._redis.run(
            lambda client: client.execute_command(command, name, sealed), seconds=PUBLISH_SECONDS, is_insistent=True
        )
        return int(heard)

    # -- the ear

    async def listen_forever(self) -> None:
        """Subscribe, tell the listeners what comes, subscribe again after every break. Ends only by cancellation."""
        await self._seal.known.wait()
        back_off_seconds = FIRST_BACK_OFF_SECONDS
        is_told = False
        while True:
            began = self._monotonic()
            try:
                await self._listen_once()
            except (StoreUnavailable, *REDIS_ERRORS, OSError, TimeoutError) as error:
                if not is_told:
                    log.warning("push_channel_lost", error=str(error) or type(error).__name__)
                is_told = True
            if self._monotonic() - began > self._silence_seconds + CONNECT_SECONDS:
                back_off_seconds = FIRST_BACK_OFF_SECONDS
                is_told = False
            await asyncio.sleep(back_off_seconds)
            back_off_seconds = min(2 * back_off_seconds, LAST_BACK_OFF_SECONDS)

    async def _listen_once(self) -> None:
        connection = await self._redis.connection_for(self._changes)
        reading: asyncio.Task[Any] | None = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
                verb = "SSUBSCRIBE" if self._redis.is_cluster else "SUBSCRIBE"
                await connection.send_command(verb, self._changes, self._replies)
                for _ in (self._changes, self._replies):
                    kind, *_ = _parts(await connection.read_response())
                    if kind != verb.lower().encode():
                        raise StoreUnavailable(f"Redis answered {verb} with {kind!r}")
            self._stands()
            pings: dict[bytes, float] = {}
            heard_at = self._monotonic()
            ping_at = heard_at
            reading = asyncio.ensure_future(connection.read_response())
            while True:
                if self._monotonic() >= ping_at:
                    ping_at = self._monotonic() + self._ping_seconds
                    await self._ping(connection, pings)
                await asyncio.wait({reading}, timeout=max(0.0, ping_at - self._monotonic()))
                if reading.done():
                    heard_at = self._monotonic()
                    self._take(_parts(reading.result()), pings)
                    reading = asyncio.ensure_future(connection.read_response())
                elif self._monotonic() - heard_at >= self._silence_seconds:
                    raise StoreUnavailable("Redis: the subscription is silent")
        finally:
            self._falls()
            if reading is not None:
                reading.cancel()
                reading.add_done_callback(_look_away)
            await connection.disconnect(nowait=True)

    async def _ping(self, connection: AbstractConnection, pings: dict[bytes, float]) -> None:
        token = str(next(self._numbers)).encode()
        pings[token] = self._monotonic()
        async with asyncio.timeout(self._ping_seconds):
            await connection.send_command("PING", token)

    def _stands(self) -> None:
        at = self._monotonic()
        self.subscription = next(self._numbers)
        self.heard_until = at
        log.info("push_channel_stands")
        for listener in self.listeners:
            listener.subscribed(at)

    def _falls(self) -> None:
        if self.subscription:
            self.subscription = 0
            for listener in self.listeners:
                listener.unsubscribed()

    def _take(self, parts: list[Any], pings: dict[bytes, float]) -> None:
        match parts:
            case [b"pong", bytes(token)]:
                sent_at = pings.pop(token, None)
                if sent_at is not None:
                    self.heard_until = sent_at
                    for listener in self.listeners:
                        listener.ponged(sent_at)
            case [b"message" | b"smessage", bytes(channel), bytes(sealed)]:
                self._open(channel, sealed)
            case [b"subscribe" | b"ssubscribe", *_]:
                pass
            case _:
                # A cluster says `sunsubscribe` when the channel moves to another node.
                raise StoreUnavailable(f"Redis ended the subscription: {parts[:1]!r}")

    def _open(self, channel: bytes, sealed: bytes) -> None:
        name = self._changes if channel == self._changes.encode() else self._replies
        body = self._seal.open(name, sealed)
        message = None if body is None else read_message(body)
        match message:
            case Batch():
                for listener in self.listeners:
                    listener.pushed(message)
            case (str(node_id), int(revision)):
                for listener in self.listeners:
                    listener.replied(node_id, revision)
            case None:
                # It is ignored; but since it may have been news, pongs must not count before the next poll.
                self._refused[0] += 1
                at = self._monotonic()
                for listener in self.listeners:
                    listener.subscribed(at)


def _parts(response: Any) -> list[Any]:
    return response if isinstance(response, list) else [response]


def _look_away(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def read_message(body: bytes) -> Batch | tuple[str, int] | None:
    """A message of a node of this version. The seal vouches for the sender; None means that it speaks otherwise."""
    try:
        message = json.loads(body)
        if message.keys() == {"node", "revision"}:
            return str(message["node"]), int(message["revision"])
        writer = message["writer"]
        return Batch(
            int(message["last"]),
            tuple(Invalidation(int(revision), str(subject)) for revision, subject in message["invalidations"]),
            None if writer is None else str(writer),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
