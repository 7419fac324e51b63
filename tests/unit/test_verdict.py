"""What a writer may conclude: when a change is confirmed, and when a node is dead."""

from datetime import UTC, datetime

import pytest

from gateway.consistency.verdict import MARGIN_SECONDS, NODE_SILENCE_SECONDS, Confirmation, Silences
from gateway.consistency.view import MUTE_SECONDS
from gateway.stores.postgres.revisions import NodeRow

BOUND = 2.0
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def row(node_id: str, revision: int, *, seen: float = 0.1) -> NodeRow:
    return NodeRow(node_id, "1", revision, 0.1, EPOCH, EPOCH, seen)


def change(*, has_push: bool = True) -> Confirmation:
    return Confirmation(10, began_at=100.0, bound_seconds=BOUND, has_push=has_push)


def test_all_have_it() -> None:
    """By their rows or by their replies, in any order: confirmed at once. R232."""
    confirmation = change()
    confirmation.reached("b", 10)
    assert confirmation.verdict(100.1) is None, "who lives is not known yet"
    confirmation.listed([row("a", 11), row("b", 9), row("c", 9)])
    assert confirmation.verdict(100.1) is None
    assert confirmation.silent == ("c",)
    confirmation.reached("c", 9)
    assert confirmation.verdict(100.1) is None
    confirmation.reached("c", 12)
    assert confirmation.verdict(100.1) is True


@pytest.mark.parametrize(
    ("has_push", "published_at", "now", "verdict"),
    [
        pytest.param(True, 100.5, 102.5, None, id="published, the bound has just passed"),
        pytest.param(True, 100.5, 102.5 + MARGIN_SECONDS, True, id="published, the silent node trusts nothing"),
        pytest.param(True, None, 102.4, None, id="unpublished, nodes may still poll"),
        pytest.param(True, None, 102.6, False, id="unpublished, the silent node may live on pushes"),
        pytest.param(True, 102.4, 102.6, None, id="published late, counted from then"),
        pytest.param(True, 102.4, 104.5, True, id="published late, and waited out"),
        pytest.param(False, None, 102.0, None, id="no push, within the bound of the commit"),
        pytest.param(False, None, 102.1, True, id="no push, the bound has passed since the commit"),
    ],
)
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_silent_node(
    has_push: bool, published_at: float | None, now: float, verdict: bool | None, is_listed: bool
) -> None:
    """It is waited for until it can trust nothing; also where it is not known who lives. R232, R236."""
    confirmation = change(has_push=has_push)
    if is_listed:
        confirmation.listed([row("a", 10), row("silent", 9)])
    if published_at is not None:
        confirmation.published(published_at, subscription=1)
    assert confirmation.verdict(now) is verdict


def missed(*, subscription: int = 7) -> Silences:
    silences = Silences(bound_seconds=BOUND)
    silences.missed(["a"], 100.0, subscription=subscription)
    return silences


LONG = NODE_SILENCE_SECONDS + 1


@pytest.mark.parametrize(
    ("now", "seen", "subscription", "heard_until", "has_push", "is_dead"),
    [
        pytest.param(104.0, LONG, 7, 103.0, True, True, id="silent in every way"),
        pytest.param(103.9, LONG, 7, 103.0, True, False, id="not for long enough: its view may not have lapsed"),
        pytest.param(104.0, 29.0, 7, 103.0, True, False, id="its row is young"),
        pytest.param(104.0, LONG, 7, 101.9, True, False, id="its reply may be on the way"),
        pytest.param(104.0, LONG, 8, 103.0, True, False, id="its reply may have been lost with a subscription"),
        pytest.param(104.0, LONG, 0, 103.0, True, False, id="nobody listens now"),
        pytest.param(104.0, LONG, 0, 0.0, False, True, id="there is no push: its row says all"),
    ],
)
def test_who_is_dead(
    now: float, seen: float, subscription: int, heard_until: float, has_push: bool, is_dead: bool
) -> None:
    """A node is counted out only where it cannot be alive unheard. R232."""
    rows = [row("a", 9, seen=seen), row("b", 9, seen=LONG)]
    dead = missed().dead(rows, now, has_push=has_push, subscription=subscription, heard_until=heard_until)
    assert [found.id for found in dead] == (["a"] if is_dead else [])


def test_a_writer_without_an_ear_counts_nobody_out() -> None:
    """What it did not hear says nothing."""
    silences = missed(subscription=0)
    assert silences.dead([row("a", 9, seen=LONG)], 200.0, has_push=True, subscription=0, heard_until=199.0) == []


def test_a_reply_ends_the_suspicion() -> None:
    """A node that has replied once more is alive."""
    silences = missed()
    silences.heard("a")
    assert silences.dead([row("a", 9, seen=LONG)], 200.0, has_push=True, subscription=7, heard_until=199.0) == []


def test_a_mute_node_lapses_before_it_is_counted_out() -> None:
    """The two sides' patience leaves the node's view time to lapse."""
    assert NODE_SILENCE_SECONDS >= 2 * MUTE_SECONDS
