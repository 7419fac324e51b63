"""Identity assertions over two real nodes: what upstreams get, what clients cannot send, and what ends them. R027."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import jwt
import pytest
import pytest_asyncio

from gateway.embedded.keeper import Addresses
from tests.fixtures.launching import command
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.stores import Databases
from tests.fixtures.upstream import RecordedRequest
from tests.fixtures.waiting import until
from tests.integration.stories.world import Answer, World, world_over

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENVIRONMENT: Final = "test"
HEADER: Final = "X-Identity-Assertion"
TYPE: Final = "identity+jwt"
ROUTES: Final[list[dict[str, Any]]] = [
    {"name": "orders", "paths": ["/orders"], "upstream": "orders", "tokens": True},
    {"name": "reports", "paths": ["/reports"], "upstream": "reports"},
    {"name": "plain", "paths": ["/plain"], "upstream": "plain"},
    {"name": "maybe", "paths": ["/maybe"], "upstream": "orders", "auth": "optional"},
    {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
    {
        "name": "sales",
        "paths": ["/sales"],
        "upstream": "orders",
        "tokens": True,
        "require": {"scopes": ["reports:read"]},
    },
]


@dataclass
class Stage:
    """Two nodes; the upstreams `orders` and `reports` ask for assertions, `plain` does not. All are one server."""

    world: World
    http: aiohttp.ClientSession

    async def keys(self) -> jwt.PyJWKSet:
        """The public keys, as an upstream fetches them."""
        async with self.http.get(f"{self.world.nodes[1].proxy_url}/.ostiary/jwks.json") as response:
            return jwt.PyJWKSet.from_dict(await response.json())

    async def verified(self, answer: Answer, audience: str = "orders") -> dict[str, Any]:
        """The claims of what the upstream got, by PyJWT's own rules."""
        text = assertion_of(answer)
        assert text is not None
        head = jwt.get_unverified_header(text)
        assert (head["alg"], head["typ"]) == ("EdDSA", TYPE)
        claims: dict[str, Any] = jwt.decode(
            text,
            (await self.keys())[head["kid"]],
            algorithms=["EdDSA"],
            audience=audience,
            issuer=ISSUER,
            options={"require": ["exp", "iat", "sub"]},
        )
        return claims

    async def signing_keys(self, *arguments: str) -> None:
        """`ostiary signing-keys ...`."""
        config = str(self.world.nodes[0].config_path)
        (await command("signing-keys", *arguments, "-c", config)).check_returncode()


def arrival_of(answer: Answer) -> RecordedRequest:
    assert answer.arrival is not None, answer.body
    return answer.arrival


def assertion_of(answer: Answer) -> str | None:
    return arrival_of(answer).header(HEADER)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, servers: Addresses
) -> AsyncIterator[Stage]:
    """Shared: each test uses keys of its own."""
    dsn = await databases.create(is_migrated=True)
    folder: Path = tmp_path_factory.mktemp("assertions")
    async with (
        aiohttp.ClientSession() as http,
        world_over(folder, dsn, servers.redis_url, environment=ENVIRONMENT, nodes=()) as world,
    ):
        targets = {"targets": [world.upstream.url]}
        asking = {**targets, "assertion": True}
        changes = {
            "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
            "routes": ROUTES,
            "upstreams": {"orders": asking, "reports": asking, "plain": targets},
        }
        await asyncio.gather(*(world.add_node(changes) for _ in range(2)))
        yield Stage(world, http)
    await databases.drop(dsn)


async def test_the_upstream_can_verify_who_is_calling(stage: Stage) -> None:
    """The same facts as in the headers, signed for this upstream, for 60 seconds at most. R027."""
    key = await stage.world.key(scopes=["orders:read", "a"])
    for answer in await stage.world.admitted(key):
        claims, arrival = await stage.verified(answer), arrival_of(answer)
        assert (claims["sub"], claims["tenant"], claims["key"]) == (key.user, key.tenant, key.id)
        assert claims["exp"] - claims["iat"] == 60
        assert abs(claims["iat"] - time.time()) < 5
        said = {
            "X-User-Id": claims["sub"],
            "X-Tenant-Id": claims["tenant"],
            "X-Key-Id": claims["key"],
            "X-Key-Environment": claims["env"],
            "X-Auth-Kind": claims["kind"],
            "X-Plan": claims["plan"],
        }
        assert said == {name: arrival.header(name) for name in said}
        assert sorted((arrival.header("X-Scopes") or "").split()) == claims["scopes"] == ["a", "orders:read"]


async def test_each_upstream_is_told_for_itself(stage: Stage) -> None:
    """Another upstream gets another one, and one that does not ask gets none."""
    key = await stage.world.key()
    told = {}
    for name in ("orders", "reports"):
        (answer, *_) = await stage.world.admitted(key, path=f"/{name}")
        told[name] = await stage.verified(answer, name)
    assert [claims["aud"] for claims in told.values()] == ["orders", "reports"]
    (plain, *_) = await stage.world.admitted(key, path="/plain")
    assert assertion_of(plain) is None


async def test_warm_requests_are_not_signed_for(stage: Stage) -> None:
    """The next requests of the same minute carry the same bytes."""
    key = await stage.world.key()
    told = [assertion_of(await stage.world.ask(0, key.secret)) for _ in range(5)]
    assert len(set(told)) == 1


async def test_both_secrets_of_a_key_are_one_caller(stage: Stage) -> None:
    """A retired secret in its window and the current one say the same. R028."""
    key = await stage.world.key()
    rotated = await stage.world.rotate(key)
    told = [await stage.verified(await stage.world.ask(0, secret)) for secret in (key.secret, rotated["secret"])]
    for claims in told:
        del claims["iat"], claims["exp"]
    assert told[0] == told[1]


async def test_a_token_says_so(stage: Stage) -> None:
    """What is told of a token's bearer are the token's scopes, and that it is one."""
    key = await stage.world.key(scopes=["orders:read", "reports:read"])
    token = await stage.world.access_token(key, scopes=["reports:read"])
    claims = await stage.verified(await stage.world.ask(1, token, "/sales"))
    assert (claims["kind"], claims["scopes"], claims["key"]) == ("token", ["reports:read"], key.id)


@pytest.mark.parametrize("name", ["X-Identity-Assertion", "x_identity_assertion", "X-IDENTITY_ASSERTION"])
@pytest.mark.parametrize("path", ["/orders", "/plain", "/maybe", "/public"])
async def test_no_client_sends_one(stage: Stage, path: str, name: str) -> None:
    """A client's own is removed on every route; where nobody is known, none is made. R020 R022."""
    key = await stage.world.key()
    genuine = assertion_of(await stage.world.ask(0, key.secret, "/orders"))
    assert genuine is not None
    stranger = await stage.world.key()
    for secret in (stranger.secret, None):
        answer = await stage.world.ask(0, secret, path, headers={name: genuine, "Connection": "close"})
        if secret is None and path in ("/orders", "/plain"):
            assert answer.code == "missing_api_key"
            continue
        assert genuine not in str(arrival_of(answer).headers)
        if secret is not None and path in ("/orders", "/maybe"):
            assert (await stage.verified(answer))["key"] == stranger.id
        else:
            assert assertion_of(answer) is None


async def test_it_is_no_credential(stage: Stage) -> None:
    """An upstream that sends one back as a token is refused. R168."""
    key = await stage.world.key()
    assertion = assertion_of(await stage.world.ask(0, key.secret))
    assert assertion is not None
    for node in (0, 1):
        assert (await stage.world.ask(node, assertion)).code == "invalid_token"


async def test_a_changed_caller_is_told_at_once(stage: Stage) -> None:
    """However warm the old one was. R221."""
    key = await stage.world.key()
    for answer in await stage.world.admitted(key):
        assert (await stage.verified(answer))["plan"] == "starter"
    await stage.world.do("PUT", "/v1/plans/gold", {"tier": 3, "features": {"api_access": True}})
    await stage.world.do("PUT", f"/v1/users/{key.user}/entitlement", {"plan": "gold"})
    for answer in await stage.world.admitted(key):
        assert (await stage.verified(answer))["plan"] == "gold"


async def test_rotation_of_signing_keys_is_noticed_by_nobody(stage: Stage) -> None:
    """Under traffic on both nodes: every request is admitted, and every assertion verifies by the published keys."""
    key = await stage.world.key()
    done = asyncio.Event()
    seen: list[set[str]] = [set(), set()]

    async def use(node: int) -> None:
        while not done.is_set():
            answer = await stage.world.ask(node, key.secret)
            await stage.verified(answer)
            seen[node].add(jwt.get_unverified_header(str(assertion_of(answer)))["kid"])

    users = [asyncio.create_task(use(node)) for node in (0, 1)]
    try:
        await until(lambda: all(seen), what="traffic on both nodes")
        await stage.signing_keys("rotate")
        await until(lambda: all(len(kids) == 2 for kids in seen), what="assertions by the next key")
    finally:
        done.set()
        await asyncio.gather(*users)


async def test_a_withdrawn_signing_key(stage: Stage) -> None:
    """When the command is done, nothing that it has signed is sent any more; nobody is refused for it. R179."""
    key = await stage.world.key()
    warm = [assertion_of(answer) for answer in await stage.world.admitted(key)]
    (bad,) = {jwt.get_unverified_header(str(text))["kid"] for text in warm}
    done = asyncio.Event()
    codes: set[int] = set()

    async def use(node: int) -> None:
        while not done.is_set():
            codes.add((await stage.world.ask(node, key.secret)).status)

    users = [asyncio.create_task(use(node)) for node in (0, 1)]
    await stage.signing_keys("withdraw", bad)
    for answer in await stage.world.admitted(key):
        await stage.verified(answer)
        assert jwt.get_unverified_header(str(assertion_of(answer)))["kid"] != bad
    done.set()
    await asyncio.gather(*users)
    assert codes == {200}


async def test_without_a_key_to_sign_by(stage: Stage) -> None:
    """The request is refused as an outage, rather than forwarded unsigned; other upstreams are served on. R075."""
    world = stage.world
    key = await world.key()
    await world.admitted(key)
    current = await world.sql("SELECT id FROM signing_keys WHERE state = 'current' AND environment = $1", ENVIRONMENT)
    await world.sql("UPDATE signing_keys SET sealed_key = '\\x00' WHERE id = $1", current)
    # Telling the nodes of any change of keys has them read the keys again.
    await world.sql("DELETE FROM signing_keys WHERE state = 'next' AND environment = $1", ENVIRONMENT)

    async def is_refused() -> bool:
        return {answer.code for answer in await world.ask_all(key.secret)} == {"auth_unavailable"}

    await until(is_refused, what="both nodes to find the key sealed otherwise")
    for answer in await world.ask_all(key.secret):
        assert (answer.status, answer.code) == (503, "auth_unavailable")
    await world.admitted(key, path="/plain")
    told = "tokens.sealing_key does not open the signing key"
    await until(lambda: told in world.nodes[0].log, what="a line that tells")
    await stage.signing_keys("withdraw", current)
    for answer in await world.admitted(key):
        await stage.verified(answer)
