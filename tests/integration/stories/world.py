"""Two nodes over one truth, with an upstream that remembers: callers' and operators' hands on all of it."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis.asyncio

from gateway.auth.secrets import SecretFormat
from gateway.stores.redis.names import entry_name
from tests.fixtures import psql
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess, merged, operator_token
from tests.fixtures.upstream import RecordedRequest, RecordingUpstream, Reply, echo
from tests.fixtures.waiting import until

STATUSES: Final = {
    "missing_api_key": 401,
    "invalid_api_key": 401,
    "key_revoked": 401,
    "key_expired": 401,
    "key_rotated": 401,
    "invalid_token": 401,
    "token_expired": 401,
    "token_not_allowed": 401,
    "tenant_suspended": 403,
    "user_suspended": 403,
    "api_access_required": 403,
    "subscription_lapsed": 403,
    "insufficient_scope": 403,
    "upgrade_required": 403,
    "auth_unavailable": 503,
    "entitlement_unavailable": 503,
}
# Database time is the clock of this machine; a node ends things early by the way of a poll at most, and never late.
EARLY_SECONDS: Final = 0.3
# Of a statement typed into psql: the node that still holds the key finds out with its next poll.
POLL_SECONDS: Final = 0.5
ROUTES: Final = [
    {"name": "orders", "paths": ["/orders"], "upstream": "orders"},
    {"name": "payments", "paths": ["/payments"], "upstream": "orders"},
    {"name": "reports", "paths": ["/reports"], "upstream": "orders", "require": {"scopes": ["reports:read"]}},
    {"name": "premium", "paths": ["/premium"], "upstream": "orders", "require": {"tier": 2}},
    {"name": "exports", "paths": ["/exports"], "upstream": "orders", "require": {"features": ["export"]}},
    {"name": "maybe", "paths": ["/maybe"], "upstream": "orders", "auth": "optional"},
    {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
]


@dataclass(frozen=True)
class Answer:
    """What a caller got. `arrival` is what the upstream saw of the request, None where it saw nothing."""

    node: int
    status: int
    code: str | None
    body: dict[str, Any]
    arrival: RecordedRequest | None
    headers: Mapping[str, str]
    sent_at: float  # on the wall clock, as the next one
    answered_at: float


@dataclass(frozen=True)
class ApiReply:
    """What the management API answered; `body` is `{}` where there was none."""

    status: int
    body: dict[str, Any]
    text: str
    headers: Mapping[str, str]

    @property
    def code(self) -> Any:
        """The problem's code."""
        return self.body.get("code")


@dataclass(frozen=True)
class Key:
    """A key, and the secret that was current when this was made."""

    id: str
    secret: str = field(repr=False)
    user: str
    tenant: str


class World:
    """Nodes that share everything.

    Every request made here is checked: what was not answered 200 never reached the upstream, and no reply of the API
    shows a secret or a digest but the one that was asked for.
    """

    def __init__(self, folder: Path, dsn: str, redis_url: str | None, environment: str) -> None:
        self.dsn = dsn
        self.redis_url = redis_url
        self.environment = environment
        self.nodes: list[GatewayProcess] = []
        self.upstream = RecordingUpstream(self._record)
        self.format = SecretFormat("ost", environment)
        self.token = ""
        self.secrets: set[str] = set()
        self._folder = folder
        self._numbers = itertools.count(1)
        self._arrived: dict[str, RecordedRequest] = {}
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Start everything but the nodes."""
        await self.upstream.start()
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=15)
        )
        self.token = await operator_token(self.dsn)

    async def close(self) -> None:
        """Stop everything."""
        for node in self.nodes:
            node.resume()
        if self._http is not None:
            await self._http.close()
        await asyncio.gather(*(node.stop() for node in self.nodes))
        await self.upstream.stop()

    async def add_node(self, changes: Mapping[str, Any] | None = None) -> int:
        """Start one more node and return its number."""
        base = {
            "environment": self.environment,
            "postgres": {"dsn": self.dsn},
            "redis": {"url": self.redis_url},
            "upstreams": {"orders": {"targets": [self.upstream.url]}},
            "routes": ROUTES,
            "plans": {"starter": {"tier": 1, "features": {"api_access": True}}},
        }
        number = len(self.nodes)
        node = GatewayProcess(self._folder / f"node-{number}", merged(base, changes or {}))
        self.nodes.append(node)
        await node.start()
        return number

    def _record(self, request: RecordedRequest) -> Reply:
        self._arrived[request.target] = request
        return echo(request)

    # -- callers

    async def ask(
        self, node: int, secret: str | None, path: str = "/orders", *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request to one node."""
        assert self._http is not None
        target = f"{path}/{next(self._numbers)}"
        sent = {} if secret is None else {"X-Api-Key": secret}
        sent_at = time.time()
        async with self._http.get(self.nodes[node].proxy_url + target, headers={**(headers or {}), **sent}) as response:
            text = await response.text()
            body = await response.json(content_type=None)
        arrival = self._arrived.pop(target, None)
        assert (response.status == 200) == (arrival is not None), f"{response.status}, and the upstream saw {arrival}"
        if response.status != 200:
            assert response.headers["Cache-Control"] == "no-store"
            self._check_text(text)
        headers = response.headers.copy()
        return Answer(node, response.status, body.get("code"), body, arrival, headers, sent_at, time.time())

    async def ask_all(
        self, secret: str | None, path: str = "/orders", *, headers: Mapping[str, str] | None = None
    ) -> list[Answer]:
        """One request to every node, at the same time."""
        numbers = range(len(self.nodes))
        return list(await asyncio.gather(*(self.ask(node, secret, path, headers=headers) for node in numbers)))

    async def admitted(self, key: Key, *secrets: str, path: str = "/orders") -> list[Answer]:
        """The very next request with each secret (the key's own when none is named) passes every node as this key."""
        answers = []
        for secret in secrets or (key.secret,):
            for answer in await self.ask_all(secret, path):
                assert answer.status == 200, f"node {answer.node} refuses: {answer.body}"
                assert answer.arrival is not None
                seen = [answer.arrival.header(name) for name in ("X-Key-Id", "X-User-Id", "X-Tenant-Id")]
                assert seen == [key.id, key.user, key.tenant]
                assert answer.arrival.header("X-Api-Key") is None
                answers.append(answer)
        return answers

    async def refused(self, code: str, *secrets: str | None, path: str = "/orders") -> list[Answer]:
        """The very next request with each secret is refused by every node, with this code, and no upstream sees it."""
        answers = []
        for secret in secrets:
            for answer in await self.ask_all(secret, path):
                assert (answer.status, answer.code) == (STATUSES[code], code), f"node {answer.node}: {answer.body}"
                answers.append(answer)
        return answers

    async def remembered(self, *secrets: str) -> None:
        """Have every node remember its verdict on each secret: it answers without asking anybody."""
        for secret in secrets:
            await until(partial(self._is_warm, secret), what="an answer from every process's memory")

    async def warm(self, *secrets: str) -> None:
        """As `remembered`, and have Redis hold it too. Not for what has ended by itself: Redis drops that."""
        for secret in secrets:
            await until(partial(self._is_shared, secret), what="the entry in Redis")
        await self.remembered(*secrets)

    async def _is_shared(self, secret: str) -> bool:
        await self.ask_all(secret)
        if await self.entry(secret) is not None:
            return True
        # It is on its way; or the node that looked it up could not write it: then it has to look it up again.
        digest = hashlib.sha256(secret.encode()).hexdigest()
        await self.do("POST", "/v1/cache/invalidate", {"secret_sha256": digest})
        return False

    async def _is_warm(self, secret: str) -> bool:
        await self.ask_all(secret)
        before = [
            await self.metric(node, "ostiary_cache_events_total", layer="local", event="hit") for node in self._all
        ]
        await self.ask_all(secret)
        after = [
            await self.metric(node, "ostiary_cache_events_total", layer="local", event="hit") for node in self._all
        ]
        return all(now > then for now, then in zip(after, before, strict=True))

    @property
    def _all(self) -> range:
        return range(len(self.nodes))

    # -- Redis

    def entry_name(self, secret: str) -> str:
        """Where Redis holds what was found about the secret."""
        return entry_name(self.environment, hashlib.sha256(secret.encode()).digest())

    async def entry(self, secret: str) -> bytes | None:
        """What stands in Redis about the secret."""
        assert self.redis_url is not None
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            value = await client.get(self.entry_name(secret))
        assert value is None or isinstance(value, bytes)
        return value

    async def write_entry(self, secret: str, value: bytes) -> None:
        """Put it there, as a late writer would."""
        assert self.redis_url is not None
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            await client.set(self.entry_name(secret), value, px=60_000)

    # -- the truth

    async def sql(self, statement: str, *values: Any) -> Any:
        """One statement typed into psql; returns the first value of its first row."""
        return await psql.value(self.dsn, statement, *values)

    # -- operators

    async def api(
        self, method: str, path: str, body: Any = None, *, node: int = 0, token: str | None = None
    ) -> ApiReply:
        """One call of the management API, by the operator or with another `token`."""
        assert self._http is not None
        headers = {"Authorization": f"Bearer {token or self.token}"}
        arguments = {} if body is None else {"json": body}
        url = self.nodes[node].admin_url + path
        async with self._http.request(method, url, headers=headers, **arguments) as response:
            text = await response.text()
            content = await response.json(content_type=None) if text else {}
        secret = content.get("secret")
        self._check_text(text)
        if secret is not None:
            assert response.headers["Cache-Control"] == "no-store"
            self.secrets.add(secret)
        return ApiReply(response.status, content, text, response.headers.copy())

    async def do(
        self, method: str, path: str, body: Any = None, *, node: int = 0, status: int = 200, token: str | None = None
    ) -> dict[str, Any]:
        """The body of a call that must answer `status`. What it changed is confirmed."""
        reply = await self.api(method, path, body, node=node, token=token)
        assert reply.status == status, f"{method} {path}: {reply.status} {reply.text}"
        if "propagation" in reply.body:
            assert reply.body["propagation"]["state"] == "confirmed", reply.text
        return reply.body

    def _check_text(self, text: str) -> None:
        for secret in self.secrets:
            assert secret not in text, "a reply shows a secret"
            assert hashlib.sha256(secret.encode()).hexdigest() not in text, "a reply shows a digest"

    async def tenant(self) -> str:
        """A new tenant."""
        tenant = f"tenant-{next(self._numbers)}"
        await self.do("POST", "/v1/tenants", {"id": tenant, "name": tenant}, status=201)
        return tenant

    async def user(self, tenant: str | None = None, **entitlement: Any) -> tuple[str, str]:
        """A new user with an entitlement (to `starter` unless said otherwise), and the user's tenant."""
        tenant = tenant or await self.tenant()
        user = f"user-{next(self._numbers)}"
        await self.do("PUT", f"/v1/users/{user}", {"tenant_id": tenant}, status=201)
        await self.do("PUT", f"/v1/users/{user}/entitlement", {"plan": "starter", **entitlement})
        return user, tenant

    async def key(self, owner: tuple[str, str] | None = None, *, node: int = 0, **more: Any) -> Key:
        """A new key; of a new user in a new tenant, unless an owner (user, tenant) is named."""
        user, tenant = owner or await self.user()
        body = {"user_id": user, "name": f"key {next(self._numbers)}", **more}
        made = await self.do("POST", "/v1/keys", body, node=node, status=201)
        return Key(made["id"], made["secret"], user, tenant)

    async def tenant_admin(self, tenant: str) -> str:
        """A new admin token of the tenant's administrator."""
        token = await operator_token(self.dsn)
        await self.sql(
            "UPDATE admin_tokens SET role = 'tenant-admin', tenant_id = $2 WHERE digest = sha256($1)",
            token.encode(),
            tenant,
        )
        return token

    async def rotate(self, key: Key, *, node: int = 0, **body: Any) -> dict[str, Any]:
        """Rotate it; the reply."""
        return await self.do("POST", f"/v1/keys/{key.id}/rotate", body, node=node)

    async def revoke(self, key: Key, *, node: int = 0) -> dict[str, Any]:
        """Revoke it; the reply."""
        return await self.do("POST", f"/v1/keys/{key.id}/revoke", node=node)

    async def access_token(self, key: Key, **body: Any) -> str:
        """An access token that the key mints."""
        assert self._http is not None
        url = f"{self.nodes[0].proxy_url}/.ostiary/tokens"
        async with self._http.post(url, json=body, headers={"X-Api-Key": key.secret}) as response:
            assert response.status == 201
            return str((await response.json())["token"])

    async def set_window(self, retired_id: str, expires_at: Any, *, node: int = 0) -> dict[str, Any]:
        """Move the end of a retired secret's window; the reply."""
        return await self.do("PATCH", f"/v1/retired-secrets/{retired_id}", {"expires_at": expires_at}, node=node)

    async def metric(self, node: int, name: str, **labels: str) -> float:
        """The sum of a node's samples of this name with these labels; 0.0 where there is none."""
        return (await scraped(self.nodes[node])).sum(name, **labels)

    # -- time

    async def ends_at(self, moment: float, secret: str, code: str) -> None:
        """Every node admits the secret before `moment` (wall clock), and no request sent from then on passes one."""

        async def watch(node: int) -> None:
            while True:
                answer = await self.ask(node, secret)
                if answer.answered_at < moment - EARLY_SECONDS:
                    assert answer.status == 200, f"node {node}, {moment - answer.answered_at} s early: {answer.body}"
                elif answer.sent_at >= moment:
                    assert (answer.status, answer.code) == (STATUSES[code], code)
                    return

        await asyncio.gather(*(watch(node) for node in self._all))

    async def refused_after_all(self, code: str, *secrets: str) -> None:
        """No request passes any node that has just come back; it may not be able to tell at first, then it says why."""

        async def watch(node: int, secret: str) -> None:
            while (answer := await self.ask(node, secret)).code != code:
                assert answer.code == "auth_unavailable", answer.body
                assert answer.sent_at < began + 10

        began = time.time()
        await asyncio.gather(*(watch(node, secret) for node in self._all for secret in secrets))

    async def refused_within(self, seconds: float, code: str, *secrets: str) -> None:
        """Every node refuses every secret within `seconds` from now, and never admits it again after that."""
        began = time.time()

        async def watch(node: int, secret: str) -> None:
            while (answer := await self.ask(node, secret)).status == 200:
                assert answer.sent_at < began + seconds, f"node {node} admits after {answer.sent_at - began} s"
            assert answer.code == code, answer.body
            assert (await self.ask(node, secret)).code == code

        await asyncio.gather(*(watch(node, secret) for node in self._all for secret in secrets))


@asynccontextmanager
async def world_over(
    folder: Path,
    dsn: str,
    redis_url: str | None = None,
    *,
    environment: str = "prod",
    nodes: Sequence[Mapping[str, Any]] = ({}, {}),
) -> AsyncIterator[World]:
    """A world with one node per set of `nodes`, changes to the configuration."""
    async with AsyncExitStack() as stack:
        world = World(folder, dsn, redis_url, environment)
        stack.push_async_callback(world.close)
        await world.open()
        await asyncio.gather(*(world.add_node(changes) for changes in nodes))
        yield world


def iso(moment: float) -> str:
    """A moment on the wall clock as ISO 8601 in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat()


def moment_of(text: str) -> float:
    """The reverse."""
    return datetime.fromisoformat(text).timestamp()
