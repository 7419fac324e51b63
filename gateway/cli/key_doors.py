"""The two doors to keys: straight to the stores by a configuration, or to a running gateway's management API.

Both answer with the objects of the API. Straight means: the same services as in a node, in a process that is none.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol
from urllib.parse import quote

from gateway.cli.api import PAGE, Api, open_api
from gateway.clock import SystemClock
from gateway.consistency.confirmation import Propagator
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.bodies import NewKeyBody, RevokeBody, RotateBody, VerifyBody, parse_body
from gateway.control.containment import Containment
from gateway.control.deeds import of_command
from gateway.control.ids import new_id
from gateway.control.import_rows import MEDIA_TYPES, FileFormat, read_rows
from gateway.control.imports import Imports
from gateway.control.issuance import Issuance
from gateway.control.key_parts import KeyParts, peppers_of, secret_format_of, shown_key
from gateway.control.keys import Keys
from gateway.control.mutations import Mutations
from gateway.control.pages import parse_query
from gateway.control.usage import UsageQuery, UsageReader, wish_of
from gateway.control.usage import shown as shown_usage
from gateway.control.verification import Verification
from gateway.settings import Settings
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.migrate import check_schema
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.entries import RedisEntries
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics

Items = list[dict[str, Any]]  # the classes below have a `list` of their own


class KeyDoor(Protocol):
    """What the commands do to keys. Every method raises GatewayError."""

    async def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """`POST /v1/keys`."""
        ...

    async def list(self, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """`GET /v1/keys`, all pages."""
        ...

    async def show(self, key_id: str) -> dict[str, Any]:
        """`GET /v1/keys/{id}`."""
        ...

    async def rotate(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """`POST /v1/keys/{id}/rotate`."""
        ...

    async def revoke(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """`POST /v1/keys/{id}/revoke`."""
        ...

    async def contain(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """`POST /v1/keys/{id}/contain`."""
        ...

    async def verify(self, secret: str) -> dict[str, Any]:
        """`POST /v1/keys/verify`."""
        ...

    def pages(self, filters: Mapping[str, str]) -> AsyncIterator[Items]:
        """`GET /v1/keys`, a page at a time."""
        ...

    async def usage(self, key_id: str, query: Mapping[str, str]) -> Items:
        """`GET /v1/keys/{id}/usage`, all pages."""
        ...

    def import_keys(self, raw: bytes, file_format: FileFormat, *, is_dry_run: bool) -> AsyncIterator[dict[str, Any]]:
        """`POST /v1/imports`, a line at a time."""
        ...


def by_command() -> Administrator:
    """Whoever runs a command straight on the stores: allowed everything, as the database already allows it."""
    return Administrator("cli", Role.OPERATOR, None, of_command())


class Direct:
    """Straight to the stores, as an operator: whoever can read the configuration may do anything."""

    def __init__(self, parts: KeyParts) -> None:
        self._issuance = Issuance(parts)
        self._keys = Keys(parts, self._issuance)
        self._verification = Verification(parts)
        self._imports = Imports(parts)
        self._containment = Containment(parts)
        self._usage = UsageReader(parts.postgres)
        self._caller = by_command()

    async def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        body = parse_body(json.dumps(wanted).encode(), NewKeyBody)
        return (await self._issuance.create(self._caller, body)).shown

    async def list(self, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """As KeyDoor."""
        return [key async for page in self.pages(filters) for key in page]

    async def pages(self, filters: Mapping[str, str]) -> AsyncIterator[Items]:
        """As KeyDoor."""
        after = ""
        while rows := await self._keys.page(self._caller, **filters, after=after, limit=PAGE):
            yield [shown_key(row) for row in rows]
            after = rows[-1].id

    async def show(self, key_id: str) -> dict[str, Any]:
        """As KeyDoor."""
        return shown_key(await self._keys.find(self._caller, key_id))

    async def rotate(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        body = parse_body(json.dumps(options).encode(), RotateBody)
        return (await self._keys.rotate(self._caller, key_id, body.grace_seconds)).shown

    async def revoke(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        body = parse_body(json.dumps(options).encode(), RevokeBody)
        return (await self._keys.revoke(self._caller, key_id, body.reason)).shown

    async def contain(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        body = parse_body(json.dumps(options).encode(), RevokeBody)
        return (await self._containment.contain(self._caller, key_id, body.reason)).shown

    async def verify(self, secret: str) -> dict[str, Any]:
        """As KeyDoor."""
        body = parse_body(json.dumps({"secret": secret}).encode(), VerifyBody)
        return await self._verification.verify(self._caller, body.secret.get_secret_value())

    async def usage(self, key_id: str, query: Mapping[str, str]) -> Items:
        """As KeyDoor."""
        asked = parse_query(query, UsageQuery)
        key = await self._keys.find(self._caller, key_id)
        wish = wish_of(asked, self._caller, key_id=key.id)
        return [shown_usage(row, wish.by) async for rows in self._usage.batches(wish) for row in rows]

    async def import_keys(
        self, raw: bytes, file_format: FileFormat, *, is_dry_run: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """As KeyDoor."""
        async for batch in self._imports.run(self._caller, read_rows(raw, file_format), is_dry_run=is_dry_run):
            for line in batch:
                yield line


class Remote:
    """To a running gateway's management API, as whoever the admin token says."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        return await self._api.call("POST", "/v1/keys", body=wanted)

    async def list(self, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """As KeyDoor."""
        return await self._api.listing("/v1/keys", filters)

    def pages(self, filters: Mapping[str, str]) -> AsyncIterator[Items]:
        """As KeyDoor."""
        return self._api.pages("/v1/keys", filters)

    async def show(self, key_id: str) -> dict[str, Any]:
        """As KeyDoor."""
        return await self._api.call("GET", f"/v1/keys/{quote(key_id, safe='')}")

    async def rotate(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        return await self._api.call("POST", f"/v1/keys/{quote(key_id, safe='')}/rotate", body=options)

    async def revoke(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        return await self._api.call("POST", f"/v1/keys/{quote(key_id, safe='')}/revoke", body=options)

    async def contain(self, key_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """As KeyDoor."""
        return await self._api.call("POST", f"/v1/keys/{quote(key_id, safe='')}/contain", body=options)

    async def verify(self, secret: str) -> dict[str, Any]:
        """As KeyDoor."""
        return await self._api.call("POST", "/v1/keys/verify", body={"secret": secret})

    async def usage(self, key_id: str, query: Mapping[str, str]) -> Items:
        """As KeyDoor."""
        return await self._api.listing(f"/v1/keys/{quote(key_id, safe='')}/usage", query)

    async def import_keys(
        self, raw: bytes, file_format: FileFormat, *, is_dry_run: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """As KeyDoor."""
        query = {"dry_run": str(is_dry_run).lower()}
        file = next(media_type for media_type, one in MEDIA_TYPES.items() if one is file_format), raw
        async for line in self._api.lines("/v1/imports", query, method="POST", file=file):
            yield json.loads(line)


@asynccontextmanager
async def open_stores(settings: Settings, metrics: Metrics) -> AsyncIterator[tuple[Postgres, Mutations]]:
    """The database, and changes to it that are seen through to every node. Raises StoreUnavailable, SchemaOutdated."""
    clock, bound_seconds = SystemClock(), settings.cache.bound_seconds
    async with AsyncExitStack() as stack:
        postgres = Postgres(settings.postgres.dsn.get_secret_value(), pool_size=4, metrics=metrics)
        stack.push_async_callback(postgres.close)
        await postgres.open()
        await check_schema(postgres)
        changes, revisions = Changes(postgres, environment=settings.environment), RevisionLog(postgres)
        channel, entries = await _open_push(stack, settings, revisions, metrics)
        propagator = Propagator(
            changes,
            revisions,
            environment=settings.environment,
            bound_seconds=bound_seconds,
            clock=clock,
            metrics=metrics,
            channel=channel,
            entries=entries,
        )
        stack.push_async_callback(propagator.close)
        await propagator.start()
        yield postgres, Mutations(changes, propagator)


@asynccontextmanager
async def open_direct(settings: Settings) -> AsyncIterator[Direct]:
    """The door straight to the stores. Raises StoreUnavailable, SchemaOutdated."""
    metrics = Metrics()
    async with open_stores(settings, metrics) as (postgres, mutations):
        parts = KeyParts(
            postgres,
            mutations,
            secret_format_of(settings.keys, settings.environment),
            peppers_of(settings.keys),
            settings.keys,
            metrics,
        )
        yield Direct(parts)


async def _open_push(
    stack: AsyncExitStack, settings: Settings, revisions: RevisionLog, metrics: Metrics
) -> tuple[Channel | None, RedisEntries | None]:
    if settings.redis is None:
        return None, None
    redis = Redis(settings.redis.url.get_secret_value(), environment=settings.environment, metrics=metrics)
    stack.push_async_callback(redis.close)
    await redis.open()
    seal = Seal()
    seal.unlock(await revisions.seal_key())
    channel = Channel(
        redis,
        seal,
        writer=new_id("cli"),
        clock=SystemClock(),
        bound_seconds=settings.cache.bound_seconds,
        metrics=metrics,
    )
    listening = asyncio.create_task(channel.listen_forever())
    stack.push_async_callback(_end, listening)
    return channel, RedisEntries(redis, seal, metrics=metrics)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def open_remote(url: str, token: str) -> AsyncIterator[Remote]:
    """The door to a management API."""
    async with open_api(url, token) as api:
        yield Remote(api)
