"""Admission over stores in memory: who answers, for how long, and what a change does to it."""

from typing import Any

import pytest

from gateway.auth.admission import ANONYMOUS
from gateway.auth.credentials import AMBIGUOUS, INVALID, Credential
from gateway.auth.held import NEGATIVE_ENTRIES
from gateway.auth.principal import AuthKind
from gateway.auth.refusal import Reason, Refusal
from gateway.auth.secrets import Peppers
from gateway.auth.verdict import Access
from gateway.stores.records import Finding, SecretState
from tests.fixtures.admission_world import (
    EPOCH,
    NEGATIVE_TTL_SECONDS,
    REQUIRED,
    TTL_SECONDS,
    World,
    credential,
    settle,
)

OPTIONAL = Access("optional")
OPEN = Access("none")


# -- without a lookup


@pytest.mark.parametrize("presented", [None, INVALID, AMBIGUOUS, credential("a")])
def test_an_open_route_asks_for_nothing(presented: Credential | Refusal | None) -> None:
    """Whatever credential comes with a request to an open route, it is not looked at. R016."""
    world = World()
    assert world.admission.admit(presented, OPEN) is ANONYMOUS


@pytest.mark.parametrize(
    ("presented", "access", "reason"),
    [
        pytest.param(None, REQUIRED, Reason.MISSING_API_KEY, id="R003 none where one is wanted"),
        pytest.param(INVALID, REQUIRED, Reason.INVALID_API_KEY, id="R006 malformed"),
        pytest.param(AMBIGUOUS, REQUIRED, Reason.AMBIGUOUS_CREDENTIALS, id="R009 two"),
        pytest.param(INVALID, OPTIONAL, Reason.INVALID_API_KEY, id="R010 malformed is not none"),
        pytest.param(AMBIGUOUS, OPTIONAL, Reason.AMBIGUOUS_CREDENTIALS, id="R010 two are not none"),
    ],
)
def test_what_needs_no_lookup_is_refused_without_one(presented: Refusal | None, access: Access, reason: Reason) -> None:
    """An absent, malformed or double credential is decided without asking any store. R003 R006 R009 R010."""
    world = World()
    decision = world.admission.admit(presented, access)
    assert isinstance(decision, Refusal)
    assert decision.reason is reason
    assert (world.shared.questions, world.truth.questions) == ([], [])


async def test_an_optional_route_admits_nobody_and_somebody_but_not_a_wrong_key() -> None:
    """A key may be missing there, not wrong. R010."""
    world = World()
    assert world.admission.admit(None, OPTIONAL) is ANONYMOUS
    assert await world.outcome(world.plant("a"), OPTIONAL) == "admitted key-a"
    assert await world.outcome(credential("b"), OPTIONAL) == "invalid_api_key"


# -- the order of the tiers


async def test_a_warm_key_asks_nobody() -> None:
    """Once looked up, a key is admitted by this process alone. R042."""
    world = World()
    key = world.plant("a")
    await world.decide(key)
    world.shared.questions.clear()
    world.truth.questions.clear()
    for _ in range(1000):
        decision = world.admission.admit(key, REQUIRED)
        assert decision is not None
        assert not isinstance(decision, Refusal)
    assert (world.shared.questions, world.truth.questions) == ([], [])
    assert world.counted("key", "local", "admitted") == 1000
    assert world.counted("key", "postgres", "admitted") == 1


async def test_the_shared_cache_is_asked_before_the_truth() -> None:
    """What another node has found spares the truth a question; it is then remembered here. R041."""
    world = World()
    key = world.plant("a")
    world.shared.findings[key.digest] = Finding(1, (key.digest,), world.truth.records[key.digest])
    assert await world.outcome(key) == "admitted key-a"
    assert world.truth.questions == []
    assert await world.outcome(key) == "admitted key-a"
    assert world.shared.questions == [key.digest]
    assert (world.counted("key", "redis", "admitted"), world.counted("key", "local", "admitted")) == (1, 1)


async def test_what_the_truth_says_is_left_for_the_others() -> None:
    """A finding goes into the shared cache with its lifetime, an absence with a shorter one. R041 R046."""
    world = World()
    key = world.plant("a")
    await world.decide(key)
    await world.decide(credential("nobody"))
    await settle()
    assert [(digest, seconds) for digest, _, seconds in world.shared.puts] == [
        (key.digest, TTL_SECONDS),
        (credential("nobody").digest, NEGATIVE_TTL_SECONDS),
    ]


async def test_a_retired_secret_is_the_same_caller_and_is_told_apart_in_the_metrics() -> None:
    """Only the tier says that the truth had to look among the retired secrets. R028 R041."""
    world = World()
    current = await world.decide(world.plant("a"))
    retired = await world.decide(world.plant("b", key_id="key-a", secret_state=SecretState.RETIRED))
    assert not isinstance(current, Refusal)
    assert not isinstance(retired, Refusal)
    assert current.principal is not None
    assert retired.principal is not None
    assert current.principal.identity == retired.principal.identity
    assert world.counted("key", "retired", "admitted") == 1


async def test_every_pepper_is_tried() -> None:
    """The truth is asked for all stored forms that the secret may have, at once. R040."""
    peppers = Peppers([b"n" * 32, b"o" * 32])
    world = World(peppers=peppers)
    await world.decide(credential("a"))
    assert world.truth.questions == [peppers.candidates(credential("a").digest)]


async def test_without_a_shared_cache_the_truth_is_asked() -> None:
    """A node without Redis decides alike. R057."""
    world = World(has_shared=False)
    assert await world.outcome(world.plant("a")) == "admitted key-a"
    assert await world.outcome(credential("b")) == "invalid_api_key"


async def test_another_environments_key_is_unknown_here() -> None:
    """A record of another environment admits nobody, wherever it came from. R011 R053."""
    world = World()
    key = world.plant("a", environment="prod")
    world.shared.findings[credential("b").digest] = Finding(1, (key.digest,), world.truth.records[key.digest])
    assert await world.outcome(key) == "invalid_api_key"
    assert await world.outcome(credential("b")) == "invalid_api_key"


# -- how long something is believed


async def test_an_entry_is_looked_up_again_after_its_time() -> None:
    """Warm up to its time, and not a moment longer; reading it does not extend it. R043."""
    world = World()
    key = world.plant("a")
    await world.decide(key)
    world.clock.now += TTL_SECONDS - 0.001
    assert world.admission.admit(key, REQUIRED) is not None
    world.clock.now += 0.001
    assert world.admission.admit(key, REQUIRED) is None
    world.shared.findings.clear()
    assert await world.outcome(key) == "admitted key-a"
    assert len(world.truth.questions) == 2


async def test_an_unknown_key_is_asked_for_once_in_its_time() -> None:
    """The second request with an unknown key asks nobody; after the time the truth is asked again. R046."""
    world = World(has_shared=False)
    for _ in range(3):
        assert await world.outcome(credential("nobody")) == "invalid_api_key"
    world.clock.now += NEGATIVE_TTL_SECONDS - 0.001
    assert await world.outcome(credential("nobody")) == "invalid_api_key"
    assert len(world.truth.questions) == 1
    world.clock.now += 0.001
    assert await world.outcome(credential("nobody")) == "invalid_api_key"
    assert len(world.truth.questions) == 2


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        pytest.param({"is_revoked": True}, "key_revoked", id="revoked"),
        pytest.param({"is_tenant_active": False}, "tenant_suspended", id="tenant suspended"),
        pytest.param({"is_user_active": False}, "user_suspended", id="user suspended"),
        pytest.param({"plan": None, "tier": 0, "features": {}}, "api_access_required", id="no entitlement"),
        pytest.param({"features": {"api_access": False}}, "api_access_required", id="no access"),
        pytest.param({"features": {"api_access": "true"}}, "api_access_required", id="access of a wrong type"),
        pytest.param({"features": {"api_access": 1}}, "api_access_required", id="access that is merely truthy"),
        pytest.param({"is_revoked": True, "is_tenant_active": False}, "key_revoked", id="revoked comes first"),
    ],
)
async def test_what_bars_a_key_is_a_refusal_and_never_an_outage(facts: dict[str, Any], reason: str) -> None:
    """A confirmed reason against a key is told, kept as shortly as an absence, and asked for again. R046 R074."""
    world = World(has_shared=False)
    key = world.plant("a", **facts)
    assert await world.outcome(key) == reason
    assert await world.outcome(key) == reason
    assert len(world.truth.questions) == 1
    world.clock.now += NEGATIVE_TTL_SECONDS
    assert world.admission.admit(key, REQUIRED) is None


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("key_expires_at", "key_expired"),
        ("secret_expires_at", "key_rotated"),
        ("entitlement_valid_until", "subscription_lapsed"),
    ],
)
async def test_a_deadline_holds_on_every_hit(end: str, reason: str) -> None:
    """Up to its end a key is admitted, at its end it is refused, however warm it is. R045, R094, R383."""
    world = World()
    end_at = world.clock.now + 30.0
    key = world.plant("a", **{end: EPOCH + end_at})
    assert await world.outcome(key) == "admitted key-a"
    world.clock.now = end_at - 0.001
    assert await world.outcome(key) == "admitted key-a"
    world.clock.now = end_at
    assert await world.outcome(key) == reason
    assert len(world.truth.questions) == 1
    assert world.counted("key", "local", reason) == 1


@pytest.mark.parametrize("end", ["key_expires_at", "secret_expires_at", "entitlement_valid_until"])
async def test_a_deadline_holds_for_what_comes_from_outside(end: str) -> None:
    """An end that has passed refuses also when the record is fresh from the truth or the shared cache. R045 R094."""
    world = World()
    key = world.plant("a", **{end: EPOCH + world.clock.now})
    assert (await world.outcome(key)).startswith(("key_", "subscription_"))
    other = world.plant("b", **{end: EPOCH + world.clock.now})
    world.shared.findings[other.digest] = Finding(1, (other.digest,), world.truth.records[other.digest])
    assert (await world.outcome(other)).startswith(("key_", "subscription_"))
    assert len(world.truth.questions) == 1


async def test_the_first_of_several_deadlines_counts() -> None:
    """Whichever end comes first gives the reason. R045."""
    world = World()
    now = EPOCH + world.clock.now
    key = world.plant("a", key_expires_at=now + 20, secret_expires_at=now + 10, entitlement_valid_until=now + 30)
    await world.decide(key)
    world.clock.now += 15
    assert await world.outcome(key) == "key_rotated"


async def test_nothing_is_left_for_others_beyond_its_end() -> None:
    """In the shared cache too, an entry lives no longer than its key or its grace window. R044."""
    world = World()
    now = EPOCH + world.clock.now
    await world.decide(world.plant("a", key_expires_at=now + 7))
    await world.decide(world.plant("b", secret_expires_at=now + 8))
    await world.decide(world.plant("c", key_expires_at=now + 1000))
    await world.decide(world.plant("d", key_expires_at=now - 1))
    await settle()
    assert [(finding.record and finding.record.key_id, seconds) for _, finding, seconds in world.shared.puts] == [
        ("key-a", 7.0),
        ("key-b", 8.0),
        ("key-c", TTL_SECONDS),
    ]


async def test_an_operators_key_asks_for_no_entitlement() -> None:
    """Operator keys work without one, and past its end; users' keys never do. R013."""
    world = World()
    facts: dict[str, Any] = {"features": {}, "plan": None, "entitlement_valid_until": EPOCH}
    assert await world.outcome(world.plant("a", key_kind="operator", **facts)) == "admitted key-a"
    assert await world.outcome(world.plant("b", key_kind="user", **facts)) == "api_access_required"
    assert await world.outcome(world.plant("c", key_kind="something new", **facts)) == "api_access_required"
    assert world.counted(AuthKind.OPERATOR, "postgres", "admitted") == 1


# -- what a change does


async def test_a_key_created_after_it_was_probed_works_at_once() -> None:
    """The memory of an absence ends with the key's creation. R061."""
    world = World()
    assert await world.outcome(credential("a")) == "invalid_api_key"
    await settle()
    world.change("a")
    assert await world.outcome(credential("a")) == "admitted key-a"


@pytest.mark.parametrize(
    ("subject", "facts", "reason"),
    [
        ("key:key-a", {"is_revoked": True}, "key_revoked"),
        ("user:u", {"is_user_active": False}, "user_suspended"),
        ("tenant:t", {"is_tenant_active": False}, "tenant_suspended"),
        ("plan:starter", {"features": {}}, "api_access_required"),
    ],
)
async def test_a_change_of_anything_behind_a_key_ends_what_is_remembered(
    subject: str, facts: dict[str, Any], reason: str
) -> None:
    """Key, user, tenant and plan: a change of each is seen by the next request, in every tier. R231."""
    world = World()
    key = world.plant("a")
    assert await world.outcome(key) == "admitted key-a"
    await settle()
    world.commit("a", **facts)
    world.tell(subject)
    assert await world.outcome(key) == reason


async def test_a_change_of_something_else_ends_nothing() -> None:
    """Only what hangs on the changed subject is looked up again."""
    world = World()
    key = world.plant("a")
    await world.decide(key)
    world.change("b")
    assert world.admission.admit(key, REQUIRED) is not None


async def test_a_shared_entry_older_than_a_change_is_not_used() -> None:
    """A writer that was late, or a Redis that came back with old contents, brings nothing back. R231."""
    world = World()
    key = world.plant("a")
    old = Finding(1, (key.digest,), world.truth.records[key.digest])
    world.change("a", is_revoked=True)
    world.shared.findings[key.digest] = old
    assert await world.outcome(key) == "key_revoked"
    assert world.counted("key", "redis", "admitted") == 0


async def test_what_was_found_last_counts() -> None:
    """A lookup may run ahead of the news: the older verdict is gone with it, not only once the news arrive. R231."""
    world = World(has_shared=False)
    key = world.plant("a")
    await world.decide(key)
    world.commit("a", is_revoked=True)
    world.clock.now += TTL_SECONDS
    assert await world.outcome(key) == "key_revoked"
    assert await world.outcome(key) == "key_revoked"
    world.commit("a", is_revoked=False)
    world.clock.now += NEGATIVE_TTL_SECONDS
    assert await world.outcome(key) == "admitted key-a"
    assert await world.outcome(key) == "admitted key-a"


async def test_all_can_be_forgotten() -> None:
    """A node that has lost its place starts from nothing, good and bad alike. R237."""
    world = World(has_shared=False)
    key = world.plant("a")
    await world.decide(key)
    await world.decide(credential("nobody"))
    world.admission.forget_all()
    assert world.admission.admit(key, REQUIRED) is None
    assert world.admission.admit(credential("nobody"), REQUIRED) is None


# -- what a caller may do


@pytest.mark.parametrize(
    ("access", "facts", "expected"),
    [
        pytest.param(Access("required", frozenset({"orders:read"})), {}, "admitted key-a", id="scope"),
        pytest.param(Access("required", frozenset({"orders:write"})), {}, "insufficient_scope", id="no scope"),
        pytest.param(Access("required", features=frozenset({"export"})), {}, "upgrade_required", id="no feature"),
        pytest.param(
            Access("required", features=frozenset({"export"})),
            {"features": {"api_access": True, "export": "yes"}},
            "upgrade_required",
            id="feature that is not true",
        ),
        pytest.param(Access("required", tier=1), {}, "admitted key-a", id="tier"),
        pytest.param(Access("required", tier=2), {}, "upgrade_required", id="lower tier"),
        pytest.param(
            Access("required", frozenset({"orders:write"}), tier=9),
            {"key_kind": "operator"},
            "insufficient_scope",
            id="an operator needs the scope",
        ),
        pytest.param(Access("required", tier=9), {"key_kind": "operator"}, "admitted key-a", id="and no tier"),
    ],
)
async def test_a_route_asks_for_more_than_a_key(access: Access, facts: dict[str, Any], expected: str) -> None:
    """Scopes, features and tier are judged per route, warm and cold alike. R009 R074."""
    world = World()
    key = world.plant("a", **facts)
    assert await world.outcome(key, access) == expected
    assert await world.outcome(key, access) == expected
    assert len(world.truth.questions) == 1


# -- how much is remembered


@pytest.mark.threat("flood of unknown keys")
async def test_a_flood_of_unknown_keys_drives_out_no_known_one() -> None:
    """Absences are kept apart and in bounds; so are the known keys. R060."""
    world = World(has_shared=False, local_entries=3)
    known = [world.plant(name) for name in "abc"]
    for key in known:
        await world.decide(key)
    first = credential("unknown 0")
    for number in range(NEGATIVE_ENTRIES + 1):
        await world.decide(credential(f"unknown {number}"))
    assert all(world.admission.admit(key, REQUIRED) is not None for key in known)
    assert world.admission.admit(first, REQUIRED) is None
    await world.decide(world.plant("d"))
    assert world.admission.admit(known[0], REQUIRED) is None
    assert await world.outcome(known[0]) == "admitted key-a"
