"""What the supervisor's status listener says: how every worker is, and the metrics of all as those of one node."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric

from gateway.telemetry.exposition import Pages
from gateway.telemetry.merged import HotReport, lasting, lasting_hot, merged, merged_hot, parsed, registry_of
from gateway.telemetry.metrics import GAUGE_RULES, Metrics
from gateway.workers.process import WorkerProcess

Checks = Mapping[str, bool]

READY: Final = "ready"
UNREADY: Final = "unready"  # one of its checks is not well
SILENT: Final = "silent"  # it does not answer
STARTING: Final = "starting"
DEAD: Final = "dead"  # and not yet started again


class Seat(Protocol):
    """The place of a worker."""

    number: int
    worker: WorkerProcess | None


class Report:
    """`seats` are the workers' places, `running` all that run, those that leave included."""

    def __init__(self, seats: Sequence[Seat], running: Iterable[WorkerProcess]) -> None:
        self._seats = seats
        self._running = running
        self._past: list[Metric] = []
        self._hot = Metrics().hot  # what families there are
        self._past_hot: HotReport = {}
        self._pages = Pages(self._hot)
        self._registry = CollectorRegistry()
        self.restarts = Counter(
            "ostiary_worker_restarts", "Workers started in the place of one that died", registry=self._registry
        )
        self._unanswered = Counter(
            "ostiary_worker_unanswered", "Times that a worker was silent when it was scraped", registry=self._registry
        )
        self._workers = Gauge(
            "ostiary_workers", "Workers: wanted, alive (they run), ready, leaving", ["state"], registry=self._registry
        )

    def bury(self, worker: WorkerProcess) -> None:
        """Keep what an ended worker has counted."""
        self._past = merged([self._past, lasting(parsed(worker.metrics["library"]))], GAUGE_RULES)
        self._past_hot = merged_hot(
            [self._past_hot, lasting_hot(worker.metrics["hot"], self._hot)], self._hot, GAUGE_RULES
        )

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready while a worker is ready, and none that serves is not; with what each of them says.

        One that is dead or starting does no harm: others accept in its place.
        """
        answers = await self._ask([seat.worker for seat in self._seats], is_with_metrics=False)
        states = [_state(seat, answers) for seat in self._seats]
        told = [answers.get(seat.worker) or {} for seat in self._seats]
        names = {name: None for checks in told for name in checks}
        serving = {state for state in states if state not in (DEAD, STARTING)}
        workers = [
            {
                "worker": seat.number,
                "pid": seat.worker.pid if seat.worker is not None and state != DEAD else None,
                "node": seat.worker.node_id if seat.worker is not None and state != DEAD else None,
                "status": state,
                "checks": checks,
            }
            for seat, state, checks in zip(self._seats, states, told, strict=True)
        ]
        well = {name: all(checks.get(name, True) for checks in told) for name in names}
        return serving == {READY}, {"checks": well, "workers": workers}

    async def exposition(self, *, is_open: bool) -> bytes:
        """The metrics of all workers as of one node, those of ended ones included, as a page.

        Of a worker that is silent, what it has counted stands as it was last told.
        """
        answers = await self._ask(list(self._running), is_with_metrics=True)
        parts, hot = [self._past], [self._past_hot]
        for worker in self._running:  # some may have ended meanwhile: those are in the past
            families, theirs = parsed(worker.metrics["library"]), worker.metrics["hot"]
            answers_now = answers.get(worker) is not None
            parts.append(families if answers_now else lasting(families))
            hot.append(theirs if answers_now else lasting_hot(theirs, self._hot))
            if worker.serves and answers.get(worker) is None:
                self._unanswered.inc()
        self._count(answers)
        library = registry_of([*merged(parts, GAUGE_RULES), *self._registry.collect()], is_open=is_open)
        return self._pages.page(merged_hot(hot, self._hot, GAUGE_RULES), library, is_open=is_open)

    def _count(self, answers: Mapping[WorkerProcess | None, Checks | None]) -> None:
        states = [_state(seat, answers) for seat in self._seats]
        seated = {seat.worker for seat in self._seats}
        counts = {
            "wanted": len(self._seats),
            "alive": len(states) - states.count(DEAD),
            "ready": states.count(READY),
            "leaving": sum(worker not in seated for worker in self._running),
        }
        for state, count in counts.items():
            self._workers.labels(state).set(count)

    async def _ask(
        self, workers: Sequence[WorkerProcess | None], *, is_with_metrics: bool
    ) -> dict[WorkerProcess | None, Checks | None]:
        asked = [worker for worker in workers if worker is not None and worker.serves]
        answers = await asyncio.gather(*(worker.ask(is_with_metrics=is_with_metrics) for worker in asked))
        return dict(zip(asked, answers, strict=True))


def _state(seat: Seat, answers: Mapping[WorkerProcess | None, Checks | None]) -> str:
    if seat.worker is None or seat.worker.ended.done():
        return DEAD
    checks = answers.get(seat.worker)
    if not seat.worker.has_started:
        return STARTING
    if checks is None:
        return SILENT
    return READY if checks and all(checks.values()) else UNREADY
