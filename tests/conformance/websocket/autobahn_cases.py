"""The sections of the Autobahn suite: how many cases each has, and how their verdicts are got."""

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.conformance.websocket.autobahn_client import Verdict

ROOT: Final = Path(__file__).parents[3]
PASSED: Final = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})

FRAMING: Final = {"1.1": 8, "1.2": 8}
PINGS: Final = {"2": 11}
RESERVED: Final = {"3": 7}
OPCODES: Final = {"4.1": 5, "4.2": 5}
FRAGMENTS: Final = {"5": 20}
UTF8: Final = {
    f"6.{number}": count
    for number, count in enumerate(
        (3, 4, 2, 4, 5, 11, 4, 2, 4, 3, 5, 8, 5, 10, 1, 3, 5, 5, 5, 7, 8, 34, 7),
        start=1,
    )
}
CLOSING: Final = {"7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2}
LIMITS: Final = {"9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6}
MISCELLANEOUS: Final = {"10.1": 1}
DEFLATE: Final = {f"{part}.{number}": 18 for part, count in ((12, 5), (13, 7)) for number in range(1, count + 1)}

# aiohttp's server answers a close frame with code 1005, which nobody may send, as if it were a good one.
SERVERS_OWN_FAULTS: Final = frozenset({"7.9.5"})

ALL_BUT_DEFLATE: Final = FRAMING | PINGS | RESERVED | OPCODES | FRAGMENTS | UTF8 | CLOSING | LIMITS | MISCELLANEOUS


def is_passed(verdict: Verdict) -> bool:
    """Whether the suite is content."""
    return {verdict["behaviour"], verdict["close"]} <= PASSED


def names(sections: Mapping[str, int], only: Iterable[int] | None = None) -> list[str]:
    """The cases of `sections`; of each those with the numbers in `only`, if given."""
    numbered = ((section, range(1, count + 1) if only is None else only) for section, count in sections.items())
    return [f"{section}.{number}" for section, numbers in numbered for number in numbers]


async def verdicts(url: str, cases: list[str]) -> dict[str, Verdict]:
    """What the suite says of the server at `url`, for each of `cases`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.conformance.websocket.autobahn_client", url, *cases),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, process.returncode
    told: dict[str, Verdict] = json.loads(printed)
    missing = set(cases) - set(told)
    assert not missing, f"cases without a verdict: {sorted(missing)}"
    return told
