"""What is asked of every peer, one declaration each."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.workload import PATH, REPORT_PATH, Request, reply_body, report_body

ROUTES = 1_000
OFFERED_RATE = 500.0  # about half of what the slowest peer can
_VARIANTS = 997  # a prime: no number of connections falls into step with it
_CONNECTIONS = 32
_POST_BYTES = 1_024


def _post_body() -> bytes:
    document = {
        "order": 1729,
        "items": [{"sku": f"SKU-{number:05d}", "quantity": 1} for number in range(20)],
        "note": "",
    }
    missing = _POST_BYTES - len(json.dumps(document))
    return json.dumps({**document, "note": "x" * missing}).encode()


def _same(request: Request) -> Sequence[Request]:
    return [request]


def _varied(request: Request) -> Sequence[Request]:
    traces = (f"{number:08x}{request.trace[8:]}" for number in range(_VARIANTS))
    return [
        replace(request, path=request.path.replace("1729", str(1000 + number)), trace=trace)
        for number, trace in enumerate(traces)
    ]


def _spread(request: Request) -> Sequence[Request]:
    # 619 has no divisor in common with 1,000: every route is asked for once before any is again, and in no order.
    return [replace(request, path=prefixes()[number * 619 % ROUTES] + request.path) for number in range(ROUTES)]


def prefixes() -> tuple[str, ...]:
    """Return the path in front of each route of the workload with many."""
    return tuple(f"/service-{number:04d}" for number in range(ROUTES))


@dataclass(frozen=True)
class Workload:
    """What is sent, in which way, to a proxy set up how."""

    name: str
    label: str
    """A few words, for a picture."""
    title: str
    path: str = PATH
    body: bytes = b""
    more: tuple[tuple[str, str], ...] = ()
    reply: bytes = reply_body()
    variants: Callable[[Request], Sequence[Request]] = _same
    connections: int = _CONNECTIONS
    is_kept: bool = True
    has_tls: bool = False
    has_routes: bool = False
    rate: float | None = None
    """Requests a second in an open loop; None is a closed one, which takes what it gets."""
    rounds_long: int = 1
    """How many times as long as others its rounds are."""

    def requests(self, secret: str, port: int) -> Sequence[Request]:
        """Return what is sent, over and over."""
        more = self.more if self.is_kept else (*self.more, ("Connection", "close"))
        return self.variants(Request(secret, port, self.path, more=more, body=self.body))


_EIGHT_MORE = (
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Client-Version", "4.2.1"),
    ("X-Device", "4c1a9d3e-7f60-4f7e-9b6b-6f0a1f2b3c4d"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Site", "same-site"),
    ("Priority", "u=1, i"),
    ("Origin", "https://shop.example"),
)

GET = Workload("get", "GET", "A warm GET: 12 headers, 964 bytes of JSON, 32 connections", rounds_long=3)

WORKLOADS = (
    GET,
    Workload(
        "varied",
        "GET, no two alike",
        "The GET, no two of a connection alike: other paths, other trace ids",
        variants=_varied,
    ),
    Workload("post", "POST of 1 KB", "A POST of 1 KB of JSON", "/orders?notify=1", _post_body()),
    Workload(
        "large-reply",
        "16 KB reply, 20 headers",
        "A GET with 20 headers, 16 KB of JSON",
        REPORT_PATH,
        more=_EIGHT_MORE,
        reply=report_body(),
    ),
    Workload(
        "routes", f"{ROUTES:,} routes", f"The GET, spread over {ROUTES:,} routes", variants=_spread, has_routes=True
    ),
    *(
        Workload(f"connections-{number}", label, f"The GET, over {label}", connections=number)
        for number, label in {
            1: "1 connection",
            10: "10 connections",
            100: "100 connections",
            1_000: "1,000 connections",
        }.items()
    ),
    Workload(
        "new-connection", "A connection for each request", "The GET, each on a connection of its own", is_kept=False
    ),
    Workload("tls", "TLS", "The GET, in TLS", has_tls=True),
    Workload(
        "tls-new-connection",
        "A TLS connection for each request",
        "The GET, each on a TLS connection of its own",
        has_tls=True,
        is_kept=False,
    ),
    Workload(
        "offered",
        f"{OFFERED_RATE:,.0f} requests a second",
        f"The GET, {OFFERED_RATE:,.0f} a second offered to each, latency from when each was due",
        rate=OFFERED_RATE,
        rounds_long=4,
    ),
)


def chosen(words: Sequence[str] | None) -> list[Workload]:
    """Return the workloads whose name is one of `words` or begins with it and a hyphen; all for None."""
    if words is None:
        return list(WORKLOADS)
    return [
        workload
        for workload in WORKLOADS
        if any(workload.name == word or workload.name.startswith(f"{word}-") for word in words)
    ]
