"""Every fault: `python -m tests.faults [--only NAME] [--seconds N] [--idle N]`. Exit code 1 where one broke a promise.

A whole run writes docs/faults.md; one with `--only` tells what it has seen, and writes nothing.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.faults import limits
from tests.faults.catalogue import Fault
from tests.faults.kinds import FAULTS
from tests.faults.page import DOCUMENT, written
from tests.faults.run import Pace, Seen, play, told, unseen
from tests.faults.stage import Stage, stage_in

IDLE = 10_000


def main() -> int:
    """Exit code 1 where something was seen that is not permitted."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--only", default="", help="faults with this in their names")
    parser.add_argument("--seconds", type=float, default=Pace.fault_seconds, help="how long each lasts, at least")
    parser.add_argument("--idle", type=int, default=IDLE, help="idle connections, where that is the fault")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    chosen = [fault for fault in FAULTS if asked.only.lower() in fault.name.lower()]
    if not chosen:
        parser.error(f"no fault has {asked.only} in its name")
    limits.raised_descriptors()
    all_seen = asyncio.run(_all(chosen, Pace(fault_seconds=asked.seconds), asked.idle))
    if len(chosen) == len(FAULTS) and not any(seen.violations for seen in all_seen):
        DOCUMENT.write_text(written(all_seen))
    return int(any(seen.violations for seen in all_seen))


async def _all(faults: Sequence[Fault], pace: Pace, idle: int) -> list[Seen]:
    all_seen: list[Seen] = []
    left = list(faults)
    with tempfile.TemporaryDirectory(prefix="ostiary-faults-") as name:
        while left:
            async with stage_in(Path(name) / f"stage-{len(left)}", idle=idle) as stage:
                while left and not stage.is_ruined:
                    seen = await _played(stage, left.pop(0), pace)
                    all_seen.append(seen)
                    stage.is_ruined = stage.is_ruined or bool(seen.violations)
                    sys.stdout.writelines(f"{line}\n" for line in told(seen))
                    sys.stdout.flush()
    return all_seen


async def _played(stage: Stage, fault: Fault, pace: Pace) -> Seen:
    try:
        return await play(stage, fault, pace)
    except (Exception, BaseExceptionGroup) as error:  # the others have their turn all the same
        traceback.print_exc()
        return unseen(fault, f"it could not be carried out: {error!r}")


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
