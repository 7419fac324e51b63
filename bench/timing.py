"""What time tells of a wrong key: refusals of each kind, interleaved at random, against those of keys that nobody has.

Compared as dudect does: Welch's t of the quicker part of the samples, where the machine's hiccups are not. Beyond 4.5
two kinds are told apart; t grows with the root of the samples, so that it also says how many an attacker would need on
this machine, without a network between.
"""

import asyncio
import math
import random
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, variance

import asyncpg

from bench import report
from bench.gateway_peer import Node, seed, start_node, start_stores
from bench.measure import start_upstream
from bench.processes import BenchError, Cores, Workshop
from bench.workload import Request
from gateway.auth.secrets import ALPHABET, CHECKSUM_CHARACTERS, SecretFormat, checksum

SAMPLES = 20_000  # of each kind that memory answers
COLD_SAMPLES = 2_000  # of each kind that has to be looked up, each with a secret of its own
SECRETS = 20  # of each kind, for memory
KEPT_SHARE = 0.9  # of the samples, the quicker ones
TOLD_APART = 4.5
SEED = 20261122
YARDSTICK = "unknown"
FORMAT = SecretFormat("ost", "bench")

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Row:
    """One kind of wrong key, beside the unknown ones. `needed` is how many samples of each would tell them apart."""

    kind: str
    count: int
    median_us: float
    t: float

    @property
    def needed(self) -> float:
        """Samples of each kind; beyond a few millions this is what chance leaves of nothing."""
        return self.count * (TOLD_APART / self.t) ** 2 if self.t else math.inf

    def cells(self) -> list[str]:
        """Return a row of the table."""
        verdict = "-" if self.kind == YARDSTICK else "told apart" if abs(self.t) > TOLD_APART else "not told apart"
        return [self.kind, f"{self.count:,}", f"{self.median_us:.1f}", f"{self.t:+.1f}", verdict]


def welch_t(one: Sequence[float], other: Sequence[float]) -> float:
    """Welch's t of two kinds, of each the quicker part."""
    kept = [sorted(samples)[: int(KEPT_SHARE * len(samples))] for samples in (one, other)]
    deviation = math.sqrt(sum(variance(samples) / len(samples) for samples in kept))
    return (fmean(kept[0]) - fmean(kept[1])) / deviation


def rows(samples: Samples) -> list[Row]:
    """Every kind beside the yardstick."""
    return [
        Row(kind, len(times), 1e6 * median(times), 0.0 if kind == YARDSTICK else welch_t(times, samples[YARDSTICK]))
        for kind, times in samples.items()
    ]


def near(secrets: Sequence[str], count: int) -> list[str]:
    """Well-formed secrets that share all but the last random character with good ones."""
    bodies = [secret[:-CHECKSUM_CHARACTERS] for secret in secrets]
    found = [body[:-1] + last for body in bodies for last in ALPHABET if last != body[-1]]
    return [body + checksum(body) for body in found[:count]]


def mistyped(secrets: Sequence[str], count: int, place: int) -> list[str]:
    """Good secrets with another character at one place of the random part: their checksum is wrong."""
    start = len(FORMAT.generate()) - 32 - CHECKSUM_CHARACTERS + place
    found = [
        secret[:start] + wrong + secret[start + 1 :]
        for secret in secrets
        for wrong in ALPHABET
        if wrong != secret[start]
    ]
    return found[:count]


async def end(dsn: str, first: int, count: int, column: str) -> None:
    """End the keys from number `first` on, an hour ago."""
    connection = await asyncpg.connect(dsn)
    try:
        ids = [f"key_{number}" for number in range(first, first + count)]
        await connection.execute(
            f"UPDATE api_keys SET {column} = now() - interval '1 hour' WHERE id = ANY($1::text[])", ids
        )
    finally:
        await connection.close()


def sample(node: Node, secrets: Mapping[str, Sequence[str]], count: int) -> Samples:
    """The seconds that each refusal took, kinds in random order on one connection. Blocks."""
    chance = random.Random(SEED)
    heads = {kind: [Request(secret, node.port).head() for secret in some] for kind, some in secrets.items()}
    order = [(kind, number) for kind in heads for number in range(count)]
    chance.shuffle(order)
    times: dict[str, list[float]] = {kind: [] for kind in heads}
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for kind, number in order:
            head = heads[kind][number % len(heads[kind])]
            began = time.perf_counter()
            connection.sendall(head)
            reply = connection.recv(65_536)
            seconds = time.perf_counter() - began
            if not reply.startswith(b"HTTP/1.1 401 "):
                raise BenchError(f"a wrong key ({kind}) brought {reply[:40]!r}")
            times[kind].append(seconds)
    return times


def measured(node: Node, dsn: str, good: Sequence[str]) -> dict[str, list[Row]]:
    """Looked up first, since that ends; then from memory."""
    asyncio.run(end(dsn, 0, COLD_SAMPLES, "revoked_at"))
    asyncio.run(end(dsn, COLD_SAMPLES, COLD_SAMPLES, "expires_at"))
    revoked, expired, live = good[:COLD_SAMPLES], good[COLD_SAMPLES : 2 * COLD_SAMPLES], good[2 * COLD_SAMPLES :]
    kinds = {
        YARDSTICK: [FORMAT.generate() for _ in range(COLD_SAMPLES)],
        "one character from a good key": near(live, COLD_SAMPLES),
        "revoked": revoked,
        "expired": expired,
    }
    cold = sample(node, kinds, COLD_SAMPLES)
    noise = [secret[:-CHECKSUM_CHARACTERS] + "000000" for secret in kinds[YARDSTICK][:SECRETS]]
    malformed = {
        YARDSTICK: noise,
        "a slip at the first character": mistyped(live, SECRETS, 0),
        "a slip at the last": mistyped(live, SECRETS, 31),
    }
    known = {kind: some[:SECRETS] for kind, some in kinds.items()}
    return {
        "looked up": rows(cold),
        "from memory": rows(sample(node, known, SAMPLES)),
        "malformed: noise, or a good key with a slip": rows(sample(node, malformed, SAMPLES)),
    }


def run(cores: Cores) -> str:
    """Measure, write `results/timing.*` and return the text."""
    with Workshop() as workshop:
        upstream_port = start_upstream(workshop, cores.load)
        addresses = start_stores(workshop)
        dsn = addresses.postgres_dsn
        if dsn is None:
            raise BenchError("there is no Postgres")
        good = seed(dsn, 2 * COLD_SAMPLES + COLD_SAMPLES // 50)
        node = start_node(workshop, addresses, upstream_port, cores.proxy)
        found = measured(node, dsn, good)
    parts = []
    for title, kinds in found.items():
        header = [title, "samples", "median µs", "t", f"beside `{YARDSTICK}`"]
        parts.append(report.markdown([header, ["---", "---:", "---:", "---:", "---"], *(row.cells() for row in kinds)]))
    parts.append(f"Told apart is what has a t beyond {TOLD_APART}. {report.machine_sentence()}")
    text = "\n\n".join(parts)
    told = {title: [asdict(row) | {"needed": row.needed} for row in kinds] for title, kinds in found.items()}
    report.write("timing", text, {"rows": told})
    return text
