"""Who calls with what: keys good and bad, tokens, and an operator who makes keys and revokes them."""

import asyncio
import contextlib
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from tests.chaos.gates import Gate
from tests.faults.stage import OPERATORS_USER, Node, Stage
from tests.fixtures.stand import Key, unknown_secret

KNOWN_KEYS: Final = 3
BAD_KEYS: Final = 2  # of each kind
ENDING_SECONDS: Final = 4.0  # from the making of the keys to the end of those that expire meanwhile
EARLY_SECONDS: Final = 1.0  # a key may end so much before its time
OPERATOR_PAUSE_SECONDS: Final = 0.5
CALL_SECONDS: Final = 8.0
REVOKED_AT: Final = 4  # live keys that the operator has made, from which on one is revoked with each that is made


@dataclass(frozen=True, eq=False)
class Secret:
    """Something to call with. `key_id` is the key that the upstream is told; the gate says whether it may pass."""

    text: str = field(repr=False)
    key_id: str
    gate: Gate
    is_token: bool = False

    @property
    def header(self) -> tuple[str, str]:
        """The header that carries it."""
        return ("Authorization", f"Bearer {self.text}") if self.is_token else ("X-Api-Key", self.text)


def good(key: Key) -> Secret:
    """A key that is good all the time."""
    gate = Gate(key.id)
    gate.opened(time.monotonic())
    return Secret(key.secret, key.id, gate)


def bad(text: str, key_id: str, story: str) -> Secret:
    """One that is bad all the time."""
    gate = Gate(key_id, story=story)
    gate.closed(time.monotonic())
    return Secret(text, key_id, gate)


@dataclass
class People:
    """All of them. `ids` are those of every key in traffic."""

    known: list[Secret] = field(default_factory=list)
    tokens: list[Secret] = field(default_factory=list)
    bad: list[Secret] = field(default_factory=list)
    cold: deque[Secret] = field(default_factory=deque)
    made: list[Secret] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    revocations: int = 0

    def unknown(self) -> Secret:
        """A well-formed secret that nobody has, and nobody has asked for."""
        return bad(unknown_secret(), "nobody's", "unknown")


async def settle(stage: Stage, *, cold: int) -> People:
    """Make the keys, and return once every node has heard of them; `cold` is how many have never been used."""
    people, stand = People(), stage.stand
    keys = await stand.insert_keys(KNOWN_KEYS + cold + 2 * BAD_KEYS + 2)
    people.ids += [key.id for key in keys]
    people.known += [good(key) for key in keys[:KNOWN_KEYS]]
    revoked, expired = keys[KNOWN_KEYS:][:BAD_KEYS], keys[KNOWN_KEYS + BAD_KEYS :][:BAD_KEYS]
    *unused, ending, doomed = keys[KNOWN_KEYS + 2 * BAD_KEYS :]
    people.cold.extend(good(key) for key in unused)
    people.tokens += [await _minted(stage, key) for key in people.known]
    token = await _minted(stage, good(doomed))
    revoke = "UPDATE api_keys SET revoked_at = now() WHERE id = ANY($1)"
    await stage.execute(revoke, [key.id for key in (*revoked, doomed)])
    expire = "UPDATE api_keys SET expires_at = now() + make_interval(secs => $2) WHERE id = ANY($1)"
    await stage.execute(expire, [key.id for key in expired], -60.0)
    await stage.execute(expire, [ending.id], ENDING_SECONDS)
    ends_at = time.monotonic() + ENDING_SECONDS
    await stand.heard_by([node.process for node in stage.nodes])
    people.bad += [bad(key.secret, key.id, "revoked") for key in revoked]
    people.bad += [bad(key.secret, key.id, "expired") for key in expired]
    gate = Gate(doomed.id, story="a token of a revoked key")
    gate.closed(time.monotonic())
    people.bad += [Secret(token.text, doomed.id, gate, is_token=True), bad(unknown_secret(), "nobody's", "unknown")]
    people.bad.append(_ending(ending, ends_at))
    return people


def _ending(key: Key, ends_at: float) -> Secret:
    """A key that expires then: good until a moment before, bad from then on."""
    secret, loop = good(key), asyncio.get_running_loop()
    before = max(0.0, ends_at - EARLY_SECONDS - time.monotonic())
    loop.call_later(before, secret.gate.closing, "expires")
    loop.call_later(ends_at - time.monotonic(), secret.gate.closed, ends_at)
    return secret


async def _minted(stage: Stage, key: Secret) -> Secret:
    async with (
        aiohttp.ClientSession(headers=dict([key.header])) as session,
        session.post(f"{stage.nodes[0].process.proxy_url}/.ostiary/tokens", json={"expires_in": 3600}) as answer,
    ):
        assert answer.status == 201, await answer.text()
        return Secret((await answer.json())["token"], key.key_id, key.gate, is_token=True)


class Operator:
    """Makes keys and revokes them, by the management API of any node. What it was not told stays undecided."""

    def __init__(self, stage: Stage, people: People) -> None:
        self._stage = stage
        self._people = people
        self._live: list[Secret] = []
        self._random = random.Random(1)
        self._count = 0

    async def work(self) -> None:
        """To be run beside everything else."""
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        headers = {"Authorization": f"Bearer {self._stage.token}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            while True:
                await self._make(session)
                if len(self._live) > REVOKED_AT:
                    await self._revoke(session, self._live.pop(self._random.randrange(len(self._live))))
                await asyncio.sleep(OPERATOR_PAUSE_SECONDS)

    def _node(self) -> Node:
        return self._random.choice(self._stage.nodes[:2])

    async def _make(self, session: aiohttp.ClientSession) -> None:
        self._count += 1
        body = {"user_id": OPERATORS_USER, "name": f"{id(self)}-{self._count}"}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(f"{self._node().process.admin_url}/v1/keys", json=body) as answer:
                if answer.status != 201:
                    return
                made = await answer.json()
            gate = Gate(made["id"])
            gate.opened(time.monotonic())
            secret = Secret(made["secret"], made["id"], gate)
            self._live.append(secret)
            self._people.made.append(secret)
            self._people.ids.append(secret.key_id)

    async def _revoke(self, session: aiohttp.ClientSession, secret: Secret) -> None:
        secret.gate.closing("revoked")
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            url = f"{self._node().process.admin_url}/v1/keys/{secret.key_id}/revoke"
            async with session.post(url, json={}) as answer:
                if answer.status == 200:
                    secret.gate.closed(time.monotonic())
                    self._people.revocations += 1
