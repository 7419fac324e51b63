"""The soak: `python -m tests.soak [--minutes 30] [--per-second 100]`. Prints its tables; exit code 1 for any fault."""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from tests.soak.run import run


def main() -> int:
    """Exit code 1 where something stayed behind, or an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=30.0, help="of traffic; there is a rest after each tenth")
    parser.add_argument("--per-second", type=float, default=100.0, help="short requests, beside streams and sockets")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # the upstream's streams are cut now and then
    with tempfile.TemporaryDirectory(prefix="ostiary-soak-") as name:
        report = asyncio.run(run(Path(name), minutes=asked.minutes, per_second=asked.per_second))
    sys.stdout.write(report.text() + "\n")
    sys.stdout.flush()
    sys.stderr.writelines(f"{line}\n" for line in report.faults)
    return int(bool(report.faults))


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
