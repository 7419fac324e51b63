"""Whoever changes keys, by the management API: makes them, mints tokens from them, rotates and revokes them."""

import asyncio
import random
from collections import Counter
from typing import Any, Final

import aiohttp

from tests.soak.ring import Key, Ring
from tests.soak.world import World

KEYS: Final = 60
PAUSE_SECONDS: Final = 0.5
_OUTAGES: Final = (aiohttp.ClientError, TimeoutError)


class Changes:
    """One change after another, now at this node and then at that one. `made` counts them."""

    def __init__(self, world: World, ring: Ring) -> None:
        self._world = world
        self._ring = ring
        self._random = random.Random(3)
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self.made: Counter[str] = Counter()

    async def stock(self) -> None:
        """Make the keys that callers begin with."""
        async with self._session() as session:
            while len(self._ring.good) < KEYS:
                await self._create(session)

    def start(self) -> None:
        """Begin."""
        self._is_over = False
        self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """End with the change that is under way."""
        self._is_over = True
        if self._task is not None:
            await self._task

    def _session(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._world.token}"}
        return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=15))

    async def _go_on(self) -> None:
        async with self._session() as session:
            while not self._is_over:
                for change in (self._create, self._rotate, self._revoke):
                    try:
                        await change(session)
                    except _OUTAGES:
                        self.made["interrupted"] += 1
                    await asyncio.sleep(PAUSE_SECONDS)

    async def _create(self, session: aiohttp.ClientSession) -> None:
        self._count += 1
        answer = await self._call(session, "/v1/keys", user_id=self._world.owner.user_id, name=f"soak {self._count}")
        if answer is not None:
            key = Key(answer["id"], answer["secret"])
            await self._mint(session, key)
            self._ring.good.append(key)
            self.made["created"] += 1

    async def _mint(self, session: aiohttp.ClientSession, key: Key) -> None:
        url = f"{self._node_url('proxy_url')}/.ostiary/tokens"
        async with session.post(url, json={}, headers={"Authorization": f"Bearer {key.secret}"}) as answer:
            key.token = (await answer.json())["token"] if answer.status == 201 else ""

    async def _rotate(self, session: aiohttp.ClientSession) -> None:
        """Rotate one. Where the answer is lost, so is the new secret, and the old one ends with its window."""
        key = self._ring.pick()
        try:
            answer = await self._call(session, f"/v1/keys/{key.id}/rotate", grace_seconds=30)
        except _OUTAGES:
            answer = None
        if answer is None:
            self._ring.good.remove(key)
            self.made["lost"] += 1
            return
        key.secret = answer["secret"]
        await self._mint(session, key)
        self.made["rotated"] += 1

    async def _revoke(self, session: aiohttp.ClientSession) -> None:
        """Revoke the oldest; it counts as revoked once the answer is there, and not as good from before the call on."""
        if len(self._ring.good) < KEYS:
            return
        key = self._ring.good.pop(0)
        answer = await self._call(session, f"/v1/keys/{key.id}/revoke", reason="soak")
        if answer is not None:
            self._ring.revoked.append(key.secret)
            self.made["revoked"] += 1

    async def _call(self, session: aiohttp.ClientSession, path: str, **body: object) -> dict[str, Any] | None:
        async with session.post(self._node_url("admin_url") + path, json=body) as answer:
            if answer.status in (200, 201):
                found: dict[str, Any] = await answer.json()
                return found
            self.made[f"answered {answer.status}"] += 1
            return None

    def _node_url(self, which: str) -> str:
        url: str = getattr(self._random.choice(list(self._world.nodes.values())), which)
        return url
