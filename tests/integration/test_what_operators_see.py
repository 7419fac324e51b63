"""The metrics of a running node: the names and labels that were promised, and how many series there can be."""

import os
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from gateway.auth.secrets import SecretFormat, sha256_digest
from gateway.embedded.server_process import HOST
from gateway.telemetry.metrics import Metrics
from tests.conftest import StartGateway
from tests.fixtures import psql
from tests.fixtures.exposition import page_of
from tests.fixtures.planted import ENVIRONMENT, Caller, plant
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until

PROMISED = {
    "ostiary_requests_total": {"route", "method", "status", "outcome"},
    "ostiary_request_duration_seconds_bucket": {"route", "le"},
    "ostiary_upstream_duration_seconds_bucket": {"upstream", "le"},
    "ostiary_auth_total": {"kind", "tier", "result"},
    "ostiary_cache_events_total": {"layer", "event"},
    "ostiary_view_age_seconds": set(),
    "ostiary_revision": set(),
    "ostiary_propagation_seconds_bucket": {"le"},
    "ostiary_limited_total": {"limiter", "mode"},
    "ostiary_spoofed_headers_total": set(),
    "ostiary_key_operations_total": {"operation", "result"},
    "ostiary_dependency_up": {"dependency"},
    "ostiary_connections": {"side", "state"},
}
CLOSED = {  # every value that a label may have, beside configured names
    "method": r"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|other",
    "status": r"[1-5][0-9][0-9]",
    "outcome": r"[a-z_]{3,20}",
    "route": r"orders|payments|public|none|\.ostiary(\.[a-z.]+)?",
    "upstream": r"orders|\.ostiary|",
    "kind": r"key|operator|token|none",
    "tier": r"local|redis|postgres|retired|stream",
    "result": r"[a-z_]{2,30}",
    "version": r"[0-9.]+",
    "le": r"[0-9.e+-]+|\+Inf",
}
KEYS = SecretFormat("ost", ENVIRONMENT)


def series(page: str) -> dict[str, list[dict[str, str]]]:
    """The label sets of every sample name."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


async def test_every_promised_metric_has_its_labels(gateway: StartGateway, postgres_dsn: str) -> None:
    """The names and label sets that dashboards of others rest on. R079, R321, R323."""
    caller = await plant(postgres_dsn)
    node = await gateway(
        {
            "routes": [
                {"name": "orders", "paths": ["/orders"], "upstream": "orders", "limits": [{"per_hour": 1}]},
            ]
        }
    )
    async with aiohttp.ClientSession(headers={"X-Api-Key": caller.secret, "X-User-Id": "mallory"}) as session:
        for status in (200, 429):
            async with session.get(node.proxy_url + "/orders") as answer:
                assert answer.status == status
        async with session.get(node.admin_url + "/v1/keys/none", headers={"Authorization": "Bearer x"}) as answer:
            assert answer.status == 401
    seen = series(await page_of(node))
    seen.setdefault("ostiary_key_operations_total", [dict.fromkeys(PROMISED["ostiary_key_operations_total"], "")])
    for name, labels in PROMISED.items():
        assert {frozenset(one) for one in seen[name]} == {frozenset(labels)}, name


def noise(chooser: random.Random) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Requests of somebody who invents all that can be invented."""
    while True:
        word = "".join(chooser.choices("abcdefghijklmnopqrstuvwxyz", k=10))
        headers = {
            "Host": f"{word}.example.com",
            "X-Api-Key": chooser.choice([KEYS.generate(), word, ""]),
            "X-Request-Id": word,
            "traceparent": f"00-{chooser.getrandbits(128):032x}-{chooser.getrandbits(64):016x}-01",
            "User-Agent": word,
        }
        method = chooser.choice(["GET", "POST", word.upper(), "DELETE"])
        yield method, chooser.choice([f"/orders/{word}", f"/{word}", f"/public/{word}?{word}={word}"]), headers


async def test_what_callers_invent_makes_no_series(gateway: StartGateway, postgres_dsn: str) -> None:
    """After some requests of each kind, new paths, methods, hosts, keys and traces add no series. R321."""
    # Planted before, so that no poll finds them new: what is warm stays so.
    callers = [await plant(postgres_dsn, Caller(f"caller{number}")) for number in range(3)]
    node = await gateway({"log": {"access": "full"}, "cache": {"ttl_seconds": 600}})
    chooser = random.Random(7)
    requests = noise(chooser)

    async def ask(session: aiohttp.ClientSession, count: int) -> None:
        for _ in range(count):
            method, path, headers = next(requests)
            async with session.request(method, node.proxy_url + path, headers=headers) as answer:
                await answer.read()
        for caller in callers:
            async with session.get(node.proxy_url + "/orders/1", headers={"X-Api-Key": caller.secret}) as answer:
                assert answer.status == 200

    async with aiohttp.ClientSession() as session:
        await ask(session, 200)
        before = series(await page_of(node))
        await ask(session, 300)
        after = series(await page_of(node))
    assert {name: len(sets) for name, sets in after.items()} == {name: len(sets) for name, sets in before.items()}
    for name, sets in after.items():
        for labels in sets:
            for label, value in labels.items():
                assert re.fullmatch(CLOSED.get(label, r"[a-z_]{0,30}"), value), (name, label, value)
    page = await page_of(node)
    assert not [
        text for caller in callers for text in (caller.key_id, caller.user_id, caller.tenant_id) if text in page
    ]


def many_routes(count: int) -> Metrics:
    """The metrics of a gateway with so many routes, each of which was used in several ways."""
    metrics = Metrics()
    for number in range(count):
        use(metrics, number)
    return metrics


def use(metrics: Metrics, number: int) -> None:
    for status, outcome in (("200", "forwarded"), ("401", "refused"), ("502", "upstream_error")):
        metrics.requests.inc(f"route-{number}", "GET", status, outcome)
    metrics.request_seconds.of(f"route-{number}").observe(0.01)


def cpu_of(metrics: Metrics) -> float:
    """Seconds of CPU of a scrape, the least of a few."""
    spent = []
    for _ in range(5):
        began = os.times()
        for _ in range(5):
            metrics.exposition()
        ended = os.times()
        spent.append((ended.user + ended.system - began.user - began.system) / 5)
    return min(spent)


def test_a_scrape_does_not_cost_more_with_what_was_counted() -> None:
    """What has not moved is not written again: 1,000 idle routes cost a small part of what they cost to write. R079."""
    metrics = many_routes(1_000)
    page = metrics.exposition()
    lines = page.count(b"\n")
    assert 20_000 < lines < 20_500  # the routes' own, three and a histogram each, and the rest
    for _ in range(3):
        for number in range(1_000):
            use(metrics, number)
    assert metrics.exposition().count(b"\n") == lines
    other = many_routes(1_000)
    from_nothing = min(cpu_of_first(many_routes(1_000)) for _ in range(3))
    other.exposition()
    assert cpu_of(other) < from_nothing / 3


def cpu_of_first(metrics: Metrics) -> float:
    began = os.times()
    metrics.exposition()
    ended = os.times()
    return max(ended.user + ended.system - began.user - began.system, 0.001)


async def test_metrics_are_not_public(gateway: StartGateway) -> None:
    """Neither the public listener nor the management API shows them. R326."""
    node = await gateway()
    async with aiohttp.ClientSession() as session:
        for url in (node.proxy_url, node.admin_url):
            for path in ("/metrics", "/.ostiary/metrics", "/health/ready"):
                async with session.get(url + path) as answer:
                    assert answer.status in (401, 404)
                    assert "ostiary_" not in await answer.text()


async def test_the_page_is_negotiated(gateway: StartGateway) -> None:
    """OpenMetrics for who asks for it, with the end that it has; the text format for everybody else."""
    node = await gateway()
    prometheus = (
        "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,*/*;q=0.1"
    )
    async with aiohttp.ClientSession() as session:
        for accept, kind in ((prometheus, "application/openmetrics-text"), ("*/*", "text/plain"), ("", "text/plain")):
            async with session.get(node.status_url + "/metrics", headers={"Accept": accept}) as answer:
                assert answer.content_type == kind
                assert answer.headers["Vary"] == "Accept"
                assert (await answer.text()).endswith("# EOF\n") is (kind != "text/plain")


async def test_rotated_secrets_that_are_still_sent_are_seen(gateway: StartGateway, postgres_dsn: str) -> None:
    """By how soon they end; current ones are none of them. R323."""
    old = KEYS.generate()
    await plant(postgres_dsn, Caller("ada"), retired_secret=old)
    node = await gateway()

    async def counted() -> dict[str, str]:
        return dict(
            re.findall(r'^ostiary_retired_secrets_in_use{ends_within="(\w+)"} (\S+)$', await page_of(node), re.M)
        )

    assert await counted() == {"hour": "0.0", "day": "0.0"}
    async with aiohttp.ClientSession(headers={"X-Api-Key": old}) as session:
        async with session.get(node.proxy_url + "/orders") as answer:
            assert answer.status == 200
        assert await counted() == {"hour": "0.0", "day": "1.0"}
        await psql.run(postgres_dsn, "UPDATE retired_secrets SET expires_at = now() + interval '30 minutes'")

        async def is_near() -> bool:
            async with session.get(node.proxy_url + "/orders") as answer:
                assert answer.status == 200
            return await counted() == {"hour": "1.0", "day": "1.0"}

        await until(is_near, what="the new end to be known")
    assert 'tier="retired"' in await page_of(node)
    assert sha256_digest(old.encode()).hex() not in await page_of(node)


async def test_certificates_tell_when_they_end(gateway: StartGateway, tmp_path: Path) -> None:
    """The listener's own, also after it was replaced, and the one that an upstream is shown."""
    authority = trustme.CA()
    ends = [datetime(2031, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    for name, end in zip(("listener", "client"), ends, strict=False):
        write(authority, tmp_path, name, end)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = {"cert": str(tmp_path / "client.pem"), "key": str(tmp_path / "client.key")}
    node = await gateway(
        {
            "listen": {"tls": {"cert": str(tmp_path / "listener.pem"), "key": str(tmp_path / "listener.key")}},
            "upstreams": {
                "orders": {"targets": [f"https://{HOST}:1"], "tls": {"ca": str(tmp_path / "ca.pem"), **pair}}
            },
        }
    )

    async def told() -> dict[str, float]:
        name = "ostiary_certificate_expiry_timestamp_seconds"
        rows = re.findall(rf'^{name}{{use="(\w+)",name="\w*"}} (\S+)$', await page_of(node), re.MULTILINE)
        return {use: float(moment) for use, moment in rows}

    assert await told() == {"listener": ends[0].timestamp(), "upstream": ends[1].timestamp()}
    write(authority, tmp_path, "listener", ends[2])

    async def is_new() -> bool:
        return (await told())["listener"] == ends[2].timestamp()

    await until(is_new, what="the new certificate")


def write(authority: trustme.CA, folder: Path, name: str, end: datetime) -> None:
    issued = authority.issue_cert(HOST, not_after=end)
    issued.private_key_pem.write_to_path(folder / f"{name}.key")
    issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")


@pytest.mark.parametrize("workers", [1, 2])
async def test_saturation_is_told(gateway: StartGateway, upstream: RecordingUpstream, workers: int) -> None:
    """Limits where there are any, with what is used of them; the loop, the process, the targets."""
    node = await gateway(
        {
            "client": {"connection_limit": 50},
            "upstreams": {"orders": {"targets": [upstream.url], "concurrency": 7}},
        },
        workers=workers,
    )
    async with aiohttp.ClientSession() as session, session.get(node.proxy_url + "/public") as answer:
        assert answer.status == 200
    page = await page_of(node)
    for line in (
        f"ostiary_connection_limit {50.0 * workers}",
        f'ostiary_concurrency_limit{{upstream="orders"}} {7.0 * workers}',
        'ostiary_concurrency{upstream="orders"} 0.0',
        'ostiary_upstream_targets{upstream="orders"} 1.0',
        'ostiary_upstream_targets_out{upstream="orders"} 0.0',
        "process_resident_memory_bytes ",
        'ostiary_event_loop_lag_seconds_bucket{le="+Inf"} ',
    ):
        assert f"\n{line}" in page, line
