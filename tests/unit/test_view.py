"""The view by itself: tables and short stories in time that stands still (docs/consistency.md)."""

from dataclasses import replace
from math import inf

import pytest

from gateway.consistency.view import MUTE_SECONDS, View
from gateway.stores.postgres.revisions import SKIP, PollAnswer
from gateway.stores.records import Invalidation
from tests.fixtures.simulated_time import FakeClock

BOUND = 2.0
RETENTION = 60.0
DATABASE_TIME = 1_700_000_000.0


class Story:
    """A view, its clock, and what its listeners were told."""

    def __init__(self, *, is_push_enough: bool = True) -> None:
        self.clock = FakeClock()
        self.view = View(self.clock, bound_seconds=BOUND, retention_seconds=RETENTION, is_push_enough=is_push_enough)
        self.evicted: list[tuple[list[str], int]] = []
        self.resets = 0
        self.view.listen(on_invalidated=lambda subjects, revision: self.evicted.append((subjects, revision)))
        self.view.listen(on_reset=self._count)

    def _count(self) -> None:
        self.resets += 1

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def answer(self, revision: int, *subjects: tuple[int, str], pruned_to: int = 1) -> PollAnswer:
        invalidations = tuple(Invalidation(number, subject) for number, subject in subjects)
        return PollAnswer(revision, pruned_to, DATABASE_TIME + self.clock.now, invalidations)

    def poll(self, revision: int, *subjects: tuple[int, str], pruned_to: int = 1) -> int:
        return self.view.apply_poll(self.answer(revision, *subjects, pruned_to=pruned_to), self.view.ask())

    def push(self, last: int, *subjects: tuple[int, str]) -> None:
        self.view.apply_push(last, [Invalidation(number, subject) for number, subject in subjects])

    def register(self) -> None:
        self.view.registered(self.clock.now)

    def pong(self, *, sent_ago: float = 0.0) -> None:
        self.view.apply_pong(self.clock.now - sent_ago)


@pytest.fixture
def story() -> Story:
    """A view that is registered and has heard that all is as of revision 10."""
    story = Story()
    story.register()
    story.view.apply_start(story.answer(10, pruned_to=10), story.view.ask())
    return story


@pytest.fixture
def subscribed(story: Story) -> Story:
    """The same, with a subscription whose pongs count."""
    story.view.push_confirmed(story.clock.now)
    story.wait(0.1)
    story.poll(10)
    return story


def test_a_new_view_trusts_nothing() -> None:
    """Before the first answer nothing is fresh, and every deadline has passed. R237."""
    view = Story().view
    assert view.fresh_until == 0.0
    assert not view.is_fresh
    assert view.age_seconds == inf
    assert view.to_monotonic(4e9) == -inf
    assert view.needs_registration


def test_freshness_counts_from_the_sending(story: Story) -> None:
    """What was asked 1.5 s ago is 1.5 s old when it arrives. R237."""
    question = story.view.ask()
    sent_at = story.clock.now
    story.wait(1.5)
    story.view.apply_poll(story.answer(10), question)
    assert story.view.fresh_until == sent_at + BOUND
    assert story.view.age_seconds == 1.5
    story.wait(0.5)
    assert not story.view.is_fresh


def test_a_poll_sent_before_the_registration_makes_nothing_fresh() -> None:
    """A node that no writer counts is not fresh: a change would be answered without it. R232."""
    story = Story()
    question = story.view.ask()
    story.wait(0.1)
    story.register()
    story.view.apply_start(story.answer(10), question)
    assert story.view.revision == 10
    assert not story.view.is_fresh
    story.poll(10)
    assert story.view.is_fresh


@pytest.mark.parametrize(
    ("stamp", "subjects", "is_usable"),
    [
        pytest.param(11, ("key:a",), False, id="older than a change of its key"),
        pytest.param(12, ("key:a",), True, id="read in the very snapshot of the change"),
        pytest.param(13, ("key:a",), True, id="younger"),
        pytest.param(11, ("key:b", "user:u"), True, id="of other subjects"),
        pytest.param(11, ("key:b", "key:a"), False, id="one of several subjects changed"),
        pytest.param(9, ("key:b",), False, id="below the floor"),
        pytest.param(10, ("key:b",), True, id="at the floor"),
        pytest.param(99, ("key:a",), True, id="from a lookup ahead of the view"),
    ],
)
def test_what_is_usable(story: Story, stamp: int, subjects: tuple[str, ...], is_usable: bool) -> None:
    """An entry is judged by its stamp against what is known of its subjects. R231."""
    story.poll(12, (11, "key:other"), (12, "key:a"))
    assert story.view.is_usable(stamp, subjects) is is_usable


def test_all_voids_everything(story: Story) -> None:
    """A truncated table leaves nothing usable that is older."""
    story.poll(11, (11, "all:"))
    assert story.resets == 2  # the first was the start
    assert not story.view.is_usable(10, ("key:a",))
    assert story.view.is_usable(11, ("key:a",))


def test_the_floor_of_a_restarted_node(story: Story) -> None:
    """What Redis holds stays usable over a restart, as far back as invalidations are retained."""
    story.view.apply_start(
        story.answer(20, (17, "key:a"), (18, "key:b"), (20, "key:c"), pruned_to=16), story.view.ask()
    )
    assert not story.view.is_usable(15, ("key:z",))
    assert story.view.is_usable(16, ("key:z",))
    assert not story.view.is_usable(16, ("key:a",))
    assert story.view.is_usable(17, ("key:a",))


def test_a_contiguous_push_moves_the_cursor_and_evicts(story: Story) -> None:
    """A push is known at once. R221."""
    story.push(12, (11, "key:a"), (12, "key:b"))
    assert story.view.revision == 12
    assert story.evicted == [(["key:a"], 11), (["key:b"], 12)]
    assert not story.view.is_usable(11, ("key:b",))


def test_what_is_known_is_not_evicted_twice(story: Story) -> None:
    """A poll and a push may both bring it; only the first costs."""
    story.push(11, (11, "key:a"))
    story.poll(11, (11, "key:a"))
    story.push(11, (11, "key:a"))
    assert len(story.evicted) == 1


def test_a_push_over_a_gap_evicts_but_does_not_move_the_cursor(subscribed: Story) -> None:
    """What is missing is asked for, and until then pongs prove nothing. R237."""
    story = subscribed
    fresh_until = story.view.fresh_until
    story.push(13, (13, "key:c"))
    assert story.view.revision == 10
    assert story.view.wants_poll
    assert story.evicted == [(["key:c"], 13)]
    story.wait(0.5)
    story.pong()
    assert story.view.fresh_until == fresh_until
    story.poll(13, (11, "key:a"), (12, "key:b"), (13, "key:c"))
    assert story.view.revision == 13
    assert not story.view.wants_poll


def test_pushes_that_overtake_each_other_close_the_gap_themselves(story: Story) -> None:
    """Writers publish in another order than they commit in."""
    story.push(13, (13, "key:c"))
    story.push(12, (12, "key:b"))
    assert story.view.wants_poll
    story.push(11, (11, "key:a"))
    assert story.view.revision == 13
    assert not story.view.wants_poll


def test_a_push_without_subjects_asks_for_a_poll(story: Story) -> None:
    """A change too large to be pushed moves nothing by itself."""
    story.push(12)
    assert story.view.revision == 10
    assert story.view.wants_poll


def test_a_push_before_the_first_answer_leaves_a_gap(story: Story) -> None:
    """What is pushed while the first question is under way may not be in its answer."""
    view = View(story.clock, bound_seconds=BOUND, retention_seconds=RETENTION)
    view.registered(story.clock.now)
    question = view.ask()
    view.apply_push(11, [Invalidation(11, "key:a")])
    view.apply_start(story.answer(10), question)
    assert view.wants_poll


def test_a_poll_that_was_overtaken_by_a_push_is_not_a_step_backwards(story: Story) -> None:
    """The answer shows what was so before the push."""
    question = story.view.ask()
    story.push(11, (11, "key:a"))
    assert story.view.apply_poll(story.answer(10), question) == 0
    assert story.view.revision == 11
    assert story.resets == 1


def test_pongs_keep_the_view_fresh(subscribed: Story) -> None:
    """Postgres may be away: a subscription that answers proves that nothing was missed. R059."""
    story = subscribed
    for _ in range(20):
        story.wait(0.5)
        story.pong(sent_ago=0.1)
        assert story.view.fresh_until == story.clock.now - 0.1 + BOUND


def test_pongs_alone_may_not_be_enough() -> None:
    """Where the operator refuses to live on Redis alone, only polls make the view fresh."""
    strict = Story(is_push_enough=False)
    strict.register()
    strict.view.apply_start(strict.answer(10, pruned_to=10), strict.view.ask())
    strict.view.push_confirmed(strict.clock.now)
    strict.wait(0.1)
    strict.poll(10)
    lapses_at = strict.view.fresh_until
    for _ in range(5):
        strict.wait(0.5)
        strict.pong(sent_ago=0.1)
    assert strict.view.fresh_until == lapses_at
    assert not strict.view.is_fresh
    strict.register()
    strict.poll(10)
    assert strict.view.is_fresh


def test_pongs_count_only_after_a_poll_that_was_sent_after_the_subscription(story: Story) -> None:
    """What was published before the subscription is lost, and a pong knows nothing of it. R237."""
    question = story.view.ask()
    story.wait(0.1)
    story.view.push_confirmed(story.clock.now)
    story.view.apply_poll(story.answer(10), question)
    fresh_until = story.view.fresh_until
    story.wait(0.1)
    story.pong()
    assert story.view.fresh_until == fresh_until
    story.poll(10)
    story.wait(0.1)
    story.pong()
    assert story.view.fresh_until == story.clock.now + BOUND


def test_a_lost_subscription_takes_its_pongs_along(subscribed: Story) -> None:
    """Also a new one has to be followed by a poll. R237."""
    story = subscribed
    story.view.push_lost()
    fresh_until = story.view.fresh_until
    story.wait(0.1)
    story.pong()
    story.view.push_confirmed(story.clock.now)
    story.pong()
    assert story.view.fresh_until == fresh_until


def test_pongs_do_not_revive_a_view_that_has_lapsed(subscribed: Story) -> None:
    """Writers may have stopped counting the node: it must be listed again, and ask, in this order. R232."""
    story = subscribed
    story.wait(BOUND + 0.1)
    story.pong()
    assert not story.view.is_fresh
    story.poll(10)
    assert not story.view.is_fresh
    assert story.view.needs_registration
    story.register()
    story.pong()
    assert not story.view.is_fresh
    story.poll(10)
    assert story.view.is_fresh
    story.wait(1.0)
    story.pong()
    assert story.view.age_seconds == 0.0


def test_a_reply_that_was_not_heard_ends_the_trust_in_pongs(subscribed: Story) -> None:
    """The writer may count the node out; what is fresh runs out within the bound. R232, R236."""
    story = subscribed
    fresh_until = story.view.fresh_until
    story.view.unregister()
    story.wait(0.5)
    story.pong()
    story.poll(10)
    assert story.view.fresh_until == fresh_until
    story.register()
    story.poll(10)
    assert story.view.age_seconds == 0.0


def test_a_node_that_cannot_write_its_row_must_be_within_reach_of_pushes(story: Story) -> None:
    """Polls alone keep a view fresh only as long as writers are sure to count the node. R232."""
    while story.clock.now < 1000.0 + MUTE_SECONDS - 0.5:
        story.wait(0.5)
        story.poll(10)
        assert story.view.is_fresh
    story.wait(0.5)
    story.poll(10)
    assert story.view.needs_registration
    story.wait(BOUND)
    assert not story.view.is_fresh


def test_reports_keep_the_registration(story: Story) -> None:
    """A node without Redis that writes its row stays fresh by polls."""
    for _ in range(int(10 * MUTE_SECONDS)):
        story.wait(0.5)
        story.poll(10)
        story.register()
        assert story.view.is_fresh


def test_a_revision_that_went_backwards_resets(subscribed: Story) -> None:
    """A database that lost commits makes the node forget everything, and says how high the lost past was."""
    story = subscribed
    story.push(15, (15, "key:x"))
    assert story.poll(12) == 15
    assert story.resets == 2
    assert story.view.revision == 12
    assert not story.view.is_fresh
    assert not story.view.is_usable(11, ("key:z",))
    assert story.view.is_usable(12, ("key:x",))
    story.register()
    assert story.poll(12) == 0
    assert story.view.is_fresh


@pytest.mark.parametrize(
    ("revision", "lost"),
    [
        pytest.param(12, 15, id="behind what was heard of"),
        pytest.param(15, 15, id="as far"),
        pytest.param(40, 40, id="beyond it: as many commits as were lost, and more"),
        pytest.param(15 + SKIP, 0, id="another node has voided the past"),
    ],
)
def test_a_failover_resets_however_far_the_new_primary_has_come(subscribed: Story, revision: int, lost: int) -> None:
    """Another timeline is another past: its revisions mean something else, even if none seems to be missing. R237."""
    story = subscribed
    story.push(15, (15, "key:x"))
    answer = replace(story.answer(revision), timeline="00000002")
    assert story.view.apply_poll(answer, story.view.ask()) == lost
    assert story.resets == 2
    assert story.view.revision == revision
    assert not story.view.is_fresh
    story.register()
    assert story.view.apply_poll(answer, story.view.ask()) == 0
    assert story.resets == 2
    assert story.view.is_fresh


def test_after_a_lost_past_the_nodes_row_comes_first(subscribed: Story) -> None:
    """What was lost may be the node's own row: neither poll nor pong counts before it is written again. R237."""
    story = subscribed
    story.poll(5)
    assert story.view.needs_registration
    story.poll(5)
    story.pong()
    assert not story.view.is_fresh
    story.register()
    story.poll(5)
    assert story.view.is_fresh


def test_a_cursor_that_lost_its_place_resets(story: Story) -> None:
    """A node that slept while invalidations were pruned forgets everything."""
    story.wait(1.0)
    assert story.poll(500, (499, "key:a"), pruned_to=400) == 0
    assert story.resets == 2
    assert story.view.revision == 500
    assert not story.view.is_usable(499, ("key:z",))
    assert not story.view.is_fresh
    story.register()
    story.poll(500, pruned_to=400)
    assert story.view.is_fresh


def test_too_much_news_resets(story: Story) -> None:
    """An answer that was cut off leaves only what is as young as itself."""
    answer = PollAnswer(500, 1, DATABASE_TIME, (), is_truncated=True)
    story.view.apply_poll(answer, story.view.ask())
    assert story.resets == 2
    assert story.view.floor == 500


def test_forgetting_raises_the_floor(story: Story) -> None:
    """What is no longer remembered may not be judged any more. R231."""
    story.poll(11, (11, "key:a"))
    assert story.view.is_usable(10, ("key:b",))
    story.wait(RETENTION + 1)
    story.poll(11)
    assert not story.view.is_usable(10, ("key:b",))
    assert story.view.is_usable(11, ("key:a",))


@pytest.mark.threat("clock that lies")
def test_deadlines_err_on_the_early_side(story: Story) -> None:
    """The database's clock was read after the question was sent, so a deadline comes early by the way there. R044."""
    question = story.view.ask()
    sent_at = story.clock.now
    story.wait(0.3)
    story.view.apply_poll(PollAnswer(10, 1, DATABASE_TIME, ()), question)
    assert story.view.to_monotonic(DATABASE_TIME + 5.0) == sent_at + 5.0


def test_a_retired_view_trusts_nothing(subscribed: Story) -> None:
    """A node that leaves the list must not admit by what it knew."""
    subscribed.view.retire()
    subscribed.pong()
    subscribed.poll(10)
    assert not subscribed.view.is_fresh
