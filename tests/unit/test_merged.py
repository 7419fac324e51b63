"""The metrics of several processes are those of one that had seen all of it."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Info

from gateway.telemetry.merged import CREATED, exposition_of, lasting, merged, parsed
from gateway.telemetry.metrics import GAUGE_RULES, Metrics

Event = tuple[str, Any]

EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(["orders", "payments", 'a "quoted" one\\'])),
    st.tuples(st.just("took"), st.sampled_from([0.0, 0.001, 0.0011, 0.75, 30.0, 31.0])),
    st.tuples(st.just("leak"), st.sampled_from(["revoked", "unknown"])),
    st.tuples(st.just("propagated"), st.sampled_from([0.002, 0.5, 8.0])),
)


def happen(metrics: Metrics, event: Event) -> None:
    match event:
        case ("request", route):
            metrics.requests.inc(route, "GET", "200", "forwarded")
        case ("took", seconds):
            metrics.request_seconds.of("orders").observe(seconds)
        case ("leak", result):
            metrics.leak_reports.labels(result).inc()
        case ("propagated", seconds):
            metrics.propagation_seconds.observe(seconds)


def samples(exposition: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels, but for the times when counters began."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parsed(exposition)
        if not family.name.endswith(CREATED)
        for sample in family.samples
    }


def of_all(processes: Sequence[Metrics]) -> str:
    parts = [parsed(metrics.exposition().decode()) for metrics in processes]
    return exposition_of(merged(parts, GAUGE_RULES)).decode()


@given(st.lists(st.tuples(st.integers(0, 3), EVENTS), max_size=60))
def test_counting_apart_and_adding_is_counting_together(events: list[tuple[int, Event]]) -> None:
    """Whoever of four processes sees an event: counters and histograms of all are those of one process. R079."""
    together, apart = Metrics(), [Metrics() for _ in range(4)]
    for number, event in events:
        happen(together, event)
        happen(apart[number], event)
    assert samples(of_all(apart)) == pytest.approx(samples(together.exposition().decode()))


@given(st.lists(st.one_of(st.tuples(st.integers(0, 2), EVENTS), st.tuples(st.integers(0, 2), st.just("dies")))))
def test_counters_never_fall(events: list[tuple[int, Any]]) -> None:
    """Processes that end leave what they have counted; others take their place and begin at nothing."""
    processes = [Metrics() for _ in range(3)]
    together, past = Metrics(), parsed("")
    for number, event in events:
        if event == "dies":
            past = merged([past, lasting(parsed(processes[number].exposition().decode()))], GAUGE_RULES)
            processes[number] = Metrics()
        else:
            happen(together, event)
            happen(processes[number], event)
    parts = [past, *(parsed(metrics.exposition().decode()) for metrics in processes)]
    seen = samples(exposition_of(merged(parts, GAUGE_RULES)).decode())
    assert seen == pytest.approx(samples(together.exposition().decode()))


def test_gauges_follow_their_rules() -> None:
    """The oldest view and usage, the last revision, the longest backlog, the worst word on a dependency; else sums."""
    one, other = Metrics(), Metrics()
    for metrics, age, revision, pending, is_up, connections in ((one, 0.5, 7, 0, 1, 3), (other, 2.5, 9, 4, 0, 5)):
        metrics.view_age.set(age)
        metrics.revision.set(revision)
        metrics.pending_propagations.set(pending)
        metrics.dependency_up.labels("postgres").set(is_up)
        metrics.connections.labels("client", "idle").set(connections)
        metrics.metering_rows.set(connections)
        metrics.metering_seconds.set(age)
    seen = {name: value for (name, _), value in samples(of_all([one, other])).items() if name in GAUGE_RULES}
    assert seen == {
        "ostiary_view_age_seconds": 2.5,
        "ostiary_revision": 7,
        "ostiary_pending_propagations": 4,
        "ostiary_dependency_up": 0,
        "ostiary_connections": 8,
        "ostiary_metering_unwritten_rows": 8,
        "ostiary_metering_unwritten_seconds": 2.5,
    }


def test_only_what_was_counted_outlives_a_process() -> None:
    """The gauges of one that has ended say nothing about those that run."""
    metrics = Metrics()
    metrics.revision.set(1)
    metrics.requests.inc("orders", "GET", "200", "forwarded")
    names = {family.name for family in lasting(parsed(metrics.exposition().decode()))}
    assert "ostiary_requests" in names
    assert not names & GAUGE_RULES.keys()


def test_the_first_beginning_counts() -> None:
    """A counter of several began when the first of them did."""
    text = "# TYPE a_total counter\na_total 1\n# TYPE a_created gauge\na_created {}\n"
    families = merged([parsed(text.format(5)), parsed(text.format(3))], {})
    assert {sample.name: sample.value for family in families for sample in family.samples} == {
        "a_total": 2,
        "a_created": 3,
    }


def test_every_family_of_a_node_can_be_merged() -> None:
    """A gauge without a rule, or another type of metric, is found here and not when it is scraped."""
    families = merged([parsed(Metrics().exposition().decode())] * 2, GAUGE_RULES)
    assert {family.name for family in families} >= GAUGE_RULES.keys()


def test_what_has_no_rule_is_not_guessed() -> None:
    """A gauge that nobody has decided about, and types that the gateway does not have."""
    with pytest.raises(KeyError):
        merged([parsed("# TYPE queue_length gauge\nqueue_length 1\n")], GAUGE_RULES)
    registry = CollectorRegistry()
    Info("build", "What it is made of", registry=registry)
    with pytest.raises(ValueError, match="build is a info"):
        merged([list(registry.collect())], GAUGE_RULES)
