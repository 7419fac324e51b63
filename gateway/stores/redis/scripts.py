"""Lua in Redis: one call, one moment, all or nothing. Must not know: what a script does."""

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from gateway.stores.redis.connection import Client, Redis
from gateway.stores.redis.names import redis_name


class Script:
    """One script. It is sent by its hash, and whole where Redis does not know it (any more)."""

    def __init__(self, redis: Redis, text: str) -> None:
        self._redis = redis
        self._text = text
        # The name of a script in Redis, which chose SHA-1 for that.
        self._hash = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._is_known = False

    @property
    def is_up(self) -> bool:
        """Whether Redis is asked at all."""
        return self._redis.is_up

    @property
    def is_cluster(self) -> bool:
        """Whether each name may live on another machine, so that a call can have one alone."""
        return self._redis.is_cluster

    def name(self, kind: str, *parts: str) -> str:
        """A name in Redis."""
        return redis_name(self._redis.environment, kind, *parts)

    async def run(self, names: Sequence[str], arguments: Sequence[str | int], *, seconds: float) -> Any:
        """What the script returns, within `seconds`. Raises StoreUnavailable."""

        async def work(client: Client) -> Any:
            if self._is_known:
                try:
                    return await client.evalsha(self._hash, len(names), *names, *arguments)
                except NoScriptError:
                    pass
            answer = await client.eval(self._text, len(names), *names, *arguments)
            self._is_known = True
            return answer

        return await self._redis.run(work, seconds=seconds)
