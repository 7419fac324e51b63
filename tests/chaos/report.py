"""The table of a run."""

import statistics
import textwrap
import time
from collections.abc import Iterable, Sequence

from tests.chaos.measures import Measures
from tests.chaos.tally import TWO_AT_ONCE, Tally


def table(tally: Tally, measures: Measures) -> str:
    """The run as Markdown."""
    stage = f"{measures.nodes} nodes, {measures.writers} writers, bound {measures.bound_seconds:g} s"
    widening = sorted((what, each.times) for what, each in tally.changes.items() if not each.is_narrowing)
    given = ", ".join(f"{what} {times:,}" for what, times in widening)
    return "\n".join(
        [
            f"{stage}, seed {measures.seed}, {time.monotonic() - tally.began_at:,.0f} s long:",
            *_table(("", ""), _sums(tally)),
            *_table(("narrowing change", "done", "503 before", "call to done, p50 / p99 / max"), _changes(tally)),
            *_table(("fault", "times", "alone: all well after, p50 / max", "good keys answered 503"), _faults(tally)),
            "",
            *textwrap.wrap(f"Beside them: {given}.", width=118),
            "",
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["", *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))]


def _sums(tally: Tally) -> list[tuple[str, str]]:
    numbers = [
        ("admissions checked", tally.admitted),
        ("requests sent after an answer that forbids them", tally.asked_after_an_answer),
        ("calls with admin tokens checked", tally.calls_by_admins),
        ("**stale admissions**", len(tally.stale)),
        ("admissions later than the bound after a change typed into psql", len(tally.stale_by_poll)),
        ("**wrong refusals (401, 403) of good keys, at any time**", len(tally.wrong)),
        ("**good keys answered 503, or not at all, without an outage**", len(tally.unavailable)),
        ("the same while this process did not come to run in time", tally.unavailable_unsteadily),
        ("good keys answered 503 in outages", tally.unavailable_in_faults.total()),
        ("requests without an answer in outages: the node was killed, stopped or paused", tally.unanswered),
        ("another's identity, or forwarded without an admission", len(tally.strays)),
        ("answers other than 200, 401, 403, 503", len(tally.odd)),
        ("changes that gave something", sum(each.times for each in tally.changes.values()) - tally.narrowing),
        ("answers 503 `revocation_pending`, repeated until done", sum(each.pending for each in tally.changes.values())),
        ("other 503 and broken connections of writers, repeated", tally.repeated_calls),
    ]
    return [
        ("requests", f"{sum(tally.statuses.values()):,}"),
        *((name, f"{number:,}") for name, number in numbers),
        ("seconds that it was late", f"{tally.late_seconds:.1f}"),
        ("commit to answer with nothing under way, p50 / p99 / max", _quantiles(tally.calm_seconds)),
        ("commit to answer during faults and recoveries, p50 / p99 / max", _quantiles(tally.fault_seconds)),
    ]


def _changes(tally: Tally) -> list[tuple[str, ...]]:
    narrowing = sorted((what, each) for what, each in tally.changes.items() if each.is_narrowing)
    rows = [(what, f"{each.times:,}", f"{each.pending:,}", _quantiles(each.seconds)) for what, each in narrowing]
    pending = sum(each.pending for _, each in narrowing)
    seconds = [seconds for _, each in narrowing for seconds in each.seconds]
    return [*rows, ("**all**", f"**{tally.narrowing:,}**", f"{pending:,}", _quantiles(seconds))]


def _faults(tally: Tally) -> list[tuple[str, ...]]:
    struck = [*sorted(tally.struck.items()), (TWO_AT_ONCE, len(tally.recoveries[TWO_AT_ONCE]))]
    return [
        (name, str(times), _middle(tally.recoveries[name]), f"{tally.unavailable_in_faults[name]:,}")
        for name, times in struck
    ]


def _quantiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    return f"{_shown(p50)} / {_shown(p99)} / {_shown(ordered[-1])}"


def _middle(seconds: Sequence[float]) -> str:
    return f"{_shown(statistics.median(seconds))} / {_shown(max(seconds))}" if seconds else "-"


def _shown(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
