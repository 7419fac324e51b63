"""Every metric of the gateway, in one registry. Label sets are closed: never a key, user, tenant, path or free text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.telemetry.hot import HotCounter, HotHistogram

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PROPAGATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)


# What one number for several workers is: of their ages and backlogs the worst, of their revisions the last one behind.
GAUGE_RULES: Final[Mapping[str, Callable[[Iterable[float]], float]]] = {
    "ostiary_view_age_seconds": max,
    "ostiary_revision": min,
    "ostiary_pending_propagations": max,
    "ostiary_dependency_up": min,
    "ostiary_connections": sum,
    "ostiary_metering_unwritten_rows": sum,
    "ostiary_metering_unwritten_seconds": max,
}


class Metrics:
    """The gateway's metrics, created once per process and handed to whoever counts.

    The warm path's families are of `gateway.telemetry.hot`; all others are prometheus_client's own.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = HotCounter(
            "ostiary_requests", "Requests answered, by who decided", ("route", "method", "status", "outcome"), r
        )
        self.request_seconds = HotHistogram(
            "ostiary_request_duration_seconds",
            "From the whole head read to the last byte handed to the client's socket",
            "route",
            REQUEST_BUCKETS,
            r,
        )
        self.upstream_seconds = HotHistogram(
            "ostiary_upstream_duration_seconds",
            "From the head sent upstream to the upstream's reply head",
            "upstream",
            REQUEST_BUCKETS,
            r,
        )
        self.auth = HotCounter("ostiary_auth", "Decisions of admission", ("kind", "tier", "result"), r)
        self.cache_events = HotCounter("ostiary_cache_events", "What happened in a cache", ("layer", "event"), r)
        self.limited = HotCounter(
            "ostiary_limited", "Requests over a limit: refused, or counted by one in the shadow", ("limiter", "mode"), r
        )
        self.limits_degraded = HotCounter(
            "ostiary_limits_degraded", "Decisions by one node's own counts, as Redis did not answer", ("limiter",), r
        )
        self.malformed_limits = Counter(
            "ostiary_malformed_limits",
            "Look-ups of users whose own limits make no sense",
            registry=r,
        )
        self.served_isolated = Counter(
            "ostiary_served_isolated", "Requests admitted by knowledge that was older than the bound", registry=r
        )
        self.view_age = self._gauge("ostiary_view_age_seconds", "Age of what this node knows of changes")
        self.revision = self._gauge("ostiary_revision", "The revision this node's view has reached")
        self.propagation_seconds = Histogram(
            "ostiary_propagation_seconds",
            "From a change's commit to its confirmation on every live node",
            buckets=PROPAGATION_BUCKETS,
            registry=r,
        )
        self.pending_propagations = self._gauge(
            "ostiary_pending_propagations", "Committed changes that some node has not confirmed yet"
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
        self.dependency_up = self._gauge("ostiary_dependency_up", "1 while the dependency answers", ["dependency"])
        self.dropped_calls = Counter(
            "ostiary_dropped_calls",
            "Calls to a dependency abandoned at our deadline",
            ["dependency"],
            registry=r,
        )
        self.metering_rows = self._gauge(
            "ostiary_metering_unwritten_rows", "Rows of usage in memory, to be added to the database"
        )
        self.metering_seconds = self._gauge(
            "ostiary_metering_unwritten_seconds", "Age of the oldest usage that waits for the database"
        )
        self.metering_lost = Counter(
            "ostiary_metering_lost_requests",
            "Requests that no usage tells of, for want of room or at the end",
            registry=r,
        )
        self.connections = self._gauge("ostiary_connections", "Open connections", ["side", "state"])

    def _gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        assert name in GAUGE_RULES, f"nobody says what {name} of several workers is"
        return Gauge(name, documentation, labels, registry=self.registry)

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)
