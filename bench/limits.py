"""What limits cost: a request in each mode beside none and beside other proxies, and memory of a million buckets."""

import gc
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import redis

from bench import measure, report, request_report, variants
from bench.gateway_peer import start_stores
from bench.peers import Envoy, Nginx, Peer, chosen
from bench.processes import Cores, Workshop
from bench.workloads import GET
from gateway.limits.ledger import TAKE
from gateway.limits.limit import Allowance, limits_of
from gateway.limits.rules import By, Held, Leased, Rule

BUCKETS = 1_000_000
_BATCH = 10_000
_SOLD = {"per_minute": 60, "per_day": 1000}

# Limits that nobody reaches, so that every request is counted and none refused.
_PLAN = ("api_access: true}}", "api_access: true}, limits: {per_second: 1000000, per_day: 1000000000}}")
_GATEWAYS: Mapping[str, variants.Changes] = {
    "Ostiary, no limits": (),
    "Ostiary, local": (_PLAN, ("plans:", "limits: {mode: local}\nplans:")),
    "Ostiary, approximate": (_PLAN,),
    "Ostiary, exact": (_PLAN, ("plans:", "limits: {shared: exact}\nplans:")),
}
_NGINX = (
    (
        "    upstream origin {",
        "    limit_req_zone $http_authorization zone=c:10m rate=1000000r/s;\n    upstream origin {",
    ),
    (
        "        proxy_http_version 1.1;",
        "        limit_req zone=c burst=100000 nodelay;\n        proxy_http_version 1.1;",
    ),
)
_ENVOY = (
    (
        "                  - name: envoy.filters.http.router",
        """                  - name: envoy.filters.http.local_ratelimit
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                      stat_prefix: limit
                      token_bucket: {max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s}
                      filter_enabled: {default_value: {numerator: 100}}
                      filter_enforced: {default_value: {numerator: 100}}
                  - name: envoy.filters.http.router""",
    ),
)


@dataclass(frozen=True)
class Growth:
    """What a million buckets take."""

    where: str
    buckets: int
    grown_bytes: int

    def cells(self) -> list[str]:
        """Return a row of the table."""
        each = self.grown_bytes / self.buckets
        return [self.where, f"{self.buckets:,}", f"{self.grown_bytes / 2**20:.0f}", f"{each:,.0f}"]


def _peers(folder: Path) -> list[Peer]:
    """The gateway in each mode, and others with and without their own limit, each with a configuration of its own."""
    peers: list[Peer] = [*variants.gateways(_GATEWAYS, folder)]
    for kind, file, name, changes in (
        (Nginx, "nginx.conf", "nginx + Lua, limit_req", _NGINX),
        (Envoy, "envoy.yaml", "Envoy, local_ratelimit", _ENVOY),
    ):
        limited = kind(variants.changed(folder / file, file, changes))
        limited.name = name
        peers += [kind(), limited]
    return peers


def in_process(kind: type[Held], buckets: int) -> Growth:
    """What accounts take in this process: of a plan with two limits, each of its own user."""
    allowance = Allowance(limits_of(_SOLD, "plan"))
    rule = Rule("plan", "plan", By.USER)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for number in range(buckets):
        subject = f"user_{number:012}"
        account = Leased(rule, subject, allowance, 1.0) if kind is Leased else Held(rule, allowance, 1.0)
        account.charge(1)
        rule.accounts.put(subject, account)
    grown = psutil.Process().memory_info().rss - before
    return Growth(f"process, {'shared' if kind is Leased else 'local'}", buckets, grown)


def in_redis(url: str, buckets: int) -> Growth:
    """What the same accounts take in Redis."""
    arguments = [1, 1, 2, "per_minute", 60, 60, 60_000_000, 0, 0, "per_day", 1000, 1000, 0, 20_000, 80_000]
    with redis.Redis.from_url(url) as client:
        script = client.script_load(TAKE.read_text())
        before = client.info("memory")["used_memory"]
        for start in range(0, buckets, _BATCH):
            with client.pipeline(transaction=False) as pipe:
                for number in range(start, start + _BATCH):
                    pipe.evalsha(script, 1, f"ostiary:bench:limit:plan:user:user_{number:012}", *arguments)
                pipe.execute()
        grown = client.info("memory")["used_memory"] - before
        client.flushall()
    return Growth("Redis", buckets, grown)


def run(cores: Cores, plan: measure.Plan, only: Sequence[str] | None, buckets: int = BUCKETS) -> int:
    """Measure memory and cost, write `results/limits.*`, and return 1 where a peer failed."""
    growths = [in_process(Held, buckets), in_process(Leased, buckets)]
    with Workshop() as workshop:
        addresses = start_stores(workshop)
        assert addresses.redis_url is not None
        growths.append(in_redis(addresses.redis_url, buckets))
    header = ["buckets in", "count", "growth MiB", "bytes each"]
    memory = report.markdown([header, ["---", "---:", "---:", "---:"], *(growth.cells() for growth in growths)])
    print(f"\n{memory}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="limits-") as folder:
        peers = chosen(_peers(Path(folder)), only)
        (measured,) = measure.measure(peers, [GET], plan, cores)
    costs = request_report.text(measured, plan)
    print(f"\n{costs}\n", flush=True)
    if only is None:
        rows = [asdict(growth) for growth in growths]
        report.write("limits", f"{costs}\n\n{memory}", {"memory": rows, "rows": [asdict(row) for row in measured.rows]})
    return int(any(row.failure for row in measured.rows))
