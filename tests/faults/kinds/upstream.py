"""What upstreams do wrong. Callers are told whose fault it is, and nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from tests.faults.catalogue import fault
from tests.faults.permitted import permitted
from tests.faults.stage import RESPONSE_SECONDS, Stage
from tests.faults.upstreams import Behaviour, Visit, well

NONSENSE: Final = b"\x00\xffHTTP/9.9 two hundred\r\n\r\n"
TRICKLE_SECONDS: Final = 0.02
ANY_FAILURE: Final = "200 | 502 upstream_error"


async def _behaving(stage: Stage, behaviour: Behaviour) -> AsyncIterator[None]:
    stage.orders.behave = behaviour
    try:
        yield
    finally:
        stage.orders.behave = well


@fault(
    "upstream slow",
    peers="upstream slow",
    what=f"no answer within `timeouts.response` ({RESPONSE_SECONDS:g} s here)",
    permits=permitted(known="200 | 504 upstream_timeout", cold="200 | 504 upstream_timeout"),
)
async def slow(stage: Stage) -> AsyncIterator[None]:
    """It takes requests and leaves them lying."""

    async def wait(visit: Visit) -> None:
        await asyncio.sleep(3 * RESPONSE_SECONDS)

    async for _ in _behaving(stage, wait):
        yield


@fault(
    "upstream resets in mid-reply",
    peers="upstream breaks off",
    what="half of the answer, then RST",
    permits=permitted(known="200 | cut", cold="200 | cut"),
)
async def resets(stage: Stage) -> AsyncIterator[None]:
    """The client must be able to tell that it has half an answer."""

    async def reset(visit: Visit) -> None:
        visit.note_answer()
        await visit.send(visit.whole()[:-5])
        await asyncio.sleep(0.05)
        visit.reset()

    async for _ in _behaving(stage, reset):
        yield


@fault(
    "upstream closes on reuse",
    peers="upstream closes on reuse",
    what="a kept connection is reset as the next request comes on it",
    permits=permitted(posts=ANY_FAILURE),
)
async def closes_on_reuse(stage: Stage) -> AsyncIterator[None]:
    """It may have done what was asked: only what may be repeated is sent once more."""

    async def close(visit: Visit) -> None:
        if visit.nth > 1:
            visit.reset()
        else:
            await visit.answer()

    async for _ in _behaving(stage, close):
        yield


@fault("upstream trickles", peers="upstream slow", what="its answers come byte by byte")
async def trickles(stage: Stage) -> AsyncIterator[None]:
    """Slow, and whole in the end."""

    async def trickle(visit: Visit) -> None:
        visit.note_answer()
        for byte in visit.whole():
            await visit.send(bytes([byte]))
            await asyncio.sleep(TRICKLE_SECONDS / 10)

    async for _ in _behaving(stage, trickle):
        yield


@fault(
    "upstream answers nonsense",
    peers="upstream breaks off",
    what="bytes that are no HTTP",
    permits=permitted(known=ANY_FAILURE, cold=ANY_FAILURE),
)
async def nonsense(stage: Stage) -> AsyncIterator[None]:
    """Nothing of it reaches a client."""

    async def babble(visit: Visit) -> None:
        await visit.send(NONSENSE)
        visit.reset()

    async for _ in _behaving(stage, babble):
        yield


@fault(
    "upstream gone",
    peers="upstream breaks off",
    what="its port refuses connections, those that stood are broken",
    permits=permitted(known=ANY_FAILURE, cold=ANY_FAILURE),
)
async def gone(stage: Stage) -> AsyncIterator[None]:
    """It was stopped."""
    await stage.orders.stop()
    try:
        yield
    finally:
        await stage.orders.start()
