"""Our own deadline around calls of a library that has none worth the name."""

import asyncio
import time

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.deadline import DROPPED_LIMIT, BoundedCalls, CallDropped
from gateway.telemetry.metrics import Metrics
from tests.fixtures.waiting import until


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def calls(metrics: Metrics) -> BoundedCalls:
    return BoundedCalls("redis", metrics)


async def stubborn(release: asyncio.Event) -> None:
    """Ignores its cancellation until it is released, as a library does that waits for its peer."""
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue


async def test_a_result_and_an_error_pass_through(calls: BoundedCalls) -> None:
    """In time, the deadline is not to be noticed. R051."""

    async def fail() -> None:
        raise KeyError("x")

    assert await calls.run(asyncio.sleep(0, "done"), seconds=1.0) == "done"
    with pytest.raises(KeyError):
        await calls.run(fail(), seconds=1.0)


async def test_nobody_waits_for_the_clean_up(calls: BoundedCalls, metrics: Metrics) -> None:
    """A call that does not end when cancelled is left behind, and counted. R051."""
    release = asyncio.Event()
    began = time.monotonic()
    with pytest.raises(CallDropped):
        await calls.run(stubborn(release), seconds=0.02)
    assert time.monotonic() - began < 0.5
    assert metrics.registry.get_sample_value("ostiary_dropped_calls_total", {"dependency": "redis"}) == 1
    release.set()
    await calls.close(seconds=1.0)
    assert len(asyncio.all_tasks()) == 1


async def test_dropped_calls_are_limited_in_number(calls: BoundedCalls) -> None:
    """A library that never lets go cannot pile up tasks without end. R051."""
    release = asyncio.Event()
    await asyncio.gather(
        *(calls.run(stubborn(release), seconds=0.01) for _ in range(DROPPED_LIMIT)), return_exceptions=True
    )
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="too many"):
        await calls.run(asyncio.sleep(0), seconds=5.0)
    assert time.monotonic() - began < 1.0
    release.set()
    await until(lambda: len(asyncio.all_tasks()) == 1)
    await calls.run(asyncio.sleep(0), seconds=5.0)


async def test_a_caller_that_leaves_takes_its_call_along(calls: BoundedCalls) -> None:
    """Cancelled with its caller, not left running. R050."""
    caller = asyncio.create_task(calls.run(asyncio.sleep(60), seconds=60.0))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_late_loop_is_not_held_against_the_dependency(calls: BoundedCalls) -> None:
    """An answer that came in time, while this process was busy, is taken."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        text = await answer
        for _ in range(3):  # a library wakes several times before it has an answer
            await asyncio.sleep(0)
        return text

    def stall() -> None:
        time.sleep(0.1)
        asyncio.get_running_loop().call_soon(answer.set_result, "here")

    asyncio.get_running_loop().call_soon(stall)
    assert await calls.run(ask(), seconds=0.05) == "here"
