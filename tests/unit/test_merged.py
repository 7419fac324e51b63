"""The metrics of several processes are those of one that had seen all of it."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Info, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families

from gateway.telemetry.exposition import Pages
from gateway.telemetry.hot import HotGauge
from gateway.telemetry.merged import (
    CREATED,
    exposition_of,
    lasting,
    lasting_hot,
    merged,
    merged_hot,
    parsed,
    registry_of,
)
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
    """Every sample by name and labels, but for the times when counters began, and those of this very process."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parsed(exposition)
        if not family.name.endswith(CREATED) and not family.name.startswith("process_")
        for sample in family.samples
    }


Report = dict[str, Any]
NOTHING: Report = {"library": "", "hot": {}}
SHAPES = Metrics().hot
PAGES = Pages(SHAPES)


def told(metrics: Metrics) -> Report:
    """What another process hears of them."""
    report: Report = json.loads(json.dumps(metrics.report()))
    return report


def page(reports: Sequence[Report], *, is_open: bool = False) -> str:
    library = registry_of(merged([parsed(report["library"]) for report in reports], GAUGE_RULES), is_open=is_open)
    hot = merged_hot([report["hot"] for report in reports], SHAPES, GAUGE_RULES)
    return PAGES.page(hot, library, is_open=is_open).decode()


def of_all(processes: Sequence[Metrics]) -> str:
    return page([told(metrics) for metrics in processes])


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
    together, past = Metrics(), NOTHING
    for number, event in events:
        if event == "dies":
            last = told(processes[number])
            library = merged([parsed(past["library"]), lasting(parsed(last["library"]))], GAUGE_RULES)
            hot = merged_hot([past["hot"], lasting_hot(last["hot"], SHAPES)], SHAPES, GAUGE_RULES)
            past = {"library": exposition_of(library).decode(), "hot": hot}
            processes[number] = Metrics()
        else:
            happen(together, event)
            happen(processes[number], event)
    seen = samples(page([past, *(told(metrics) for metrics in processes)]))
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
        follow(metrics, connections, age)
    seen = {name: value for (name, _), value in samples(of_all([one, other])).items() if name in GAUGE_RULES}
    assert seen == {
        "ostiary_view_age_seconds": 2.5,
        "ostiary_revision": 7,
        "ostiary_pending_propagations": 4,
        "ostiary_dependency_up": 0,
        "ostiary_connections": 8,
        "ostiary_metering_unwritten_rows": 8,
        "ostiary_metering_unwritten_seconds": 2.5,
        "ostiary_connection_limit": 8,
        "ostiary_cache_entries": 8,
        "ostiary_upstream_targets": 5,
        "ostiary_upstream_targets_out": 5,
        "ostiary_concurrency": 8,
        "ostiary_concurrency_limit": 8,
        "ostiary_retired_secrets_in_use": 5,
        "ostiary_certificate_expiry_timestamp_seconds": 0.5,
        "ostiary_build_info": 1,
    }


def follow(metrics: Metrics, count: int, age: float) -> None:
    """Give every gauge that is read when it is scraped something to tell: a count, or a moment."""
    for family in metrics.hot:
        if isinstance(family, HotGauge) and family is not metrics.build_info:
            names = tuple("x" for _ in family.labels)
            number = age if family is metrics.certificate_expiry else float(count)
            family.follow(lambda names=names, number=number: [(names, number)])  # type: ignore[misc]


def test_only_what_was_counted_outlives_a_process() -> None:
    """The gauges of one that has ended say nothing about those that run."""
    metrics = Metrics()
    metrics.revision.set(1)
    metrics.requests.inc("orders", "GET", "200", "forwarded")
    last = told(metrics)
    names = {family.name for family in lasting(parsed(last["library"]))} | lasting_hot(last["hot"], SHAPES).keys()
    assert {"ostiary_requests", "ostiary_propagation_seconds"} <= names
    assert not names & GAUGE_RULES.keys()


def test_the_latest_exemplar_is_shown() -> None:
    """Whichever process saw it: one trace for each bucket, in OpenMetrics alone."""
    one, other = Metrics(), Metrics()
    for metrics, trace_id, at in ((one, "a" * 32, 100.0), (other, "b" * 32, 200.0)):
        metrics.request_seconds.of("orders").observe(0.3)
        metrics.request_seconds.of("orders").exemplify(0.3, trace_id, at)
    reports = [told(one), told(other)]
    assert "trace_id" not in page(reports)
    for order in (reports, reports[::-1]):
        families = open_families(page(order, is_open=True))  # type: ignore[no-untyped-call]
        shown = [sample for family in families for sample in family.samples if sample.exemplar]
        assert [(s.labels["le"], s.value, s.exemplar.labels, s.exemplar.value) for s in shown if s.exemplar] == [
            ("0.5", 2.0, {"trace_id": "b" * 32}, 0.3)
        ]


@settings(max_examples=40)
@given(st.lists(EVENTS, max_size=20))
def test_a_page_says_what_the_registry_holds(events: list[Event]) -> None:
    """Our own writer and the library's tell the same, in both formats, however often they are asked."""
    metrics = Metrics()
    for event in [*events, *events]:
        happen(metrics, event)
        expected = samples(generate_latest(metrics.registry).decode())
        assert samples(metrics.exposition().decode()) == pytest.approx(expected)
    families = open_families(metrics.exposition(is_open=True).decode())  # type: ignore[no-untyped-call]
    shown = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
    assert shown.items() >= samples(metrics.exposition().decode()).items()


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
    families = parsed(of_all([Metrics(), Metrics()]))
    assert {family.name for family in families} >= {name for name in GAUGE_RULES if name.startswith("ostiary_")}


def test_what_has_no_rule_is_not_guessed() -> None:
    """A gauge that nobody has decided about, and types that the gateway does not have."""
    with pytest.raises(KeyError):
        merged([parsed("# TYPE queue_length gauge\nqueue_length 1\n")], GAUGE_RULES)
    registry = CollectorRegistry()
    Info("build", "What it is made of", registry=registry)
    with pytest.raises(ValueError, match="build is a info"):
        merged([list(registry.collect())], GAUGE_RULES)
