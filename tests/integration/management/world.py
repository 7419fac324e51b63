"""A management API to call, and the parts below it to look at."""

import hashlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from gateway.auth.secrets import Peppers, SecretFormat
from gateway.clock import SystemClock
from gateway.consistency.confirmation import Propagator
from gateway.control.admin_tokens import AdminTokens, Role
from gateway.control.api import build_api
from gateway.control.people import People
from gateway.control.provider import ProviderKeys
from gateway.settings import GithubSecretScanning, KeySettings, OidcSettings
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.records import KeyRecord
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics
from tests.fixtures import psql
from tests.fixtures.documented import Documented

ENVIRONMENT = "test"
BOUND_SECONDS = 0.2
PEPPERS = Peppers([b"p" * 32, b"q" * 32])
JSON = {"application/json", "application/problem+json"}
PROVIDER_INTERVAL_SECONDS = 0.2
LARGE_BYTES = 2**20  # from here on aiohttp warns of plain bytes
NOWHERE_REDIS = "redis://127.0.0.1:1/0"


@dataclass(frozen=True)
class Reply:
    """An answer of the API. `body` is the JSON, `{}` where there is none."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]
    text: str

    @property
    def code(self) -> Any:
        """The problem's code."""
        return self.body.get("code")


@dataclass
class Management:
    """The API, with a token for each role; `acme` is the tenant of the tenant-admin.

    Every reply to a call is held against the API's own document.
    """

    client: TestClient[web.Request, web.Application]
    dsn: str
    postgres: Postgres
    changes: Changes
    revisions: RevisionLog
    metrics: Metrics
    operator: str
    auditor: str
    tenant_admin: str
    documented: Documented

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        token: str | None = "operator",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One call; `token` is the name of one of the three, a token's text, or None for no Authorization."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {getattr(self, token, token)}"
        arguments: dict[str, Any] = {} if body is None else {"json": body}
        if raw is not None:
            arguments = {"data": raw if len(raw) < LARGE_BYTES else io.BytesIO(raw)}
        async with self.client.request(method, path, headers=sent, **arguments) as response:
            text = await response.text()
            self._check(response, text)
            answer = json.loads(text) if text and response.content_type in JSON else {}
            return Reply(response.status, response.headers.copy(), answer, text)

    async def expect(self, status: int, method: str, path: str, body: Any = None, *, token: str = "operator") -> Any:
        """The body of a call that must answer `status`."""
        reply = await self.call(method, path, body, token=token)
        assert reply.status == status, reply.text
        return reply.body

    async def call_text(self, path: str, *, token: str) -> str:
        """The text of a GET that must answer 200, whatever its type."""
        headers = {"Authorization": f"Bearer {getattr(self, token)}"}
        async with self.client.get(path, headers=headers) as response:
            assert response.status == 200
            text = await response.text()
            self._check(response, text)
            return text

    def _check(self, response: ClientResponse, text: str) -> None:
        seen = (response.method, response.request_info.url.raw_path, response.status, response.headers)
        mistakes = self.documented.mistakes(*seen, text)
        assert not mistakes, (response.method, response.request_info.url, response.status, mistakes)

    async def plant(self) -> None:
        """Tenants `acme` and `other`; users `ada` and `alan` of acme and `olga` of other, entitled to `starter`."""
        for tenant in ("acme", "other"):
            await self.expect(201, "POST", "/v1/tenants", {"id": tenant, "name": tenant.title()})
        await self.expect(200, "PUT", "/v1/plans/starter", {"tier": 1, "features": {"api_access": True}})
        for user, tenant in (("ada", "acme"), ("alan", "acme"), ("olga", "other")):
            await self.expect(201, "PUT", f"/v1/users/{user}", {"tenant_id": tenant, "display_name": user.title()})
            await self.expect(200, "PUT", f"/v1/users/{user}/entitlement", {"plan": "starter"})

    async def key(self, name: str = "first", *, user: str = "ada", **more: Any) -> Any:
        """A new key."""
        return await self.expect(201, "POST", "/v1/keys", {"user_id": user, "name": name, **more})

    async def record(self, secret: str) -> KeyRecord | None:
        """What a node would find behind this secret."""
        finding = await KeyLookup(self.postgres).find(PEPPERS.candidates(hashlib.sha256(secret.encode()).digest()))
        return finding.record

    async def execute(self, statement: str, *values: Any) -> Any:
        """One statement typed into psql; returns the first value of its first row."""
        return await psql.value(self.dsn, statement, *values)


@asynccontextmanager
async def management_over(
    dsn: str,
    *,
    redis_url: str | None = None,
    max_per_user: int = 5,
    oidc: OidcSettings | None = None,
    github: GithubSecretScanning | None = None,
    **keys: Any,
) -> AsyncIterator[Management]:
    """The API over the database at `dsn`, with nothing put into it and no token made yet.

    `keys`: more of its settings.
    """
    metrics, clock = Metrics(), SystemClock()
    postgres = Postgres(dsn, metrics=metrics)
    await postgres.open()
    changes, revisions = Changes(postgres, environment=ENVIRONMENT), RevisionLog(postgres)
    redis, channel = None, None
    if redis_url is not None:
        redis = Redis(redis_url, environment=ENVIRONMENT, metrics=metrics)
        await redis.open()
        seal = Seal()
        seal.unlock(b"k" * 32)
        channel = Channel(redis, seal, writer="w1", clock=clock, bound_seconds=BOUND_SECONDS, metrics=metrics)
    propagator = Propagator(
        changes,
        revisions,
        environment=ENVIRONMENT,
        bound_seconds=BOUND_SECONDS,
        clock=clock,
        metrics=metrics,
        channel=channel,
    )
    await propagator.start()
    people = None
    if oidc is not None:
        provider = ProviderKeys(oidc, clock=clock, metrics=metrics, interval_seconds=PROVIDER_INTERVAL_SECONDS)
        await provider.start()
        people = People(postgres, provider, oidc)
    app = build_api(
        postgres=postgres,
        changes=changes,
        propagator=propagator,
        revisions=revisions,
        secret_format=SecretFormat("ost", ENVIRONMENT),
        peppers=PEPPERS,
        keys=KeySettings(max_per_user=max_per_user, **keys),
        metrics=metrics,
        people=people,
        key_scopes=() if oidc is None else oidc.key_scopes,
        github=github,
    )
    try:
        async with TestClient(TestServer(app)) as client:
            documented = await judge(client, has_people=people is not None, has_github=github is not None)
            yield Management(client, dsn, postgres, changes, revisions, metrics, "", "", "", documented)
    finally:
        if people is not None:
            await provider.close()
        await propagator.close()
        if redis is not None:
            await redis.close()
        await postgres.close()


# By what decides which calls there are.
_JUDGES: Final[dict[tuple[bool, bool], Documented]] = {}


async def judge(client: TestClient[web.Request, web.Application], *, has_people: bool, has_github: bool) -> Documented:
    """The document of an API, asked for once for all APIs that tell the same."""
    kind = (has_people, has_github)
    if kind not in _JUDGES:
        async with client.get("/v1/openapi.json") as response:
            _JUDGES[kind] = Documented(json.loads(await response.text()))
    return _JUDGES[kind]


async def give_tokens(management: Management) -> None:
    """Make the operator's and the auditor's token."""
    tokens = AdminTokens(management.postgres)
    _, management.operator = await tokens.create(name="op", role=Role.OPERATOR, tenant_id=None, expires_at=None)
    _, management.auditor = await tokens.create(name="au", role=Role.AUDITOR, tenant_id=None, expires_at=None)


async def give_tenant_token(management: Management, tenant_id: str) -> None:
    """Make the token of the administrator of a tenant that exists."""
    tokens = AdminTokens(management.postgres)
    _, management.tenant_admin = await tokens.create(
        name="ta", role=Role.TENANT_ADMIN, tenant_id=tenant_id, expires_at=None
    )
