"""The Autobahn cases, as a client, in a process of their own: `python -m ...autobahn_client URL CASE...`.

Prints a JSON object with the verdict of each case.
"""

import asyncio
import hashlib
import json
import os
import sys
from typing import Final, TypedDict

from kosoku import FailureError, run_fuzzingclient

PARALLEL: Final = 8  # most cases wait more than they work


class Verdict(TypedDict):
    """What the suite says of a case, and what it saw: equal, where two servers behave alike."""

    behaviour: str
    close: str
    code: int | None
    is_clean: bool
    received: str  # a digest of messages, pings and pongs, in their order


async def verdicts(url: str, cases: list[str]) -> dict[str, Verdict]:
    """Run `cases` (names, or `9.*`) against the server at `url`."""
    try:
        results = await run_fuzzingclient(url, cases, concurrency=PARALLEL)
    except FailureError as failure:
        results = failure.results
    return {
        result.case_id: Verdict(
            behaviour=result.behavior.value,
            close=result.behavior_close.value,
            code=result.remote_close_code,
            is_clean=result.was_clean,
            received=hashlib.sha256(repr(result.received).encode()).hexdigest(),
        )
        for result in results
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(verdicts(sys.argv[1], sys.argv[2:]))))
    sys.stdout.flush()
    os._exit(0)  # the suite's own threads now and then abort an interpreter that ends in order
