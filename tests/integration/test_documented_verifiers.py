"""The verifiers of docs/upstreams.md beside a gateway: they take what it signs for them, and nothing else. R027."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from gateway.auth.signing import Sealer
from gateway.embedded.keeper import Addresses
from gateway.embedded.server_process import HOST
from tests.fixtures.documented_verifiers import COMMANDS, VerifyingUpstream, documented
from tests.fixtures.launching import command
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY, Signer, base64url, compact
from tests.fixtures.stores import Databases
from tests.fixtures.waiting import until
from tests.integration.stories.world import Key, World, world_over

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEADER: Final = "X-Identity-Assertion"
TYPE: Final = "identity+jwt"
STRANGER: Final = Signer()


@dataclass
class Stage:
    """A gateway, an upstream of each kind that verifies, and `others`, one that only shows what it was told."""

    world: World
    http: aiohttp.ClientSession
    upstreams: dict[str, VerifyingUpstream]
    key: Key
    signer: Signer  # by which the gateway signs, with its private part: to sign what the gateway never would
    fetches: list[float] = field(default_factory=list)  # when somebody fetched the keys

    async def through(self, name: str) -> tuple[int, Any]:
        """A request through the gateway: status, and the claims."""
        url = f"{self.world.nodes[0].proxy_url}/{name}"
        async with self.http.get(url, headers={"X-Api-Key": self.key.secret}) as response:
            return response.status, await response.json(content_type=None)

    async def past(self, name: str, *assertions: str) -> int:
        """The status of a request straight to the upstream, past the gateway."""
        headers = [(HEADER, assertion) for assertion in assertions]
        async with self.http.get(self.upstreams[name].url, headers=headers) as response:
            assert response.status == 200 or not await response.read()
            return response.status

    async def told(self, path: str) -> str:
        """The assertion that goes to the upstream `others`."""
        answer = await self.world.ask(0, self.key.secret, path)
        assert answer.arrival is not None
        return str(answer.arrival.header(HEADER))

    async def token(self, audience: str) -> str:
        """An access token of the gateway, for anybody."""
        return await self.world.access_token(self.key, audience=audience)

    def claims(self, name: str, **changes: Any) -> dict[str, Any]:
        """What the gateway would say to this upstream, with `changes`; None removes a claim."""
        now = int(time.time())
        good = {
            "iss": ISSUER, "aud": name, "sub": self.key.user, "tenant": self.key.tenant, "key": self.key.id,
            "env": "test", "kind": "key", "scopes": [], "plan": "starter", "iat": now, "exp": now + 60,
        }  # fmt: skip
        return {claim: value for claim, value in {**good, **changes}.items() if value is not None}

    def signed(self, name: str, head: dict[str, Any] | None = None, **changes: Any) -> str:
        """The same, signed by the gateway's own key, under its head with `head` laid over it."""
        return self.signer.sign(self.claims(name, **changes), {"typ": TYPE, **(head or {})})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, servers: Addresses
) -> AsyncIterator[Stage]:
    """Shared: nobody changes anything but the signing keys, and only by rotation."""
    folder: Path = tmp_path_factory.mktemp("verifiers")
    documented(folder)
    upstreams = {name: VerifyingUpstream(name, folder) for name in COMMANDS}
    dsn = await databases.create(is_migrated=True)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        world = await stack.enter_async_context(
            world_over(folder / "world", dsn, servers.redis_url, environment="test", nodes=())
        )
        targets = {name: upstream.url for name, upstream in upstreams.items()} | {"others": world.upstream.url}
        await world.add_node(
            {
                "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
                "routes": [{"name": name, "paths": [f"/{name}"], "upstream": name} for name in targets],
                "upstreams": {name: {"targets": [url], "assertion": True} for name, url in targets.items()},
            }
        )
        made = Stage(world, http, upstreams, await world.key(), await _signer(world))
        jwks_url = await _counting(stack, http, f"{world.nodes[0].proxy_url}/.ostiary/jwks.json", made.fetches)
        for upstream in upstreams.values():
            stack.push_async_callback(upstream.stop)
        await asyncio.gather(*(upstream.serve(jwks_url=jwks_url, issuer=ISSUER) for upstream in upstreams.values()))
        yield made
    await databases.drop(dsn)


async def _signer(world: World) -> Signer:
    key_id = await world.sql("SELECT id FROM signing_keys WHERE state = 'current'")
    sealed = await world.sql("SELECT sealed_key FROM signing_keys WHERE id = $1", key_id)
    return Signer(key_id, Sealer(SEALING_KEY).open(key_id, sealed))


async def _counting(stack: AsyncExitStack, http: aiohttp.ClientSession, url: str, fetches: list[float]) -> str:
    """An address of the gateway's keys under which every fetch is noted."""

    async def fetch(request: web.Request) -> web.Response:
        fetches.append(time.monotonic())
        async with http.get(url) as response:
            return web.Response(body=await response.read(), content_type="application/json", status=response.status)

    app = web.Application()
    app.router.add_get("/keys", fetch)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, 0).start()
    return f"http://{HOST}:{runner.addresses[0][1]}/keys"


@pytest.fixture(params=sorted(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    """Each kind of upstream."""
    return str(request.param)


async def test_what_comes_through_the_gateway_is_believed(stage: Stage, name: str) -> None:
    """Every verifier takes the genuine one, and knows who is calling; the keys are fetched once for many."""
    assert (await stage.through(name))[0] == 200
    before = len(stage.fetches)
    for _ in range(5):
        status, claims = await stage.through(name)
        assert (status, claims["sub"], claims["aud"]) == (200, stage.key.user, name)
    assert len(stage.fetches) - before <= 1  # at most the renewal of the minute
    # The one way past the gateway that works: with the key that nobody has.
    assert await stage.past(name, stage.signed(name)) == 200


def unsigned(stage: Stage, name: str) -> str:
    head = {"alg": "none", "typ": TYPE, "kid": stage.signer.key_id}
    return f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(stage.claims(name)).encode())}."


def by_public_key(stage: Stage, name: str) -> str:
    """The public key as if it were the secret of an HMAC."""
    head = {"alg": "HS256", "typ": TYPE, "kid": stage.signer.key_id}
    text = ".".join(base64url(json.dumps(part).encode()) for part in (head, stage.claims(name)))
    return f"{text}.{base64url(hmac.digest(stage.signer.public, text.encode(), hashlib.sha256))}"


def by_embedded_key(stage: Stage, name: str) -> str:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url(STRANGER.public)}
    head = {"alg": "EdDSA", "typ": TYPE, "kid": stage.signer.key_id, "jwk": jwk, "jku": "http://127.0.0.1:1/keys"}
    return compact(head, stage.claims(name), STRANGER.private)


def with_other_claims(stage: Stage, name: str) -> str:
    head, _, signature = stage.signed(name).split(".")
    return ".".join((head, base64url(json.dumps(stage.claims(name, sub="root")).encode()), signature))


def head_of(stage: Stage, name: str, raw: bytes) -> str:
    return compact(raw, stage.claims(name), stage.signer.private)


FORGERIES: Final[dict[str, Callable[[Stage, str], str]]] = {
    "empty": lambda stage, name: "",
    "not a token": lambda stage, name: "x",
    "three empty parts": lambda stage, name: "..",
    "a head that is no object": lambda stage, name: head_of(stage, name, b"null"),
    "a head too deep": lambda stage, name: head_of(stage, name, b"[" * 3000),
    "claims that are no object": lambda stage, name: stage.signer.sign(b"[1]", {"typ": TYPE}),
    "algorithm none": unsigned,
    "the public key as a secret": by_public_key,
    "a key that it brings along": by_embedded_key,
    "signed by a stranger": lambda stage, name: Signer(stage.signer.key_id).sign(stage.claims(name), {"typ": TYPE}),
    "an unknown key": lambda stage, name: STRANGER.sign(stage.claims(name), {"typ": TYPE}),
    "no key named": lambda stage, name: stage.signed(name, {"kid": None}),
    "other claims": with_other_claims,
    "no type": lambda stage, name: stage.signed(name, {"typ": None}),
    "the type of tokens": lambda stage, name: stage.signed(name, {"typ": "at+jwt"}),
    "expired": lambda stage, name: stage.signed(name, iat=int(time.time()) - 90, exp=int(time.time()) - 30),
    "without an end": lambda stage, name: stage.signed(name, exp=None),
    "of the future": lambda stage, name: stage.signed(name, iat=int(time.time()) + 60, exp=int(time.time()) + 120),
    "for another": lambda stage, name: stage.signed(name, aud="others"),
    "for nobody": lambda stage, name: stage.signed(name, aud=None),
    "of another gateway": lambda stage, name: stage.signed(name, iss="https://elsewhere.example"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_forgeries_are_refused(stage: Stage, name: str, forgery: str) -> None:
    """Whatever differs from what the gateway signs for this upstream is 401, and never reaches the application."""
    assert await stage.past(name, FORGERIES[forgery](stage, name)) == 401
    assert await stage.past(name, stage.signed(name)) == 200


async def test_nothing_or_two_are_refused(stage: Stage, name: str) -> None:
    """What did not come through the gateway has none; of two, one would be the client's own."""
    assert await stage.past(name) == 401
    good = stage.signed(name)
    assert await stage.past(name, good, good) == 401


async def test_an_access_token_is_no_identity(stage: Stage, name: str) -> None:
    """Not even one that its bearer has had made for this very upstream."""
    token = await stage.token(name)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert (claims["aud"], claims["iss"]) == (name, ISSUER)
    assert await stage.past(name, token) == 401


async def test_what_another_upstream_was_told_is_refused(stage: Stage, name: str) -> None:
    """An upstream cannot speak to another one as its callers."""
    told = await stage.told("/others")
    assert json.loads(base64.urlsafe_b64decode(told.split(".")[1] + "=="))["aud"] == "others"
    assert await stage.past(name, told) == 401


async def test_strangers_do_not_make_it_fetch(stage: Stage, name: str) -> None:
    """Unknown keys have the published ones fetched once a second at most."""
    before, began = len(stage.fetches), time.monotonic()
    forged = [STRANGER.sign(stage.claims(name), {"typ": TYPE, "kid": f"sig_{number}"}) for number in range(50)]
    assert {await stage.past(name, text) for text in forged} == {401}
    assert len(stage.fetches) - before <= time.monotonic() - began + 2


async def test_without_the_keys_nobody_is_believed(stage: Stage, name: str, tmp_path: Path) -> None:
    """A verifier that cannot fetch the keys lets nobody in, and blames no caller for it."""
    documented(tmp_path)
    cold = VerifyingUpstream(name, tmp_path)
    try:
        await cold.serve(jwks_url="http://127.0.0.1:1/keys", issuer=ISSUER)
        async with stage.http.get(cold.url, headers={HEADER: stage.signed(name)}) as response:
            assert response.status == 503
    finally:
        await cold.stop()


async def test_a_websocket_is_verified_too(stage: Stage) -> None:
    """The ASGI middleware lets a handshake through the gateway in, and refuses one past it."""
    url = f"{stage.world.nodes[0].proxy_url}/asgi"
    async with stage.http.ws_connect(url, headers={"X-Api-Key": stage.key.secret}) as socket:
        assert await socket.receive_str() == stage.key.user
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await stage.http.ws_connect(stage.upstreams["asgi"].url)
    assert refused.value.status == 403


async def test_new_keys_are_found(stage: Stage) -> None:
    """A key that was made after the verifiers last looked is fetched when it first signs; nothing is restarted."""
    config = str(stage.world.nodes[0].config_path)
    for _ in range(2):
        (await command("signing-keys", "rotate", "-c", config)).check_returncode()
    for name in COMMANDS:

        async def is_believed(name: str = name) -> bool:
            return (await stage.through(name))[0] == 200

        await until(is_believed, what=f"the new key to be believed by {name}")
    assert (await _signer(stage.world)).key_id != stage.signer.key_id
    assert {await stage.past(name, stage.signed(name)) for name in COMMANDS} == {200}  # what the old one signed is good
