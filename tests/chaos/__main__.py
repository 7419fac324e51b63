"""The long run: `python -m tests.chaos [--changes 10000] [--seed 1]`. Prints its table; exit code 1 for any fault."""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from tests.chaos.measures import Measures
from tests.chaos.report import table
from tests.chaos.run import run
from tests.chaos.tally import Tally

PROGRESS_SECONDS = 30.0
MOST_TOLD = 5


def main() -> int:
    """Exit code 1 where the promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--changes", type=int, default=10_000, help="how many narrowing ones")
    parser.add_argument("--seed", type=int, default=1, help="of what is changed and hurt; timing differs every time")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    measures, tally = Measures(changes=asked.changes, seed=asked.seed), Tally()
    try:
        with tempfile.TemporaryDirectory(prefix="ostiary-chaos-") as name:
            asyncio.run(watched(Path(name), measures, tally))
    finally:
        # Of a run that was interrupted too.
        sys.stdout.write(table(tally, measures))
        sys.stdout.flush()
    faults = tally.faults()
    sys.stderr.writelines(f"{line}\n" for line in faults)
    return int(bool(faults))


async def watched(folder: Path, measures: Measures, tally: Tally) -> None:
    """Run, and say now and then how far it is, and what is newly wrong."""
    running = asyncio.create_task(run(folder, measures, tally))
    told: set[str] = set()
    while not (await asyncio.wait({running}, timeout=PROGRESS_SECONDS))[0]:
        news = [fault for fault in tally.faults() if fault not in told]
        told.update(news)
        sys.stderr.writelines(f"{line}\n" for line in (tally.progress, *news[:MOST_TOLD]))
    running.result()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
