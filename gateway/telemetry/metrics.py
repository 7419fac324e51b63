"""Every metric of the gateway, in one registry. Label sets are closed: never a key, user, tenant, path or free text."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.telemetry.exposition import Pages, library_page
from gateway.telemetry.hot import HotCounter, HotFamily, HotGauge, HotHistogram, Series
from gateway.telemetry.merged import merged, merged_hot

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PROPAGATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# What one number for several workers is: of their ages and backlogs the worst, of their revisions the last one behind.
GAUGE_RULES: Final[Mapping[str, Callable[[Iterable[float]], float]]] = {
    "ostiary_view_age_seconds": max,
    "ostiary_revision": min,
    "ostiary_pending_propagations": max,
    "ostiary_dependency_up": min,
    "ostiary_connections": sum,
    "ostiary_metering_unwritten_rows": sum,
    "ostiary_metering_unwritten_seconds": max,
    "ostiary_connection_limit": sum,
    "ostiary_cache_entries": sum,
    "ostiary_upstream_targets": max,
    "ostiary_upstream_targets_out": max,
    "ostiary_concurrency": sum,
    "ostiary_concurrency_limit": sum,
    "ostiary_retired_secrets_in_use": max,
    "ostiary_certificate_expiry_timestamp_seconds": min,
    "ostiary_build_info": max,
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_start_time_seconds": min,
    "process_open_fds": max,
    "process_max_fds": min,
}


class Metrics:
    """The gateway's metrics, handed to whoever counts. `registry` has all of them.

    What counts is there once per process and never falls; gauges are of one gateway. The warm path's families, and
    those with a series for every route or upstream, are of `gateway.telemetry.hot`; all others are prometheus_client's.
    """

    def __init__(self) -> None:
        self.registry = hot = CollectorRegistry()
        self._library = r = CollectorRegistry()
        self._shown: list[Metrics] = []  # those whose gauges are seen; one list for all gateways of this process
        self.requests = HotCounter(
            "ostiary_requests", "Requests answered, by who decided", ("route", "method", "status", "outcome"), hot
        )
        self.request_seconds = HotHistogram(
            "ostiary_request_duration_seconds",
            "From the whole head read to the last byte handed to the client's socket",
            "route",
            REQUEST_BUCKETS,
            hot,
        )
        self.upstream_seconds = HotHistogram(
            "ostiary_upstream_duration_seconds",
            "From the head sent upstream to the upstream's reply head",
            "upstream",
            REQUEST_BUCKETS,
            hot,
        )
        self.auth = HotCounter("ostiary_auth", "Decisions of admission", ("kind", "tier", "result"), hot)
        self.cache_events = HotCounter("ostiary_cache_events", "What happened in a cache", ("layer", "event"), hot)
        self.limited = HotCounter(
            "ostiary_limited",
            "Requests over a limit: refused, or counted by one in the shadow",
            ("limiter", "mode"),
            hot,
        )
        self.limits_degraded = HotCounter(
            "ostiary_limits_degraded", "Decisions by one node's own counts, as Redis did not answer", ("limiter",), hot
        )
        self.malformed_limits = Counter(
            "ostiary_malformed_limits",
            "Look-ups of users whose own limits make no sense",
            registry=r,
        )
        self.served_isolated = Counter(
            "ostiary_served_isolated", "Requests admitted by knowledge that was older than the bound", registry=r
        )
        self.propagation_seconds = Histogram(
            "ostiary_propagation_seconds",
            "From a change's commit to its confirmation on every live node",
            buckets=PROPAGATION_BUCKETS,
            registry=r,
        )
        self.spoofed_headers = Counter(
            "ostiary_spoofed_headers", "Reserved headers removed from requests of clients", registry=r
        )
        self.streams_closed = Counter(
            "ostiary_streams_closed", "Streams and sockets ended with their key", ["reason"], registry=r
        )
        self.connections_refused = Counter(
            "ostiary_connections_refused", "Client connections closed as they came", ["reason"], registry=r
        )
        self.key_operations = Counter(
            "ostiary_key_operations", "Management calls on keys", ["operation", "result"], registry=r
        )
        self.leak_reports = Counter(
            "ostiary_leak_reports", "Leaked keys reported by secret scanning, by what was done", ["result"], registry=r
        )
        self.dropped_calls = Counter(
            "ostiary_dropped_calls",
            "Calls to a dependency abandoned at our deadline",
            ["dependency"],
            registry=r,
        )
        self.metering_lost = Counter(
            "ostiary_metering_lost_requests",
            "Requests that no usage tells of, for want of room or at the end",
            registry=r,
        )
        self.loop_lag = Histogram(
            "ostiary_event_loop_lag_seconds",
            "How late the event loop came to what was due",
            buckets=LAG_BUCKETS,
            registry=r,
        )
        self.log_lines_dropped = HotCounter(
            "ostiary_log_lines_dropped", "Lines of the log that nobody took in time", (), hot
        )
        self.spans_dropped = Counter(
            "ostiary_spans_dropped",
            "Spans that were not exported, or not begun for want of room",
            ["reason"],
            registry=r,
        )
        ProcessCollector(registry=r)
        self._counting = tuple(one for one in vars(self).values() if isinstance(one, HotCounter | HotHistogram))
        r.register(_Gauges(self._shown, lambda one: one._gauges))
        hot.register(_Gauges(self._shown, lambda one: one._hot_gauges))
        hot.register(_Those(r))
        self._add_gauges()
        self._pages = Pages(self.hot)
        self.show()

    def _add_gauges(self) -> None:
        self._gauges, self._hot_gauges = CollectorRegistry(), CollectorRegistry()
        self.view_age = self._gauge("ostiary_view_age_seconds", "Age of what this node knows of changes")
        self.revision = self._gauge("ostiary_revision", "The revision this node's view has reached")
        self.pending_propagations = self._gauge(
            "ostiary_pending_propagations", "Committed changes that some node has not confirmed yet"
        )
        self.dependency_up = self._gauge("ostiary_dependency_up", "1 while the dependency answers", ["dependency"])
        self.metering_rows = self._gauge(
            "ostiary_metering_unwritten_rows", "Rows of usage in memory, to be added to the database"
        )
        self.metering_seconds = self._gauge(
            "ostiary_metering_unwritten_seconds", "Age of the oldest usage that waits for the database"
        )
        self.connections = self._gauge("ostiary_connections", "Open connections", ["side", "state"])
        self.connection_limit = self._hot_gauge(
            "ostiary_connection_limit", "How many client connections may be open; missing where that is not limited"
        )
        self.cache_entries = self._hot_gauge("ostiary_cache_entries", "Answers in process memory", "cache")
        self.targets = self._hot_gauge("ostiary_upstream_targets", "Configured servers of an upstream", "upstream")
        self.targets_out = self._hot_gauge(
            "ostiary_upstream_targets_out", "Those of them that are unhealthy or left alone for a while", "upstream"
        )
        self.concurrency = self._hot_gauge(
            "ostiary_concurrency", "Requests under way to an upstream that takes a limited number", "upstream"
        )
        self.concurrency_limit = self._hot_gauge("ostiary_concurrency_limit", "How many that may be", "upstream")
        self.retired_in_use = self._hot_gauge(
            "ostiary_retired_secrets_in_use",
            "Rotated secrets that callers still send here, by how soon they cease to work",
            "ends_within",
        )
        self.certificate_expiry = self._hot_gauge(
            "ostiary_certificate_expiry_timestamp_seconds",
            "When a certificate of the gateway ends: that of its listener, or one that it shows to an upstream",
            "use",
            "name",
        )
        self.build_info = self._hot_gauge("ostiary_build_info", "The version that runs", "version")
        self.build_info.follow(lambda: [((__version__,), 1.0)])
        self._following = tuple(one for one in vars(self).values() if isinstance(one, HotGauge))

    def _hot_gauge(self, name: str, documentation: str, *labels: str) -> HotGauge:
        assert name in GAUGE_RULES, f"nobody says what {name} of several workers is"
        return HotGauge(name, documentation, labels, self._hot_gauges)

    def _gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        assert name in GAUGE_RULES, f"nobody says what {name} of several workers is"
        return Gauge(name, documentation, labels, registry=self._gauges)

    # -- of several gateways in one process

    def successor(self) -> "Metrics":
        """Those of a gateway that is to take this one's place: the same counts, and gauges that `show` adds."""
        heir = copy.copy(self)
        heir._add_gauges()
        heir._pages = Pages(heir.hot)  # those of this one would keep its gauges, and all that they are read from
        return heir

    def show(self) -> None:
        """Let this gateway's gauges be seen."""
        self._shown.append(self)

    def hide(self) -> None:
        """Let them be seen no more."""
        if self in self._shown:
            self._shown.remove(self)

    # -- what is told

    @property
    def hot(self) -> tuple[HotFamily, ...]:
        """The hot families."""
        return (*self._counting, *self._following)

    def exposition(self, *, is_open: bool = False) -> bytes:
        """All metrics in the Prometheus text format, or in OpenMetrics, with exemplars."""
        return self._pages.page(self._series(), self._library, is_open=is_open)

    def report(self) -> dict[str, Any]:
        """All metrics for whoever merges them with those of other processes, as JSON can say it."""
        return {
            "library": library_page(self._library, is_open=False).decode(),
            "hot": {name: [list(one) for one in series] for name, series in self._series().items()},
        }

    def _series(self) -> dict[str, list[Series]]:
        gauges = [{family.name: family.series() for family in one._following} for one in self._shown]
        return {family.name: family.series() for family in self._counting} | merged_hot(
            gauges, self._following, GAUGE_RULES
        )


class _Gauges(Collector):
    """The gauges of all gateways of this process: one, but for the moments when another takes its place."""

    def __init__(self, shown: Sequence[Metrics], registry_of: Callable[[Metrics], CollectorRegistry]) -> None:
        self._shown = shown
        self._registry_of = registry_of

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        return iter(merged([list(self._registry_of(one).collect()) for one in self._shown], GAUGE_RULES))


class _Those(Collector):
    """What another registry has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """As Collector."""
        return self._registry.collect()
