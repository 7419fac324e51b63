"""The parts of the pages for administrators that need no node: how nodes stand, pictures, and the form of a plan."""

from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.control.portal.administration.fleet import seen
from gateway.control.portal.administration.listing import id_filter_of
from gateway.control.portal.administration.users import shown_form, wanted
from gateway.control.portal.fleet_charts import durations, progress, said, shares
from gateway.control.problems import InvalidBody, NotFound
from gateway.stores.postgres.revisions import NodeRow
from gateway.stores.postgres.users import EntitlementRow
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.signs import BOUNDS, signs_of

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def node(revision: int, *, is_fresh: bool = True, silent: float = 0.5) -> NodeRow:
    """A node as it is listed."""
    return NodeRow(f"node_{revision}", "1", revision, 0.1, NOW, NOW, silent, {"is_fresh": is_fresh})


@pytest.mark.parametrize("sent", ["%00", "a%00", "a%20b", "%ed%a0%80", "-", "x" * 129])
def test_a_listing_of_what_is_no_id_is_not_found(sent: str) -> None:
    """It never reaches the database, whose refusal of a NUL would pass for an outage. R122."""
    with pytest.raises(NotFound):
        id_filter_of(make_mocked_request("GET", f"/portal/admin/keys?tenant={sent}"), "tenant")
    assert id_filter_of(make_mocked_request("GET", "/portal/admin/keys?tenant=+acme"), "tenant") == "acme"
    assert id_filter_of(make_mocked_request("GET", "/portal/admin/keys"), "tenant") == ""


@pytest.mark.parametrize(
    ("row", "state", "lag"),
    [
        pytest.param(node(9), "fresh", 0, id="up to date"),
        pytest.param(node(7), "behind", 2, id="behind"),
        pytest.param(node(7, is_fresh=False), "stale", 2, id="trusts nothing"),
        pytest.param(node(9, silent=6.0), "silent", 0, id="does not report"),
        pytest.param(node(3, is_fresh=False, silent=60.0), "silent", 6, id="gone"),
        pytest.param(NodeRow("old", "0", 9, 0.1, NOW, NOW, 0.1), "stale", 0, id="of a version that tells no signs"),
    ],
)
def test_how_a_node_stands(row: NodeRow, state: str, lag: int) -> None:
    """By the one that has come furthest, its own word, and when it last gave one."""
    (found, _) = seen([row, node(9)])
    assert (found.state, found.lag) == (state, lag)


def test_who_is_behind_is_drawn_further_left() -> None:
    """The more changes, the further, up to the edge; and each node is told in words."""
    lags = (0, 1, 2, 50, 10_000, 10**9)
    picture = str(progress([(f"n{lag}", lag, "behind", f"{lag} behind") for lag in lags]))
    places = [float(part.split('"')[0]) for part in picture.split('cx="')[1:]]
    assert places == sorted(places, reverse=True)
    assert len(set(places[:5])) == 5
    assert places[4] == places[5]
    assert 'aria-label="n0 0 behind; n1 1 behind; ' in picture


def test_what_nodes_are_called_is_never_code() -> None:
    """Names in pictures are escaped, wherever they stand. R365."""
    attack = "\"'><script>x</script>"
    for picture in (progress([(attack, 0, "fresh", attack)]), shares({"local": 1}, attack)):
        assert "<script" not in str(picture)


def test_no_node_and_no_request_are_pictures_too() -> None:
    """Nothing is divided by nothing."""
    assert "no node" in progress([])
    assert "no decision yet" in shares({}, "n")
    assert "no request yet" in durations({})


def test_within_which_time_requests_are_answered() -> None:
    """The bound of the span in which the half, and 95 and 99 of a hundred, lie."""
    assert said({"0.001": 90, "0.01": 8, "+Inf": 2}) == "50% within 1 ms, 95% within 10 ms, 99% over 30 s"
    assert said({"2.5": 1}) == "50% within 2.5 s, 95% within 2.5 s, 99% within 2.5 s"


def test_vital_signs_are_what_was_counted() -> None:
    """Decisions on credentials by where knowledge came from, durations of all routes together, what answers."""
    metrics = Metrics()
    metrics.auth.inc("key", "local", "admitted")
    metrics.auth.inc("key", "local", "key_revoked")
    metrics.auth.inc("token", "postgres", "admitted")
    metrics.auth.inc("none", "local", "missing_api_key")
    metrics.request_seconds.of("a").observe(0.0004)
    metrics.request_seconds.of("b").observe(0.0009)
    metrics.request_seconds.of("b").observe(99)
    metrics.dependency_up.labels("postgres").set(1)
    metrics.dependency_up.labels("redis").set(0)
    assert signs_of(metrics, is_fresh=True) == {
        "is_fresh": True,
        "decisions": {"local": 2, "postgres": 1},
        "dependencies": {"postgres": True, "redis": False},
        "durations": {"0.001": 2, "+Inf": 1},
    }
    assert len(BOUNDS) == len(metrics.request_seconds.counts())


BEFORE = EntitlementRow(
    "ada", "pro", {"api_access": True, "size": 5, "note": "a = b"}, {"per_day": -1}, NOW.replace(microsecond=7), NOW
)


@pytest.mark.parametrize("before", [None, BEFORE], ids=["nothing", "a plan"])
def test_a_form_that_nobody_touches_asks_for_what_was_there(before: EntitlementRow | None) -> None:
    """To the microsecond, though the field shows minutes."""
    asked = wanted(shown_form(before), before)
    held = ("", None, {}, {}) if before is None else ("pro", NOW.replace(microsecond=7), before.features, before.limits)
    ends = None if asked["valid_until"] is None else datetime.fromisoformat(asked["valid_until"])
    assert (asked["plan"], ends, asked["features"], asked["limits"]) == held


@pytest.mark.parametrize(
    ("field", "text"),
    [("per_day", "many"), ("per_day", "1.5"), ("features", "no sign"), ("features", "a = 1\na = 2")],
)
def test_what_is_no_value_is_told_with_its_field(field: str, text: str) -> None:
    """A mistake stands where it was made."""
    filled: dict[str, Any] = {**shown_form(BEFORE), field: text}
    with pytest.raises(InvalidBody) as raised:
        wanted(filled, BEFORE)
    assert raised.value.members["issues"][0]["place"] == field
