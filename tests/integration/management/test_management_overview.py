"""What people look for and at: users by how they begin, the trail from its end, nodes and signing keys."""

import pytest

from tests.integration.management.world import Management


@pytest.fixture
async def crowd(management: Management) -> Management:
    """Users with ids and names that begin alike, in two tenants."""
    for user_id, tenant_id, name in (
        ("eve.1", "acme", "Eve Adams"),
        ("eve.2", "acme", "EVELYN"),
        ("evx", "acme", "Zoe"),
        ("zed", "acme", "eve%"),
        ("zoe", "other", "Eve of the Others"),
    ):
        await management.expect(201, "PUT", f"/v1/users/{user_id}", {"tenant_id": tenant_id, "display_name": name})
    return management


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("eve", ["eve.1", "eve.2", "zed", "zoe"]),
        ("EVE", ["eve.1", "eve.2", "zed", "zoe"]),
        ("eve%25", ["zed"]),
        ("eve.2", ["eve.2"]),
        ("ve", []),
        ("_", []),
        ("z", ["evx", "zed", "zoe"]),
    ],
)
async def test_users_are_found_by_how_they_begin(crowd: Management, search: str, found: list[str]) -> None:
    """By id, or by name in letters of either case; no sign in it means more than itself."""
    page = await crowd.expect(200, "GET", f"/v1/users?search={search}")
    assert [user["id"] for user in page["items"]] == found
    page = await crowd.expect(200, "GET", f"/v1/users?search={search}", token="tenant_admin")
    assert [user["id"] for user in page["items"]] == [user_id for user_id in found if user_id != "zoe"]


async def test_what_is_found_comes_in_pages(crowd: Management) -> None:
    """Each found user once, in the order of ids."""
    ids, cursor = [], ""
    while cursor is not None:
        page = await crowd.expect(200, "GET", f"/v1/users?search=eve&limit=1{cursor and f'&cursor={cursor}'}")
        ids += [user["id"] for user in page["items"]]
        cursor = page["next_cursor"]
    assert ids == ["eve.1", "eve.2", "zed", "zoe"]


async def test_the_trail_is_read_from_its_end(management: Management) -> None:
    """`order=latest` is the same trail backwards, by pages, with the same filters. R110."""
    for number in range(5):
        await management.expect(200, "PATCH", "/v1/tenants/acme", {"name": f"Acme {number}"})
    forwards = (await management.expect(200, "GET", "/v1/audit?target=tenant:acme"))["items"]
    backwards, cursor = [], ""
    while cursor is not None:
        query = f"target=tenant:acme&order=latest&limit=2{cursor and f'&cursor={cursor}'}"
        page = await management.expect(200, "GET", f"/v1/audit?{query}")
        backwards += page["items"]
        cursor = page["next_cursor"]
    assert backwards == forwards[::-1]
    assert len(backwards) >= 5


async def test_signing_keys_are_listed_without_their_private_parts(management: Management) -> None:
    """By operators and auditors, of this environment alone."""
    for key_id, environment, state in (("sig_a", "test", "current"), ("sig_b", "test", "next"), ("sig_c", "x", "next")):
        await management.execute(
            "INSERT INTO signing_keys (id, environment, state, public_key, sealed_key) VALUES ($1, $2, $3, $4, $5)",
            key_id,
            environment,
            state,
            bytes(32),
            bytes(60),
        )
    for token in ("operator", "auditor"):
        page = await management.expect(200, "GET", "/v1/signing-keys", token=token)
        assert {row["id"]: row["state"] for row in page["items"]} == {"sig_a": "current", "sig_b": "next"}
        assert set(page["items"][0]) == {"id", "state", "created_at", "activated_at", "replaced_at", "retired_at"}
