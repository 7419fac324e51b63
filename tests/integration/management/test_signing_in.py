"""Who a signed-in user is, and what the claims give: decided for every request, by the provider and the database."""

import hmac
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.auth.signing import signed
from gateway.settings import OidcSettings
from tests.fixtures.documented import Operation
from tests.fixtures.provider import AUDIENCE, OpenIdProvider, ProviderKey
from tests.fixtures.signed import Signer, base64url
from tests.fixtures.waiting import until
from tests.integration.management.test_management_access import NOT_FOR_TENANT_ADMINS
from tests.integration.management.world import Management, give_tenant_token, give_tokens, management_over

ADMIN: dict[str, Any] = {"roles": ["dev", "api-admin"]}
AUDITOR: dict[str, Any] = {"groups": ["/staff/audit"]}


@pytest.fixture
async def provider() -> AsyncIterator[OpenIdProvider]:
    """A provider that answers."""
    async with OpenIdProvider() as provider:
        yield provider


@pytest.fixture
async def world(postgres_dsn: str, provider: OpenIdProvider) -> AsyncIterator[Management]:
    """The API whose users sign in at the provider: a role makes tenant-admins, a group either kind of administrator."""
    oidc = OidcSettings.model_validate(
        {
            "issuer": provider.issuer,
            "audience": AUDIENCE,
            "leeway_seconds": 0,
            "admin_roles": {
                "roles": {"api-admin": "tenant-admin"},
                "groups": {"/staff/audit": "auditor", "/staff/admins": "tenant-admin", "admins": "auditor"},
            },
        }
    )
    async with management_over(postgres_dsn, oidc=oidc) as world:
        await give_tokens(world)
        await world.plant()
        yield world


async def test_who_am_i(world: Management, provider: OpenIdProvider) -> None:
    """The user and tenant of the database, roles and groups of the provider, and what the user has bought, all told."""
    await world.expect(200, "PUT", "/v1/plans/starter", {"tier": 2, "features": {"api_access": True, "size": 3}})
    entitlement = {"plan": "starter", "features": {"size": 5}, "limits": {"per_day": 7}, "valid_until": 4_000_000_000}
    await world.expect(200, "PUT", "/v1/users/ada/entitlement", entitlement)
    assert await world.expect(200, "GET", "/v1/me", token=provider.token(**ADMIN, groups=["b", "a"])) == {
        "id": "ada",
        "tenant_id": "acme",
        "display_name": "Ada",
        "roles": ["api-admin", "dev"],
        "groups": ["a", "b"],
        "admin_role": "tenant-admin",
        "entitlement": {
            "plan": "starter",
            "tier": 2,
            "features": {"api_access": True, "size": 5},
            "limits": {"per_day": 7},
            "valid_until": "2096-10-02T07:06:40Z",
            "api_access": True,
        },
    }
    await world.expect(204, "DELETE", "/v1/users/ada/entitlement")
    mine = await world.expect(200, "GET", "/v1/me", token=provider.token())
    assert (mine["entitlement"], mine["admin_role"], mine["roles"]) == (None, None, [])


async def test_nobody_else_is_a_user(world: Management) -> None:
    """Neither without a token nor by an admin's, an API key or a key's token: 401, before the body. R123 R124 R210."""
    key = await world.key()
    own = Signer("sig_one")
    token_of_key = signed({"sub": "ada", "iss": "i", "aud": AUDIENCE, "exp": time.time() + 60}, "sig_one", own.private)
    codes = {None: "sign_in_required", "operator": "sign_in_required", "auditor": "sign_in_required"}
    codes |= {key["secret"]: "sign_in_required", token_of_key: "invalid_token"}
    for call in guarded(world, is_personal=True):
        for token, code in codes.items():
            reply = await world.call(call.method, call.nowhere, raw=b"{not json", token=token)
            assert (str(call), reply.status, reply.code) == (str(call), 401, code)
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def hs256_by_public_key(provider: OpenIdProvider) -> str:
    """Signed by what everybody knows, in the hope that it is taken for a shared secret."""
    pem = provider.key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    body = provider.key.sign(provider.claims(), {"alg": "HS256"}).rpartition(".")[0]
    return f"{body}.{base64url(hmac.digest(pem, body.encode(), 'sha256'))}"


BAD_TOKENS: dict[str, Callable[[OpenIdProvider], str]] = {
    "expired": lambda p: p.token(exp=int(time.time()) - 1),
    "no exp": lambda p: p.token(exp=None),
    "nbf in the future": lambda p: p.token(nbf=int(time.time()) + 60),
    "issued in the future": lambda p: p.token(iat=int(time.time()) + 60),
    "another issuer": lambda p: p.token(iss="https://evil.example"),
    "another audience": lambda p: p.token(aud="another"),
    "an ID token, which is for the client": lambda p: p.token(aud="portal"),
    "nobody": lambda p: p.token(sub=None),
    "another's signature": lambda p: ProviderKey("first").sign(p.claims()),
    "another's key": lambda p: ProviderKey("mine").sign(p.claims()),
    "alg none": lambda p: p.key.sign(p.claims(), {"alg": "none"}).rpartition(".")[0] + ".",
    "HS256 by the public key": hs256_by_public_key,
}


async def test_a_bad_access_token_is_refused(world: Management, provider: OpenIdProvider) -> None:
    """401 from everywhere, and the challenge says why. R123."""
    for name, make in BAD_TOKENS.items():
        code = "token_expired" if name == "expired" else "invalid_token"
        for path in ("/v1/me", "/v1/keys", "/v1/nowhere"):
            reply = await world.call("GET", path, token=make(provider))
            assert (name, reply.status, reply.code) == (name, 401, code)
            assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]


async def test_an_access_token_ends_by_the_database_clock(world: Management, provider: OpenIdProvider) -> None:
    """A token that was good is refused from its `exp` on."""
    token = provider.token(exp=time.time() + 0.7)
    assert (await world.call("GET", "/v1/me", token=token)).status == 200

    async def is_over() -> bool:
        return bool((await world.call("GET", "/v1/me", token=token)).code == "token_expired")

    await until(is_over, what="the token to end")


async def test_a_user_whom_nobody_has_made(world: Management, provider: OpenIdProvider) -> None:
    """Signing in makes no user: 403 for whoever the provider knows and the database does not."""
    for user in ("nobody", "auth0|7", "", "a b", "\x00", "ad\u00e0", "x" * 300):
        for path in ("/v1/me", "/v1/keys"):
            reply = await world.call("GET", path, token=provider.token(user, **ADMIN))
            assert (user, reply.status, reply.code) == (user, 403, "unknown_user")
    assert await world.execute("SELECT count(*) FROM users") == 3


async def test_the_database_decides_at_once(world: Management, provider: OpenIdProvider) -> None:
    """A suspended or deleted user, or tenant, is refused with the next request, whatever the token says. R274 R279."""
    token = provider.token(**ADMIN)

    async def answers(status: int, code: str | None) -> None:
        for path in ("/v1/me", "/v1/me/keys", "/v1/keys"):
            reply = await world.call("GET", path, token=token)
            assert (path, reply.status, reply.code) == (path, status, code)

    await answers(200, None)
    await world.expect(200, "PATCH", "/v1/tenants/acme", {"status": "suspended"})
    await answers(403, "tenant_suspended")
    await world.expect(200, "PATCH", "/v1/tenants/acme", {"status": "active"})
    await answers(200, None)
    await world.expect(200, "PUT", "/v1/users/ada", {"tenant_id": "acme", "status": "suspended"})
    await answers(403, "user_suspended")
    await world.expect(200, "PUT", "/v1/users/ada", {"tenant_id": "acme", "status": "active"})
    await answers(200, None)
    await world.expect(204, "DELETE", "/v1/users/ada")
    await answers(403, "unknown_user")


def guarded(world: Management, *, is_personal: bool = False) -> list[Operation]:
    """The calls that need an administrator's role, or those for whoever has signed in."""
    operations = world.documented.operations()
    return [call for call in operations if call.roles is not None and call.is_personal is is_personal]


async def forbidden(world: Management, token: str) -> list[str]:
    """The calls of the management API that are refused for the role alone: before the body, before any look-up."""
    found = []
    for call in guarded(world):
        headers = {"Authorization": f"Bearer {token}"}
        async with world.client.request(call.method, call.nowhere, headers=headers, data=b"{not json") as response:
            assert response.status != 401
            if response.status == 403:
                assert (await response.json())["code"] == "forbidden"
                found.append(str(call))
    return found


async def test_a_user_is_no_administrator(world: Management, provider: OpenIdProvider) -> None:
    """Valid, and without an admin role: 403 for every call, also where roles are named as ours are. R123 R124."""
    token = provider.token(roles=["dev", "tenant-admin", "operator", "auditor"], groups=["operator"])
    assert await forbidden(world, token) == [str(call) for call in guarded(world)]


async def test_claims_never_give_more_than_a_tenant(world: Management, provider: OpenIdProvider) -> None:
    """An administrator by claims may what the tenant-admin's token may; an auditor reads of that. R123 R274."""
    calls = [str(call) for call in guarded(world)]
    expected = [call for call in calls if not call.startswith("GET ") or call in NOT_FOR_TENANT_ADMINS]
    assert await forbidden(world, provider.token("alan", **AUDITOR)) == expected
    await give_tenant_token(world, "acme")
    expected = await forbidden(world, world.tenant_admin)
    assert expected == [call for call in calls if call in NOT_FOR_TENANT_ADMINS]
    assert await forbidden(world, provider.token("alan", **ADMIN)) == expected


async def test_roles_and_groups_are_put_together(world: Management, provider: OpenIdProvider) -> None:
    """What roles give and what groups give, the strongest of it, as this token says. R274."""
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({"roles": ["api-admin"]}, "tenant-admin"),
        ({"groups": ["/staff/admins"]}, "tenant-admin"),
        ({"groups": ["/staff/audit"]}, "auditor"),
        ({"roles": ["api-admin"], "groups": ["/staff/audit"]}, "tenant-admin"),
        ({"groups": ["/staff/audit", "/staff/admins"]}, "tenant-admin"),
        ({"roles": ["/staff/admins"]}, None),
        ({"groups": ["api-admin"]}, None),
        ({"roles": ["API-ADMIN", "api-admin ", "api"]}, None),
        ({"roles": {"api-admin": True}}, None),
        ({"roles": ["api-admin", 1]}, None),
    ]
    for claims, role in cases:
        mine = await world.expect(200, "GET", "/v1/me", token=provider.token(**claims))
        assert (claims, mine["admin_role"]) == (claims, role)


async def test_a_removed_role_is_gone_with_the_next_token(world: Management, provider: OpenIdProvider) -> None:
    """Nothing is remembered of an earlier sign-in; nor do the roles that the database has of a user count. R274."""
    body = {"tenant_id": "acme", "roles": ["api-admin"], "groups": ["admins"]}
    await world.expect(200, "PUT", "/v1/users/ada", body)
    for claims, status in ((ADMIN, 200), ({}, 403), (AUDITOR, 200), ({"roles": []}, 403)):
        assert (await world.call("GET", "/v1/keys", token=provider.token(**claims))).status == status


async def test_an_administrator_by_claims_manages_the_own_tenant(world: Management, provider: OpenIdProvider) -> None:
    """As a tenant-admin's token: its users and keys; other tenants do not exist. On record is the user. R272 R314."""
    token = provider.token("alan", **ADMIN)
    key = await world.expect(201, "POST", "/v1/keys", {"user_id": "ada", "name": "k", "scopes": ["any"]}, token=token)
    await world.expect(200, "POST", f"/v1/keys/{key['id']}/revoke", {}, token=token)
    far = await world.key(user="olga")
    for call in (
        ("POST", f"/v1/keys/{far['id']}/revoke", {}),
        ("POST", "/v1/keys", {"user_id": "olga", "name": "x"}),
        ("GET", "/v1/tenants/other", None),
    ):
        reply = await world.call(*call, token=token)
        assert (reply.status, reply.code) == (404, "not_found")
    assert (await world.expect(200, "GET", "/v1/keys?tenant_id=other", token=token))["items"] == []
    wanted = {"user_id": "ada", "name": "o", "kind": "operator"}
    assert (await world.call("POST", "/v1/keys", wanted, token=token)).code == "forbidden"
    events = await world.expect(200, "GET", "/v1/audit?actor=alan", token=token)
    assert [(event["action"], event["actor"]) for event in events["items"]] == [
        ("key.create", {"kind": "user", "id": "alan", "name": "Alan"}),
        ("key.revoke", {"kind": "user", "id": "alan", "name": "Alan"}),
    ]
    auditor = provider.token("alan", **AUDITOR)
    assert (await world.expect(200, "GET", "/v1/audit?tenant_id=other", token=auditor))["items"] == []
    assert {event["tenant_id"] for event in (await world.expect(200, "GET", "/v1/audit", token=auditor))["items"]} == {
        "acme"
    }


async def test_an_unknown_address_is_told_to_users(world: Management, provider: OpenIdProvider) -> None:
    """404 and 405 for whoever has signed in, as for admin tokens."""
    assert (await world.call("GET", "/v1/nowhere", token=provider.token())).status == 404
    reply = await world.call("DELETE", "/v1/me", token=provider.token())
    assert (reply.status, reply.headers["Allow"]) == (405, "GET")


async def test_two_authorization_headers_are_refused(world: Management, provider: OpenIdProvider) -> None:
    """Never «the first one wins», also of two good ones. R008."""
    headers = [("Authorization", f"Bearer {provider.token()}"), ("Authorization", f"Bearer {world.operator}")]
    for path, code in (("/v1/me", "sign_in_required"), ("/v1/keys", "invalid_admin_token")):
        async with world.client.get(path, headers=headers) as response:
            assert (response.status, (await response.json())["code"]) == (401, code)


async def test_no_access_token_is_logged(
    world: Management, provider: OpenIdProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither good ones nor bad ones, in whole or in part. R324."""
    tokens = [provider.token(), provider.token(exp=1), provider.token("nobody"), ProviderKey("x").sign({"a": 1})]
    for token in tokens:
        await world.call("GET", "/v1/keys", token=token)
    log = "".join(capsys.readouterr())
    assert log.count("management call refused") == 4
    for token in tokens:
        assert not any(part in log for part in token.split("."))


@pytest.fixture
async def tenanted(postgres_dsn: str, provider: OpenIdProvider) -> AsyncIterator[Management]:
    """The API whose tokens name the tenant."""
    oidc = {"issuer": provider.issuer, "audience": AUDIENCE, "claims": {"user_id": "who", "tenant_id": "org.id"}}
    async with management_over(postgres_dsn, oidc=OidcSettings.model_validate(oidc)) as world:
        await give_tokens(world)
        await world.plant()
        yield world


async def test_the_token_names_the_tenant(tenanted: Management, provider: OpenIdProvider) -> None:
    """Where the claim is configured it must be there, and name the tenant that the database has. R270 R271."""
    cases: list[tuple[Any, int, str | None]] = [
        ({"id": "acme"}, 200, None),
        ({"id": "other"}, 403, "unknown_user"),
        ({"id": "nowhere"}, 403, "unknown_user"),
        ({"id": ["acme"]}, 401, "invalid_token"),
        ({}, 401, "invalid_token"),
        (None, 401, "invalid_token"),
    ]
    for org, status, code in cases:
        reply = await tenanted.call("GET", "/v1/me", token=provider.token("somebody else", who="ada", org=org))
        assert (org, reply.status, reply.code) == (org, status, code)
