"""What admission would say, told without leaving a trace: by what it holds, and where the stores cannot tell."""

import pytest

from gateway.auth.admission import Admitted
from gateway.auth.credentials import Credential
from gateway.auth.explanation import Hearing, Hearings
from gateway.auth.refusal import Refusal
from gateway.auth.secrets import Peppers
from gateway.errors import Outage, StoreUnavailable
from gateway.stores.records import Finding
from tests.fixtures.admission_world import EPOCH, NAMES, REQUIRED, KnownView, MemoryTruth, World


class ToldView(KnownView):
    """A view that can be looked at."""

    is_fresh = True
    age_seconds = 0.5

    def to_database(self, monotonic: float) -> float:
        return monotonic + EPOCH


class NamedTruth(MemoryTruth):
    """Records that can be found by their key as well."""

    async def find_key(self, key_id: str) -> Finding:
        await self.trouble.meet()
        record = next((record for record in self.records.values() if record.key_id == key_id), None)
        return Finding(self.revision, (), record)

    async def is_used(self, token_id: str) -> bool:
        await self.trouble.meet()
        return token_id in self.used


class Court:
    """A node, and hearings before what is apart from it."""

    def __init__(self, peppers: Peppers | None = None) -> None:
        view = ToldView()
        self.world = World(view=view, peppers=peppers)
        self.truth = NamedTruth()
        self.truth.records = self.world.truth.records
        self.hearings = Hearings(
            self.world.admission,
            view=view,
            truth=self.truth,
            shared=self.world.shared,
            judge=None,
            names=NAMES,
            environment="test",
            monotonic=self.world.clock.monotonic,
            candidates=(peppers or Peppers()).candidates,
        )

    async def verdict(self, hearing: Hearing, presented: Credential) -> str:
        """What the admission apart decides."""
        try:
            decision = hearing.admission.admit(presented, REQUIRED)
            if decision is None:
                decision = await hearing.admission.resolve(presented, REQUIRED)
        except Outage:
            return "outage"
        finally:
            await hearing.admission.close()
        return decision.reason.value if isinstance(decision, Refusal) else "admitted"


async def test_a_hearing_leaves_no_trace() -> None:
    """Nothing is held, shared or counted afterwards that was not before; the stores are asked by the court alone."""
    court = Court()
    presented = court.world.plant("a")
    hearing = await court.hearings.of(presented)
    assert await court.verdict(hearing, presented) == "admitted"
    assert (hearing.tier, hearing.is_admitted) == ("postgres", True)
    assert court.world.admission.held(presented.digest) is None
    assert (court.world.shared.puts, court.world.truth.questions) == ([], [])
    assert court.world.counted("key", "postgres", "admitted") == 0


async def test_what_the_node_holds_decides() -> None:
    """Its entry is judged as it is, also where the store says something else by now; it stays as it was."""
    court = Court()
    presented = court.world.plant("a")
    await court.world.outcome(presented)
    before = court.world.admission.held(presented.digest)
    assert before is not None
    court.world.clock.now += 7
    court.world.commit("a", is_revoked=True)
    hearing = await court.hearings.of(presented)
    assert await court.verdict(hearing, presented) == "admitted"
    assert hearing.tier == "local"
    told = hearing.cache()["local"]
    assert (told["says"], told["age_seconds"]) == ("admitted", 7)
    assert court.world.admission.held(presented.digest) is before
    outcomes = {rule.code: rule.is_kept for rule in hearing.rules(REQUIRED)}
    assert outcomes["key_revoked"] is False
    decision = hearing.admission.admit(presented, REQUIRED)
    assert isinstance(decision, Admitted)
    verdict = before.verdict
    assert isinstance(verdict, Admitted)
    assert decision.principal == verdict.principal
    assert decision.principal is not verdict.principal  # what is signed about one is not kept with the other


async def test_looking_makes_nothing_younger() -> None:
    """What nobody uses goes first, however often it is explained."""
    court = Court()
    court.world = small = World(view=ToldView(), local_entries=2)
    court.hearings.admission = small.admission
    first, second, third = (small.plant(name) for name in "abc")
    for presented in (first, second):
        await small.outcome(presented)
    await court.hearings.of(first)
    await small.outcome(third)
    assert small.admission.held(first.digest) is None
    assert small.admission.held(second.digest) is not None


async def test_where_the_stores_cannot_tell() -> None:
    """What is held decides, and what is not held is an outage; no rule is told that nobody knows of."""
    court = Court()
    known, unknown = court.world.plant("a"), court.world.plant("b")
    await court.world.outcome(known)
    court.truth.trouble.error = StoreUnavailable("Postgres: away")
    court.world.shared.findings.clear()
    hearing = await court.hearings.of(known)
    assert await court.verdict(hearing, known) == "admitted"
    assert hearing.cache()["postgres"] == {"is_away": True}
    assert hearing.rules(REQUIRED) == []
    hearing = await court.hearings.of(unknown)
    assert await court.verdict(hearing, unknown) == "outage"
    assert not hearing.is_admitted
    found = await court.hearings.of_key("key-a")
    assert found is not None
    assert await court.verdict(found[1], found[0]) == "admitted"
    with pytest.raises(StoreUnavailable):
        await court.hearings.of_key("key-b")


@pytest.mark.parametrize("peppers", [Peppers(), Peppers([b"p" * 32])])
async def test_a_key_by_its_id(peppers: Peppers) -> None:
    """Cold by what the store says, warm by what the node holds, whatever the stored form of its secret is."""
    court = Court(peppers)
    presented = court.world.plant("a", scopes=("x",))
    record = court.world.truth.records.pop(presented.digest)
    court.world.truth.records[peppers.stored_form(presented.digest)] = record
    for tier in ("postgres", "local"):
        found = await court.hearings.of_key("key-a")
        assert found is not None
        assert await court.verdict(found[1], found[0]) == "admitted"
        assert found[1].tier == tier
        subject = found[1].subject()
        assert subject is not None
        assert (subject["key_id"], subject["secret"]) == ("key-a", "current")
        await court.world.outcome(presented)
    assert await court.hearings.of_key("key-nobody") is None
