"""The shared cache: what one node found about a secret, left for the others. A failure is a miss, never an error."""

from gateway.errors import StoreUnavailable
from gateway.stores.records import Finding
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.entry_format import pack, unpack
from gateway.stores.redis.names import entry_name
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics

DELETE_BATCH = 500


class RedisEntries:
    """Findings by the SHA-256 of the secret that was sent (32 bytes).

    What is read is sealed by a node of this deployment for this very name, else it is a miss; whether it may be used
    is the view's to say, by its revision. Until the seal key has arrived nothing is read or written.
    """

    def __init__(self, redis: Redis, seal: Seal, *, metrics: Metrics) -> None:
        self._redis = redis
        self._seal = seal
        self._refused = metrics.cache_events.cell("redis", "refused")
        self._failed = metrics.cache_events.cell("redis", "failed")

    async def get(self, digest: bytes) -> Finding | None:
        """What another node found, or None."""
        if not self._seal.is_known:
            return None
        name = entry_name(self._redis.environment, digest)
        try:
            value = await self._redis.run(lambda client: client.get(name))
        except StoreUnavailable:
            self._failed[0] += 1
            return None
        if value is None:
            return None
        body = self._seal.open(name, value) if isinstance(value, bytes) else None
        finding = None if body is None else unpack(body)
        if finding is None:
            self._refused[0] += 1
        return finding

    async def put(self, digest: bytes, finding: Finding, seconds: float) -> None:
        """Leave `finding` for the other nodes, for `seconds`. Value and lifetime are set by one command (R063)."""
        milliseconds = int(seconds * 1000)
        if milliseconds <= 0 or not self._seal.is_known:
            return
        name = entry_name(self._redis.environment, digest)
        value = self._seal.close(name, pack(finding))
        try:
            await self._redis.run(lambda client: client.set(name, value, px=milliseconds))
        except StoreUnavailable:
            self._failed[0] += 1

    async def delete(self, digests: list[bytes]) -> None:
        """Take entries away. A courtesy to memory and to speed: that they are not used any more is the view's doing."""
        names = [entry_name(self._redis.environment, digest) for digest in digests]
        try:
            for start in range(0, len(names), DELETE_BATCH):
                batch = names[start : start + DELETE_BATCH]
                await self._redis.run(lambda client, batch=batch: client.delete(*batch))  # type: ignore[misc]
        except StoreUnavailable:
            self._failed[0] += 1
