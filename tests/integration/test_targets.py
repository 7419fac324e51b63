"""Several targets behind one upstream: balancing, health checks, second tries. The servers are really stopped."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.upstream import RecordedRequest, RecordingUpstream, Reply
from tests.fixtures.waiting import until


@pytest.fixture
async def pair() -> AsyncIterator[list[RecordingUpstream]]:
    """Two targets that answer with their number."""

    def numbered(number: int) -> RecordingUpstream:
        return RecordingUpstream(lambda request: Reply(body=str(number).encode()))

    async with numbered(0) as first, numbered(1) as second:
        yield [first, second]


async def started(start: StartGateway, pair: list[RecordingUpstream], **upstream: Any) -> GatewayProcess:
    return await start({"upstreams": {"orders": {"targets": [target.url for target in pair], **upstream}}})


async def ask(node: GatewayProcess, method: str = "GET", **options: Any) -> tuple[int, str]:
    url = f"{node.proxy_url}/public"
    # A connection of its own each time: what is measured is the gateway's choice, not the client's reuse.
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as response:
        return response.status, await response.text()


async def test_targets_take_turns(gateway: StartGateway, pair: list[RecordingUpstream]) -> None:
    """By default the targets are asked in turn."""
    node = await started(gateway, pair)
    assert [(await ask(node))[1] for _ in range(6)] in (list("010101"), list("101010"))


async def test_second_try_hides_a_dead_target(gateway: StartGateway, pair: list[RecordingUpstream]) -> None:
    """With retries nobody sees that a target is gone: what was not sent goes to the other, bodies included."""
    node = await started(gateway, pair, retries={"attempts": 2})
    await pair[0].stop()
    for _ in range(4):
        assert await ask(node) == (200, "1")
        assert await ask(node, "POST", data=b"x" * 100_000) == (200, "1")
    assert pair[1].last.body == b"x" * 100_000
    assert node.log.count("upstream_failing") <= 1 + node.log.count("upstream_answers_again")


async def test_dead_target_is_left_alone_and_comes_back(gateway: StartGateway, pair: list[RecordingUpstream]) -> None:
    """After some failures in a row a dead target is asked no more; once it is back, one request finds out."""
    node = await started(gateway, pair)
    await pair[0].stop()
    answers = [await ask(node) for _ in range(20)]
    assert 1 <= sum(status == 502 for status, _ in answers) <= 6
    assert answers[-5:] == [(200, "1")] * 5
    await pair[0].start()

    async def is_back() -> bool:
        return (await ask(node))[1] == "0"

    await until(is_back, seconds=15, what="the target to be asked again")
    assert {(await ask(node)) for _ in range(4)} == {(200, "0"), (200, "1")}


async def test_restarted_target_costs_no_retry(gateway: StartGateway, pair: list[RecordingUpstream]) -> None:
    """Kept connections of a target that goes are repeated for free, and the retry is still there for the other one."""
    node = await started(gateway, pair, retries={"attempts": 2})
    for _ in range(4):
        assert (await ask(node))[0] == 200
    await pair[0].stop()
    assert [await ask(node) for _ in range(4)] == [(200, "1")] * 4


@pytest.mark.threat("repeated writes")
async def test_request_that_was_sent_is_not_sent_twice(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """A POST whose connection breaks after it was sent is a 502; no target sees it again."""

    def break_off(request: RecordedRequest) -> Reply:
        raise ConnectionResetError

    upstream.respond = break_off
    async with RecordingUpstream() as other:
        node = await started(gateway, [upstream, other], retries={"attempts": 3})
        while not upstream.requests:
            status, _ = await ask(node, "POST", data=b"once")
        assert status == 502
        assert len(upstream.requests) == 1
        sent = len(other.requests)
        assert (await ask(node, "GET"))[0] == 200  # this one may be repeated elsewhere, and is where it has to be
        assert sum(request.method == "POST" for request in other.requests) == sent


async def test_unhealthy_target_is_not_asked(gateway: StartGateway, pair: list[RecordingUpstream]) -> None:
    """A target whose health path answers badly is left out; with all of them it is a 503; a good answer ends that."""
    bad: set[int] = set()

    def respond(number: int) -> Any:
        def answer(request: RecordedRequest) -> Reply:
            is_check = request.target == "/healthz"
            return Reply(status=500 if is_check and number in bad else 200, body=str(number).encode())

        return answer

    for number, target in enumerate(pair):
        target.respond = respond(number)
    health = {"path": "/healthz", "interval_seconds": 0.05, "timeout_seconds": 1, "unhealthy_after": 2}
    node = await started(gateway, pair, health=health)

    async def answers_are(expected: set[tuple[int, str]]) -> None:
        async def are() -> bool:
            return {
                (status, text if status == 200 else "") for status, text in [await ask(node) for _ in range(4)]
            } == expected

        await until(are, what=f"answers {expected}")

    await answers_are({(200, "0"), (200, "1")})
    bad.add(0)
    await answers_are({(200, "1")})
    bad.add(1)
    await answers_are({(503, "")})
    async with aiohttp.ClientSession() as session, session.get(f"{node.proxy_url}/public") as response:
        assert (await response.json())["code"] == "upstream_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
    bad.clear()
    await answers_are({(200, "0"), (200, "1")})
