"""All of it, and the tables."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench import report
from bench.keys import changes, cold, floods, streams, warm
from bench.keys.stage import LONG_TTL_SECONDS, Stage
from bench.processes import Cores, Workshop

KEYS = 100_000  # the default of `cache.local_entries`
_FEW_KEYS = 1_100


def run(cores: Cores) -> str:
    """Measure everything, write `results/keys.*` and return the text."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    with Workshop() as small, Workshop() as large:
        few = Stage(small, cores, _FEW_KEYS)
        many = Stage(large, cores, KEYS)
        _tell("cold keys")
        holder = many.node(ttl_seconds=LONG_TTL_SECONDS)
        from_postgres = cold.measure(holder, "Postgres", many.secrets, cores.load)
        second = many.node(ttl_seconds=LONG_TTL_SECONDS)
        from_redis = cold.measure(second, "Redis", many.secrets, cores.load)
        second.process.stop()
        _tell("warm keys")
        cold.fill(holder, many.secrets[cold.AT_RATE + cold.AT_ONCE :], cores.load)
        warm_cases = [*warm.of_few(few), *warm.of_many(holder, many.secrets)]
        warm_rows = warm.measure(warm_cases, cores.load)
        for case in warm_cases:
            case.node.process.stop()
        _tell("floods")
        flood_rows = floods.measure(few)
        _tell("changes")
        change_rows = changes.measure(few)
        _tell("streams")
        stream_rows = streams.measure(small, few)
    cold_rows = (from_postgres, from_redis)
    text = "\n\n".join(
        (
            _table(warm.Warm.HEADER, [row.cells() for row in warm_rows]),
            _table(cold.Cold.HEADER, [row.cells() for row in cold_rows]),
            _table(floods.Flood.HEADER, [row.cells(flood_rows[0]) for row in flood_rows]),
            _table(changes.Changes.HEADER, [row.cells() for row in change_rows]),
            _table(streams.Streams.HEADER, [row.cells() for row in stream_rows]),
            report.machine_sentence(),
        )
    )
    document: dict[str, object] = {
        "warm": [asdict(row) for row in warm_rows],
        "cold": [asdict(row) for row in cold_rows],
        "floods": [asdict(row) for row in flood_rows],
        "changes": [asdict(row) for row in change_rows],
        "streams": [asdict(row) for row in stream_rows],
    }
    report.write("keys", text, document)
    return text


def _table(header: Sequence[str], rows: list[list[str]]) -> str:
    return report.markdown([list(header), ["---", *["---:"] * (len(header) - 1)], *rows])


def _tell(what: str) -> None:
    print(f"measuring {what}", file=sys.stderr)
