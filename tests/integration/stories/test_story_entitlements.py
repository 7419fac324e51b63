"""What a user, a tenant or a plan becomes, their keys follow at the next request on every node, and back again."""

import asyncio
import time
from typing import Any

import pytest

from tests.integration.stories.world import POLL_SECONDS, Key, World, iso

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUND_SECONDS = 2.0


async def family(world: World) -> tuple[Key, str]:
    """A key with a retired secret, both remembered everywhere; and its new secret."""
    key = await world.key()
    second = (await world.rotate(key))["secret"]
    await world.warm(key.secret, second)
    return key, second


async def entitle(world: World, key: Key, *, node: int = 0, **entitlement: Any) -> None:
    path = f"/v1/users/{key.user}/entitlement"
    await world.do("PUT", path, {"plan": "starter", **entitlement}, node=node)


async def plan(world: World, name: str, *, node: int = 0, **body: Any) -> None:
    await world.do("PUT", f"/v1/plans/{name}", body, node=node)


# -- tenants and users


async def test_a_suspended_tenant_and_back(world: World) -> None:
    """Suspending a tenant refuses every kind of credential at once; activating it readmits them all. R104 R242 R279."""
    key, second = await family(world)
    operator = await world.key((key.user, key.tenant), kind="operator")
    neighbour = await world.key()
    await world.warm(operator.secret, neighbour.secret)
    for node in (0, 1):
        await world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "suspended"}, node=node)
        await world.refused("tenant_suspended", key.secret, second, operator.secret)
        await world.warm(key.secret, second, operator.secret)
        await world.refused("tenant_suspended", key.secret, second, operator.secret)
        await world.admitted(neighbour)
        await world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "active"}, node=1 - node)
        await world.admitted(key, key.secret, second)
        await world.admitted(operator)


async def test_a_suspended_user_and_back(world: World) -> None:
    """Suspending a user refuses all secrets of all the user's keys at once, and no one else's; and back. R104 R242."""
    key, second = await family(world)
    other = await world.key((key.user, key.tenant))
    colleague = await world.key(await world.user(key.tenant))
    await world.warm(other.secret, colleague.secret)
    body = {"tenant_id": key.tenant}
    for node in (0, 1):
        await world.do("PUT", f"/v1/users/{key.user}", {**body, "status": "suspended"}, node=node)
        await world.refused("user_suspended", key.secret, second, other.secret)
        await world.warm(key.secret, second, other.secret)
        await world.admitted(colleague)
        await world.do("PUT", f"/v1/users/{key.user}", {**body, "status": "active"}, node=1 - node)
        await world.admitted(key, key.secret, second)
        await world.admitted(other)


async def test_what_a_suspension_hid_is_still_true_after_it(world: World) -> None:
    """A key revoked, or a window ended, while the tenant was suspended stays so when the tenant is back. R104."""
    key, second = await family(world)
    other = await world.key((key.user, key.tenant))
    await world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "suspended"})
    await world.warm(key.secret, second, other.secret)
    retired = (await world.do("GET", f"/v1/keys/{key.id}/retired-secrets"))["items"]
    await world.set_window(retired[0]["id"], time.time())
    await world.revoke(other, node=1)
    await world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "active"})
    await world.refused("key_rotated", key.secret)
    await world.refused("key_revoked", other.secret)
    await world.admitted(key, second)


async def test_a_deleted_user_is_unknown(world: World) -> None:
    """A user's deletion refuses all its secrets at once; a new user of that name has none of them. R103 R242 R273."""
    key, second = await family(world)
    await world.do("DELETE", f"/v1/users/{key.user}", status=204, node=1)
    await world.refused("invalid_api_key", key.secret, second)
    await world.do("PUT", f"/v1/users/{key.user}", {"tenant_id": key.tenant}, status=201)
    heir = Key(key.id, key.secret, key.user, key.tenant)
    await entitle(world, heir)
    await world.refused("invalid_api_key", key.secret, second)
    await world.admitted(await world.key((key.user, key.tenant)))


async def test_a_deleted_tenant_is_unknown(world: World) -> None:
    """A tenant's deletion refuses the secrets of all its users at once, and of no other tenant's. R103 R242."""
    key, second = await family(world)
    colleague = await world.key(await world.user(key.tenant))
    neighbour = await world.key()
    await world.warm(colleague.secret, neighbour.secret)
    await world.do("DELETE", f"/v1/tenants/{key.tenant}", status=204)
    await world.refused("invalid_api_key", key.secret, second, colleague.secret)
    await world.admitted(neighbour)
    assert await world.sql("SELECT count(*) FROM api_keys WHERE tenant_id = $1", key.tenant) == 0


async def test_a_key_is_of_its_own_tenant_whatever_the_client_says(world: World) -> None:
    """The upstream is told the key's tenant and user alone, however the client spells its own claim. R270 R271."""
    key = await world.key()
    other = await world.tenant()
    for spelling in ("X-Tenant-Id", "x-tenant-id", "X_Tenant_Id", "X-TENANT_ID"):
        for answer in await world.ask_all(key.secret, headers={spelling: other, "X-User-Id": "root"}):
            assert answer.arrival is not None
            tenants = [
                value for name, value in answer.arrival.headers if name.lower().replace("_", "-") == "x-tenant-id"
            ]
            assert tenants == [key.tenant]
            assert answer.arrival.all("X-User-Id") == [key.user]


async def test_a_user_moved_in_the_database_moves_with_the_keys(world: World) -> None:
    """A user moved to another tenant in psql is announced as that tenant's, and shares its fate, everywhere. R270."""
    key = await world.key()
    await world.warm(key.secret)
    new = await world.tenant()
    await world.sql("UPDATE users SET tenant_id = $2 WHERE id = $1", key.user, new)
    moved = Key(key.id, key.secret, key.user, new)
    began = time.time()
    while {answer.arrival.header("X-Tenant-Id") for answer in await world.ask_all(key.secret) if answer.arrival} != {
        new
    }:
        assert time.time() < began + BOUND_SECONDS + POLL_SECONDS
    await world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "suspended"})
    await world.admitted(moved)
    await world.do("PATCH", f"/v1/tenants/{new}", {"status": "suspended"})
    await world.refused("tenant_suspended", key.secret)


async def test_names_are_a_tenant_s_own(world: World) -> None:
    """Two tenants have keys of the same name, and revoking one of them leaves the other. R273."""
    key, twin = await world.key(), await world.key()
    for each in (key, twin):
        await world.do("PATCH", f"/v1/keys/{each.id}", {"name": "ci"})
    body = {"user_id": key.user, "name": "ci"}
    assert (await world.api("POST", "/v1/keys", body, node=1)).code == "duplicate_name"
    await world.warm(key.secret, twin.secret)
    await world.revoke(key)
    await world.refused("key_revoked", key.secret)
    await world.admitted(twin)
    await world.do("POST", "/v1/keys", body, node=1, status=201)


# -- entitlements


async def test_no_entitlement_no_keyed_route(world: World) -> None:
    """Without an entitlement every keyed route refuses at once, not only dear ones; given again, all is as was.

    R250 R251 R254 R255.
    """
    key, second = await family(world)
    for node in (0, 1):
        await world.do("DELETE", f"/v1/users/{key.user}/entitlement", node=node, status=204)
        for path in ("/orders", "/payments", "/maybe", "/reports", "/premium", "/.ostiary/whoami"):
            await world.refused("api_access_required", key.secret, second, path=path)
        await world.warm(key.secret, second)
        await entitle(world, key, node=1 - node)
        await world.admitted(key, key.secret, second)


@pytest.mark.parametrize("value", [False, "true", 1, "", 0], ids=repr)
async def test_api_access_is_true_or_it_is_not(world: World, value: object) -> None:
    """`api_access` must be exactly true: nothing that looks like it admits anybody, on any node. R252."""
    key = await world.key()
    await world.warm(key.secret)
    await entitle(world, key, features={"api_access": value}, node=1)
    await world.refused("api_access_required", key.secret)
    await entitle(world, key, features={"api_access": True})
    await world.admitted(key)


async def test_api_access_that_nobody_mentions_is_not_given(world: World) -> None:
    """A plan that does not name `api_access` gives none, however dear it is. R211 R252 R265."""
    key = await world.key()
    await world.warm(key.secret)
    await plan(world, f"dear-{key.user}", tier=9, features={"export": True})
    await entitle(world, key, plan=f"dear-{key.user}")
    await world.refused("api_access_required", key.secret)


async def test_a_subscription_lapses_by_itself_and_is_renewed(world: World) -> None:
    """Every warm node refuses from `valid_until` on; renewed, the same secrets pass at once. R253 R254 R255."""
    key, second = await family(world)
    for node in (0, 1):
        soon = time.time() + 0.6
        await entitle(world, key, valid_until=iso(soon), node=node)
        await world.warm(key.secret, second)
        await asyncio.gather(
            world.ends_at(soon, key.secret, "subscription_lapsed"), world.ends_at(soon, second, "subscription_lapsed")
        )
        await world.remembered(key.secret, second)
        await entitle(world, key, valid_until=iso(time.time() + 60), node=node)
        await world.admitted(key, key.secret, second)


async def test_a_subscription_that_is_ended_is_over(world: World) -> None:
    """A `valid_until` in the past ends it at the next request; none at all has no end. R242 R253."""
    key, second = await family(world)
    for node in (0, 1):
        await entitle(world, key, valid_until=time.time() - 1, node=node)
        await world.refused("subscription_lapsed", key.secret, second)
        await world.remembered(key.secret)
        await entitle(world, key, valid_until=None, node=node)
        await world.admitted(key, key.secret, second)


async def test_operators_keys_need_no_entitlement(world: World) -> None:
    """An operator's key passes without an entitlement, and says what it is; the same user's own key does not. R263."""
    key = await world.key()
    operator = await world.key((key.user, key.tenant), kind="operator")
    await world.warm(key.secret, operator.secret)
    await world.do("DELETE", f"/v1/users/{key.user}/entitlement", status=204)
    await world.refused("api_access_required", key.secret)
    for path in ("/orders", "/premium", "/exports"):
        for answer in await world.admitted(operator, path=path):
            assert answer.arrival is not None
            assert answer.arrival.header("X-Auth-Kind") == "operator"
    await world.revoke(operator)
    await world.refused("key_revoked", operator.secret)


async def test_a_late_writer_does_not_bring_an_entitlement_back(world: World) -> None:
    """What Redis held before an entitlement ended, written after it, convinces no node; nor after renewal. R258."""
    key = await world.key()
    await world.warm(key.secret)
    entitled = await world.entry(key.secret)
    await entitle(world, key, features={"api_access": False})
    assert entitled is not None
    await world.write_entry(key.secret, entitled)
    await world.refused("api_access_required", key.secret)
    await world.warm(key.secret)
    lapsed = await world.entry(key.secret)
    await entitle(world, key, node=1)
    assert lapsed is not None
    await world.write_entry(key.secret, lapsed)
    await world.admitted(key)


async def test_many_changes_at_once_end_as_the_database_has_it(world: World) -> None:
    """However the news of them overtake each other, every node goes by what was committed last. R259 R264."""
    key = await world.key()
    changes = [{"features": {"api_access": number % 3 != 0}} for number in range(12)]
    await asyncio.gather(
        *(entitle(world, key, node=number % 2, **change) for number, change in enumerate(changes)),
        *(world.ask_all(key.secret) for _ in range(12)),
    )
    committed = "SELECT features->>'api_access' = 'true' FROM entitlements WHERE user_id = $1"
    for _ in range(3):
        if await world.sql(committed, key.user):
            await world.admitted(key)
        else:
            await world.refused("api_access_required", key.secret)
        await entitle(world, key, features={"api_access": not await world.sql(committed, key.user)})


# -- plans


async def test_a_plan_s_tier_acts_on_all_who_have_it(world: World) -> None:
    """A plan's tier, lowered, closes a dear route for all its users at once, and no others; and back. R260 R264."""
    key = await world.key()
    colleague = await world.key(await world.user(key.tenant))
    outsider = await world.key()
    mine, theirs = f"mine-{key.user}", f"theirs-{key.user}"
    for name in (mine, theirs):
        await plan(world, name, tier=2, features={"api_access": True})
    for each, name in ((key, mine), (colleague, mine), (outsider, theirs)):
        await entitle(world, each, plan=name)
        await world.warm(each.secret)
        await world.admitted(each, path="/premium")
    for node in (0, 1):
        await plan(world, mine, tier=1, features={"api_access": True}, node=node)
        for answer in await world.refused("upgrade_required", key.secret, colleague.secret, path="/premium"):
            said = {name: answer.body[name] for name in ("required_tier", "current_tier", "plan")}
            assert said == {"required_tier": 2, "current_tier": 1, "plan": mine}
        await world.admitted(key)
        await world.admitted(outsider, path="/premium")
        await plan(world, mine, tier=2, features={"api_access": True}, node=1 - node)
        await world.admitted(key, path="/premium")
        await world.admitted(colleague, path="/premium")


async def test_a_plan_s_features_act_on_all_who_have_it(world: World) -> None:
    """A feature, or API access itself, taken out of a plan is gone at once; a user's override keeps it. R252 R264."""
    key = await world.key()
    exempt = await world.key(await world.user(key.tenant))
    name = f"plan-{key.user}"
    full: dict[str, Any] = {"features": {"api_access": True, "export": True}}
    await plan(world, name, **full)
    await entitle(world, key, plan=name)
    await entitle(world, exempt, plan=name, features={"api_access": True, "export": True})
    for node in (0, 1):
        await world.warm(key.secret, exempt.secret)
        await world.admitted(key, path="/exports")
        await plan(world, name, features={"api_access": True, "export": False}, node=node)
        for answer in await world.refused("upgrade_required", key.secret, path="/exports"):
            assert answer.body["missing_features"] == ["export"]
        await world.admitted(exempt, path="/exports")
        await plan(world, name, features={}, node=node)
        await world.refused("api_access_required", key.secret)
        await world.admitted(exempt, path="/exports")
        await plan(world, name, **full, node=1 - node)
        await world.admitted(key, path="/exports")


async def test_a_change_of_plan_acts_at_once(world: World) -> None:
    """A user given another plan is told upstream with it, and may what it allows, at the next request. R264."""
    key = await world.key()
    dear = f"dear-{key.user}"
    await plan(world, dear, tier=2, features={"api_access": True})
    await world.warm(key.secret)
    for node in (0, 1):
        await world.refused("upgrade_required", key.secret, path="/premium")
        await entitle(world, key, plan=dear, node=node)
        for answer in await world.admitted(key, path="/premium"):
            assert answer.arrival is not None
            assert answer.arrival.header("X-Plan") == dear
        await entitle(world, key, plan="starter", node=node)


async def test_an_upgrade_refuses_nobody_on_its_way(world: World) -> None:
    """What both plans cover is served throughout, while the user goes up and down between them. R262 R264."""
    key = await world.key()
    dear = f"dear-{key.user}"
    await plan(world, dear, tier=2, features={"api_access": True})
    is_over = asyncio.Event()

    async def ask() -> int:
        count = 0
        while not is_over.is_set():
            await world.admitted(key)
            count += 1
        return count

    asking = asyncio.gather(ask(), ask())
    for node in (0, 1, 0, 1):
        await entitle(world, key, plan=dear, node=node)
        await entitle(world, key, plan="starter", node=1 - node)
    is_over.set()
    assert min(await asking) > 4


async def test_edits_typed_into_psql_act_too(world: World) -> None:
    """What anybody types into psql about users, tenants, plans or entitlements acts on every node within the bound.

    R104 R242 R255 R264.
    """
    keys = [await world.key() for _ in range(6)]
    name = f"plan-{keys[0].user}"
    await plan(world, name, features={"api_access": True})
    await entitle(world, keys[5], plan=name)
    await world.warm(*(key.secret for key in keys))
    edits = [
        ("tenant_suspended", "UPDATE tenants SET status = 'suspended' WHERE id = $1", keys[0].tenant),
        ("user_suspended", "UPDATE users SET status = 'suspended' WHERE id = $1", keys[1].user),
        ("invalid_api_key", "DELETE FROM users WHERE id = $1", keys[2].user),
        ("api_access_required", "DELETE FROM entitlements WHERE user_id = $1", keys[3].user),
        ("subscription_lapsed", "UPDATE entitlements SET valid_until = now() WHERE user_id = $1", keys[4].user),
        ("api_access_required", "UPDATE plans SET features = '{}' WHERE name = $1", name),
    ]

    async def edit(key: Key, code: str, statement: str, value: str) -> None:
        await world.sql(statement, value)
        await world.refused_within(BOUND_SECONDS + POLL_SECONDS, code, key.secret)

    await asyncio.gather(*(edit(key, *what) for key, what in zip(keys, edits, strict=True)))
