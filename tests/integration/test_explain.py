"""`POST /v1/explain` and `ostiary explain`: the decision that a request would meet, and nothing of it left behind."""

import asyncio
import base64
import hashlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from gateway.auth.secrets import SecretFormat
from gateway.control.admin_tokens import AdminTokens, Role
from gateway.embedded.keeper import Addresses
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.fixtures.launching import command
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY, Signer
from tests.fixtures.stores import Databases
from tests.fixtures.waiting import until
from tests.integration.stories.world import Key, World, world_over

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENVIRONMENT: Final = "test"
ORIGIN: Final = "https://app.example.com"
ROUTES: Final[list[dict[str, Any]]] = [
    {"name": "orders", "paths": ["/orders"], "upstream": "orders", "tokens": True},
    {"name": "keys", "paths": ["/keys"], "upstream": "orders", "strip_prefix": True, "methods": ["GET", "POST"]},
    {"name": "reports", "paths": ["/reports"], "upstream": "orders", "require": {"scopes": ["reports:read"]}},
    {"name": "premium", "paths": ["/premium"], "upstream": "orders", "require": {"tier": 2}},
    {"name": "exports", "paths": ["/exports"], "upstream": "orders", "require": {"features": ["export"]}},
    {"name": "maybe", "paths": ["/maybe"], "upstream": "orders", "auth": "optional"},
    {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
    {"name": "inside", "paths": ["/inside"], "upstream": "orders", "addresses": {"allow": ["10.0.0.0/8"]}},
    {"name": "small", "paths": ["/small"], "upstream": "orders", "body_limit_bytes": 3},
    {"name": "pages", "paths": ["/pages"], "upstream": "orders", "cors": {"origins": [ORIGIN]}},
    {"name": "signed", "paths": ["/signed"], "upstream": "signed"},
]
CREDENTIALS: Final = [
    {"header": "X-Api-Key"},
    {"header": "Authorization"},
    {"query": "api_key"},
    {"websocket_protocol": "key"},
]


@dataclass
class Stage:
    """One node with routes of every kind, and who asks it."""

    world: World
    http: aiohttp.ClientSession

    async def explain(self, path: str = "/orders", **asked: Any) -> dict[str, Any]:
        """The explanation; never with a secret or a digest in it (World checks that of every reply)."""
        return await self.world.do("POST", "/v1/explain", {"path": path, **asked})

    async def asked(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str | None]:
        """Status and code of the same request, really made; the code of what the upstream answered is None."""
        url = self.world.nodes[0].proxy_url + path
        async with self.http.request(method, url, headers=headers) as response:
            is_own = response.content_type == "application/problem+json"
            return response.status, str((await response.json(content_type=None))["code"]) if is_own else None

    async def metrics(self) -> str:
        """All metrics that a request could change."""
        async with self.http.get(f"{self.world.nodes[0].status_url}/metrics") as response:
            names = ("ostiary_requests", "ostiary_auth", "ostiary_spoofed", "ostiary_cache_events", "ostiary_upstream")
            lines = (await response.text()).splitlines()
            return "\n".join(line for line in lines if line.startswith(names))

    async def run(self, *arguments: str, stdin: str = "", token: str | None = "") -> subprocess.CompletedProcess[str]:
        """`ostiary explain ...`; without a `token` in the environment where it is None."""
        environment = {} if token is None else {"OSTIARY_ADMIN_TOKEN": token or self.world.token}
        return await command("explain", *arguments, environment=environment, stdin=stdin)


def steps_of(answer: dict[str, Any]) -> dict[str, str]:
    """The outcome of each step. Rules of the same code are kept apart by what they are about."""
    return {
        " ".join(filter(None, (step["step"], step["facts"].get("about")))): step["outcome"] for step in answer["steps"]
    }


def facts_of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """What one step went by."""
    facts: dict[str, Any] = next(step["facts"] for step in answer["steps"] if step["step"] == name)
    return facts


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, servers: Addresses
) -> AsyncIterator[Stage]:
    """Shared: each test uses keys of its own."""
    dsn = await databases.create(is_migrated=True)
    folder: Path = tmp_path_factory.mktemp("explain")
    async with (
        aiohttp.ClientSession() as http,
        world_over(folder, dsn, servers.redis_url, environment=ENVIRONMENT, nodes=()) as world,
    ):
        targets = {"targets": [world.upstream.url]}
        await world.add_node(
            {
                "credentials": CREDENTIALS,
                "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
                "routes": ROUTES,
                "upstreams": {"orders": targets, "signed": {**targets, "assertion": True}},
            }
        )
        yield Stage(world, http)
    await databases.drop(dsn)


# -- the same decision as a request's


async def good(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key(scopes=["orders:read"])
    return key, key.secret


async def revoked(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key()
    await stage.world.revoke(key)
    return key, key.secret


async def retired(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key()
    await stage.world.rotate(key)
    return key, key.secret


async def rotated(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key()
    reply = await stage.world.rotate(key)
    await stage.world.set_window(reply["retired_secret"]["id"], time.time() - 1)
    return key, key.secret


async def expired(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key()
    await stage.world.sql("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1", key.id)
    return key, key.secret


async def suspended(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key()
    await stage.world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "suspended"})
    return key, key.secret


async def unentitled(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key()
    await stage.world.do(
        "PUT", f"/v1/users/{key.user}/entitlement", {"plan": "starter", "features": {"api_access": False}}
    )
    return key, key.secret


async def lapsed(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key()
    body = {"plan": "starter", "valid_until": time.time() - 1}
    await stage.world.do("PUT", f"/v1/users/{key.user}/entitlement", body)
    return key, key.secret


async def operators(stage: Stage) -> tuple[Key, str]:
    key = await stage.world.key(kind="operator")
    return key, key.secret


async def unknown(stage: Stage) -> tuple[Key | None, str]:
    return None, SecretFormat("ost", ENVIRONMENT).generate()


async def malformed(stage: Stage) -> tuple[Key | None, str]:
    return None, "nonsense-that-is-no-key"


async def a_token(stage: Stage) -> tuple[Key | None, str]:
    return None, await stage.world.access_token(await stage.world.key(scopes=["orders:read"]))


async def a_bad_token(stage: Stage) -> tuple[Key | None, str]:
    return None, Signer("sig_nobody").sign({"iss": ISSUER})


async def nothing(stage: Stage) -> tuple[Key | None, str]:
    return None, ""


CALLERS: Final[tuple[Callable[[Stage], Awaitable[tuple[Key | None, str]]], ...]] = (
    good, revoked, retired, rotated, expired, suspended, unentitled, lapsed, operators, unknown, malformed, a_token,
    a_bad_token, nothing,
)  # fmt: skip
REQUESTS: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    ("GET", "/orders/1?page=2", {}),
    ("GET", "/keys/1", {}),
    ("DELETE", "/keys/1", {}),
    ("GET", "/reports", {}),
    ("GET", "/premium", {}),
    ("GET", "/exports", {}),
    ("GET", "/maybe", {}),
    ("GET", "/public", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/inside", {}),
    ("OPTIONS", "/pages", {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}),
    ("GET", "/signed", {}),
    ("GET", "/orders/%2e%2e/keys", {}),
    ("GET", "/.ostiary/whoami", {}),
    ("TRACE", "/orders", {}),
)


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.__name__)
async def test_the_decision_is_that_of_a_request(stage: Stage, caller: Any) -> None:
    """Cold and warm, for every kind of caller and route: what explain says is what the request then meets. R340."""
    key, secret = await caller(stage)
    for _ in range(2):  # the second time, the node has it all in memory
        for method, path, more in REQUESTS:
            given: dict[str, Any] = {"secret": secret} if secret else {}
            told = await stage.explain(path, method=method, headers=more, address="127.0.0.1", **given)
            decision = told["decision"]
            sent = {**more, **({"X-Api-Key": secret} if secret else {})}
            if "%" in path:
                continue  # no client of ours sends that as it stands
            status, code = await stage.asked(method, path, sent)
            if decision["outcome"] == "forwarded":
                assert (status, code) == (200, None), (path, told)
            else:
                assert (status, code) == (decision["status"], decision["code"]), (path, told)
            assert not secret or secret not in json.dumps(told)
        if key is not None and caller not in (retired, rotated):
            by_id = await stage.explain("/orders/1", key_id=key.id)
            by_secret = await stage.explain("/orders/1", secret=secret)
            assert by_id["decision"] == by_secret["decision"]


async def test_every_rule_is_told(stage: Stage) -> None:
    """What is wrong with a caller is told in full, not only what decides."""
    key = await stage.world.key(scopes=["a"])
    await stage.world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "suspended"})
    await stage.world.revoke(key)
    told = await stage.explain("/reports", key_id=key.id)
    assert told["decision"]["code"] == "key_revoked"
    assert steps_of(told) == {
        "request": "passed",
        "route": "passed",
        "credential": "passed",
        "cache": "noted",
        "rule invalid_api_key": "passed",
        "rule key_revoked": "failed",
        "rule tenant_suspended": "failed",
        "rule user_suspended": "passed",
        "rule api_access_required": "passed",
        "rule key_expired": "passed",
        "rule key_rotated": "passed",
        "rule subscription_lapsed": "passed",
        "rule insufficient_scope scopes": "failed",
        "rule upgrade_required features": "passed",
        "rule upgrade_required tier": "passed",
        "admission": "failed",
    }
    assert facts_of(told, "admission")["user_id"] == key.user
    assert facts_of(told, "rule insufficient_scope") == {"about": "scopes", "asked": ["reports:read"], "has": ["a"]}


async def test_rules_of_tokens(stage: Stage) -> None:
    """A token has rules of its own: the route's, its signature's and its end's; then those of its key."""
    key = await stage.world.key(scopes=["a", "reports:read"])
    token = await stage.world.access_token(key, scopes=["a"])
    told = await stage.explain("/reports", secret=token)
    outcomes = steps_of(told)
    assert told["decision"]["code"] == "token_not_allowed"
    assert (outcomes["rule token_not_allowed"], outcomes["rule invalid_token"]) == ("failed", "passed")
    assert outcomes["rule insufficient_scope scopes"] == "failed"
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert facts_of(told, "rule invalid_token")["bound_to"] == claims["secret"]
    assert facts_of(told, "admission")["key_id"] == key.id
    told = await stage.explain("/orders", secret=token)
    assert told["decision"]["code"] == "insufficient_scope", "it has fewer scopes than its key"
    assert steps_of(told)["rule insufficient_scope scopes"] == "failed"
    told = await stage.explain("/orders", secret=await stage.world.access_token(key))
    assert told["decision"]["outcome"] == "forwarded"
    assert {"name": "X-Auth-Kind", "value": "token"} in told["headers"]["added"]
    assert steps_of(await stage.explain(secret=Signer("sig_x").sign({})))["rule invalid_token"] == "failed"


async def test_tiers_and_ages(stage: Stage) -> None:
    """Which cache would answer, how old it is and of which revision, and how fresh the node's view is."""
    key = await stage.world.key()
    cold = facts_of(await stage.explain(secret=key.secret), "cache")
    assert (cold["decided_by"], cold["local"], cold["redis"]) == ("postgres", None, None)
    assert cold["postgres"]["is_known"] is True
    assert cold["view"]["is_fresh"] is True
    assert 0 <= cold["view"]["age_seconds"] < 2
    again = facts_of(await stage.explain(secret=key.secret), "cache")
    assert again["decided_by"] == "postgres", "an explanation warms nothing"
    await stage.world.warm(key.secret)
    for asked in ({"secret": key.secret}, {"key_id": key.id}):
        warm = facts_of(await stage.explain(**asked), "cache")
        assert (warm["decided_by"], warm["local"]["says"]) == ("local", "admitted")
        assert 0 <= warm["local"]["age_seconds"] < 10
        assert warm["local"]["revision"] <= warm["view"]["revision"]
        assert warm["redis"]["is_known"] is True


async def test_what_would_go_upstream(stage: Stage) -> None:
    """The headers that are added and removed, each with its reason, and the target, without the values of its query."""
    key = await stage.world.key(scopes=["a"])
    told = await stage.explain(
        "/keys/7?page=2&token=hush-hush",
        secret=key.secret,
        host="api.example.com",
        headers={
            "X-User-Id": "root",
            "x_tenant_id": "root",
            "Accept": "x",
            "Connection": "X-Odd",
            "X-Odd": "1",
            "TE": "x",
        },
    )
    assert told["forwarded"] == {"method": "GET", "path": "/7?page=…&token=…"}
    assert "hush-hush" not in json.dumps(told)
    added = {header["name"]: header["value"] for header in told["headers"]["added"]}
    assert added["Host"] == stage.world.upstream.url.removeprefix("http://")
    assert (added["X-User-Id"], added["X-Key-Id"], added["X-Scopes"]) == (key.user, key.id, "a")
    assert added["X-Forwarded-Host"] == "api.example.com"
    removed = {header["name"]: header["why"] for header in told["headers"]["removed"]}
    assert removed == {
        "Host": "replaced by the gateway's own",
        "X-User-Id": "only the gateway says this",
        "x_tenant_id": "only the gateway says this",
        "Connection": "meant for this hop alone",
        "X-Odd": "named by Connection",
        "TE": "meant for this hop alone",
        "X-Api-Key": "the credential does not travel on",
    }
    (real,) = [request for request in await _real(stage, key) if request.target == "/7?page=2"]
    assert {name for name, _ in real.headers} - {"Accept-Encoding", "User-Agent"} == {*added, "Accept"}


async def _real(stage: Stage, key: Key) -> list[Any]:
    url = f"{stage.world.nodes[0].proxy_url}/keys/7?page=2"
    async with stage.http.get(url, headers={"X-Api-Key": key.secret, "X-User-Id": "root", "Accept": "x"}) as response:
        assert response.status == 200
    return stage.world.upstream.requests


async def test_an_assertion_is_told_of_and_not_shown(stage: Stage) -> None:
    """It would let whoever reads the explanation speak as the caller."""
    key = await stage.world.key()
    told = await stage.explain("/signed", key_id=key.id)
    assert {"name": "X-Identity-Assertion", "value": "(signed)"} in told["headers"]["added"]
    assert facts_of(told, "upstream")["assertion"] is True
    assert "eyJ" not in json.dumps(told)


@pytest.mark.parametrize(
    ("path", "headers", "places", "code"),
    [
        pytest.param("/orders", {"X-Api-Key": "{}"}, ["header X-Api-Key"], None, id="header"),
        pytest.param("/orders", {"authorization": "Bearer {}"}, ["header Authorization"], None, id="bearer"),
        pytest.param("/orders?api_key={}", {}, ["query"], None, id="query"),
        pytest.param(
            "/orders", {"Sec-WebSocket-Protocol": "chat, key, {}"}, ["websocket_protocol key"], None, id="socket"
        ),
        pytest.param(
            "/orders?api_key={}x", {"X-Api-Key": "{}"}, ["header X-Api-Key", "query"], "ambiguous_credentials", id="two"
        ),
        pytest.param(
            "/orders", {"Authorization": "Basic {}"}, ["header Authorization"], "invalid_api_key", id="scheme"
        ),
    ],
)
async def test_where_the_key_stands(
    stage: Stage, path: str, headers: dict[str, str], places: list[str], code: str | None
) -> None:
    """A secret is found wherever a request may have it, and told from nowhere. R002 R008 R218."""
    key = await stage.world.key()
    filled = {name: value.replace("{}", key.secret) for name, value in headers.items()}
    told = await stage.explain(path.replace("{}", key.secret), headers=filled)
    assert facts_of(told, "credential")["places"] == places
    assert told["decision"]["code"] == code
    assert key.secret not in json.dumps(told)
    assert key.secret[-30:] not in json.dumps(told)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"path": "/orders/{}"}, id="path"),
        pytest.param({"path": "/{}"}, id="no route"),
        pytest.param({"path": "/orders", "host": "{}"}, id="host"),
        pytest.param({"path": "/orders", "headers": {"X-Other": "{}", "{}": "x"}}, id="other headers"),
        pytest.param({"path": "/orders", "headers": {"X-Request-Id": "{}", "X-Forwarded-For": "{}"}}, id="our headers"),
        pytest.param({"path": "/orders", "method": "GET", "headers": {"Cookie": "session={}"}}, id="cookie"),
        pytest.param({"path": "/orders%zz{}", "address": "{}"}, id="address"),
    ],
)
async def test_no_secret_is_told(stage: Stage, asked: dict[str, Any]) -> None:
    """Wherever else one stands, by mistake: keys, and access tokens. R218."""
    key = await stage.world.key()
    token = await stage.world.access_token(key)
    for secret in (key.secret, token):
        text = json.dumps(asked).replace("{}", secret)
        if len(secret) > 32 and "address" in asked and secret is token:
            continue  # too long to be an address
        reply = await stage.world.api("POST", "/v1/explain", {"secret": key.secret, **json.loads(text)})
        assert secret not in reply.text
        assert hashlib.sha256(secret.encode()).hexdigest() not in reply.text
        assert secret not in stage.world.nodes[0].log


# -- nothing is left behind


async def test_nothing_is_left_behind(stage: Stage) -> None:
    """No entry in memory or in Redis, no last use, no count, no request upstream, no event on record."""
    world = stage.world
    key = await world.key()
    peppered = await world.sql("SELECT digest FROM api_keys WHERE id = $1", key.id)
    token = await stage.world.access_token(await world.key())
    events = await world.sql("SELECT count(*) FROM audit_events")
    seen, counted = len(world.upstream.requests), await stage.metrics()
    for asked in (
        {"secret": key.secret},
        {"key_id": key.id},
        {"secret": world.format.generate()},
        {"secret": token},
        {},
    ):
        for path in ("/orders", "/signed", "/nowhere"):
            await stage.explain(path, headers={"X-User-Id": "x"}, **asked)
    assert len(world.upstream.requests) == seen
    assert await stage.metrics() == counted
    assert await world.entry(key.secret) is None
    assert await world.sql("SELECT last_used_at FROM api_keys WHERE id = $1", key.id) is None
    assert await world.sql("SELECT digest FROM api_keys WHERE id = $1", key.id) == peppered
    assert await world.sql("SELECT count(*) FROM audit_events") == events
    assert facts_of(await stage.explain(secret=key.secret), "cache")["local"] is None


# -- who may ask, and how


async def test_only_operators_may_ask(stage: Stage) -> None:
    """Whoever could ask could try secrets, and look into other tenants."""
    postgres = Postgres(stage.world.dsn, metrics=Metrics())
    await postgres.open()
    tenant = await stage.world.tenant()
    tokens = AdminTokens(postgres)
    _, auditor = await tokens.create(name="au", role=Role.AUDITOR, tenant_id=None, expires_at=None)
    _, administrator = await tokens.create(name="ta", role=Role.TENANT_ADMIN, tenant_id=tenant, expires_at=None)
    await postgres.close()
    for token, status in ((auditor, 403), (administrator, 403), ("nonsense", 401)):
        assert (await stage.world.api("POST", "/v1/explain", {"path": "/"}, token=token)).status == status


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        pytest.param({}, 400, "invalid_body", id="no path"),
        pytest.param({"path": "/a\r\nX: y"}, 400, "invalid_body", id="line break in the path"),
        pytest.param({"path": "/", "headers": {"A": "b\r\nC: d"}}, 400, "invalid_body", id="line break in a header"),
        pytest.param({"path": "/", "headers": {"A b": "c"}}, 400, "invalid_body", id="no header name"),
        pytest.param({"path": "/", "method": "GET / HTTP/1.1\r\n"}, 400, "invalid_body", id="no method"),
        pytest.param({"path": "/", "secret": "a\r\nb"}, 400, "invalid_body", id="line break in the secret"),
        pytest.param({"path": "/", "secret": "a", "key_id": "key_1"}, 400, "invalid_body", id="two keys"),
        pytest.param({"path": "/", "other": 1}, 400, "invalid_body", id="unknown field"),
        pytest.param({"path": "/orders", "key_id": "key_nobody"}, 404, "not_found", id="no such key"),
        pytest.param(
            {"path": "/orders", "key_id": "key_1", "headers": {"X-Api-Key": "x"}},
            400,
            "ambiguous_credentials",
            id="both",
        ),
    ],
)
async def test_bad_questions(stage: Stage, asked: dict[str, Any], status: int, code: str) -> None:
    """What is no question is refused; what is a bad request is explained."""
    reply = await stage.world.api("POST", "/v1/explain", asked)
    assert (reply.status, reply.code) == (status, code)
    told = await stage.explain("/a b")
    assert (told["decision"]["status"], told["decision"]["code"]) == (400, "bad_request")
    assert steps_of(told) == {"request": "failed"}


async def test_the_command(stage: Stage) -> None:
    """By the id of a key or by a secret on stdin; JSON as the API says it, or a line a step. No such key: exit 1."""
    key = await stage.world.key(scopes=["a"])
    url, config = stage.world.nodes[0].admin_url, str(stage.world.nodes[0].config_path)
    admin = stage.world.token
    by_secret = ("/orders/7", "-H", "Accept: x", "--secret", "-c", config)
    shown, refused, missing, *listed = await asyncio.gather(
        stage.run("/reports", "--key", key.id, "--api", url, "-o", "json"),
        stage.run("/reports", "--key", key.id, "-c", config),
        stage.run("/orders", "--key", "key_x", "--api", url),
        stage.run(*by_secret, stdin=key.secret),
        stage.run(*by_secret, stdin=f"{admin}\n{key.secret}\n", token=None),
    )
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stderr
    assert json.loads(shown.stdout)["decision"]["code"] == "insufficient_scope"
    assert "no  rule insufficient_scope" in refused.stdout
    assert "refused 403 insufficient_scope" in refused.stdout
    for forwarded in listed:
        assert (forwarded.returncode, forwarded.stderr) == (0, ""), forwarded.stderr
        assert "forwarded: The request is forwarded." in forwarded.stdout
        assert f"  + X-User-Id: {key.user}" in forwarded.stdout
        assert "  - X-Api-Key (the credential does not travel on)" in forwarded.stdout
        assert key.secret not in forwarded.stdout
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "not_found" in missing.stderr


async def test_no_secret_on_the_command_line(stage: Stage) -> None:
    """One that stands there is refused, with the way to give it; others can see the command line. R218."""
    url = stage.world.nodes[0].admin_url
    secret, token = stage.world.format.generate(), Signer().sign({"a": 1})
    results = await asyncio.gather(
        stage.run("/orders", "-H", f"X-Other: {secret}", "--api", url),
        stage.run("/orders", "-H", "Authorization: Bearer x", "--api", url),
        stage.run(f"/orders/{token}", "--api", url),
    )
    for result in results:
        assert (result.returncode, result.stdout) == (2, "")
        assert "--secret" in result.stderr
        assert secret not in result.stderr
        assert token not in result.stderr


async def test_an_upstream_that_is_out(servers: Addresses, databases: Databases, tmp_path: Path) -> None:
    """Targets that were ejected are told, and the decision is the one that the next request meets."""
    dsn = await databases.create(is_migrated=True)
    changes = {"upstreams": {"orders": {"targets": ["http://127.0.0.1:1", "http://127.0.0.1:2"]}}}
    async with world_over(tmp_path, dsn, servers.redis_url, environment="out", nodes=(changes,)) as world:
        key = await world.key()
        asked = {"path": "/orders", "key_id": key.id}
        assert (await world.do("POST", "/v1/explain", asked))["decision"]["outcome"] == "forwarded"

        async def is_out() -> bool:
            await world.ask(0, key.secret)
            told = await world.do("POST", "/v1/explain", asked)
            return [target["is_fit"] for target in facts_of(told, "upstream")["targets"]] == [False, True]

        await until(is_out, what="a target to be ejected")
    await databases.drop(dsn)
