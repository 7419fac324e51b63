"""All of it, and the tables."""

import asyncio
import logging
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import structlog
import uvloop

from bench import report
from bench.processes import Cores, Workshop
from bench.scale import connections, crowd, fleet, tenants, tiers
from bench.scale.population import steps_to
from bench.scale.stage import Stage

PARTS = ("process", "redis", "postgres", "tenants", "connections", "fleet", "crowd")
CONNECTIONS = (10_000, 50_000)
_FIRST_KEYS = 10_000
_FIRST_HELD = 1_000


@dataclass(frozen=True)
class Sizes:
    """How much of everything, and which parts."""

    keys: int
    entries: int
    held: int
    parts: Sequence[str]


class _Row(Protocol):
    HEADER: Any

    def cells(self) -> list[str]: ...


def run(cores: Cores, sizes: Sizes) -> str:
    """Fill the database, measure each part, write its `results/scale/*` and all in `results/scale.md`; the text."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))  # of a crowd's members
    with Workshop() as workshop:
        stage = Stage(workshop, cores)
        in_postgres = [uvloop.run(_grown(stage, keys)) for keys in steps_to(sizes.keys, _FIRST_KEYS)]
        if "process" in sizes.parts:  # first, while this one is small: what grows then is theirs
            _tell(f"{sizes.held:,} keys in the process")
            _write("process", uvloop.run(tiers.in_process(stage.dsn, steps_to(sizes.held, _FIRST_HELD))))
        if "postgres" in sizes.parts:
            stage.population.forget_pages()
            in_postgres.append(uvloop.run(tiers.in_postgres(stage.population, "disk")))
            _write("postgres", in_postgres)
        if "redis" in sizes.parts:
            _tell(f"{sizes.entries:,} entries in Redis")
            steps = steps_to(sizes.entries, _FIRST_KEYS)
            _write("redis", uvloop.run(tiers.in_redis(stage.redis_url, stage.dsn, steps)))
        if "tenants" in sizes.parts:
            _tell("tenants")
            _write("tenants", tenants.measure(stage))
        if "fleet" in sizes.parts:
            _tell("nodes")
            _write("fleet", fleet.measure(stage))
        if "crowd" in sizes.parts:
            _tell("many nodes in one process")
            _write("crowd", uvloop.run(crowd.measure(stage)))
        if "connections" in sizes.parts:
            secret = asyncio.run(stage.population.adopt(stage.population.take(1)))[0]
            rows = []
            for count in CONNECTIONS:
                _tell(f"{count:,} connections")
                rows.append(connections.measure(stage, count, secret))
                _write("connections", rows)
    return _overview()


async def _grown(stage: Stage, keys: int) -> tiers.Rows:
    seconds = await stage.population.grow(keys)
    _tell(f"{keys:,} keys in PostgreSQL ({seconds:.0f} s)")
    return await tiers.in_postgres(stage.population, "memory")


def _write(part: str, rows: Sequence[_Row]) -> None:
    header = rows[0].HEADER
    rule = ["---", *["---:"] * (len(header) - 1)]
    text = report.markdown([list(header), rule, *(row.cells() for row in rows)])
    report.write(f"scale/{part}", text, {"rows": [asdict(row) for row in rows]})  # type: ignore[call-overload]
    _tell(f"\n{text}\n")


def _overview() -> str:
    found = [report.RESULTS / "scale" / f"{part}.md" for part in PARTS]
    text = "\n\n".join([*(path.read_text().strip() for path in found if path.exists()), report.machine_sentence()])
    report.write_whole("scale.md", text + "\n")
    return text


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
