"""A second try that goes to a target on trial, in a proxy whose connections and time are in memory."""

import asyncio

from gateway.proxy.errors import UpstreamError
from gateway.proxy.target import FAILURES_TO_EJECT, FIRST_EJECTION_SECONDS
from tests.fuzz.parts import STRANGER
from tests.fuzz.stage import Stage
from tests.fuzz.transports import MemoryLoop, Network


def test_a_trial_ends_with_a_client_that_leaves_as_it_begins() -> None:
    """The client leaves in the same turn of the loop in which its upstream does: the second try is no endless trial."""
    network = Network()

    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MemoryLoop)
        stage = Stage(0, network, loop, [])
        upstream = stage.engine.services.upstreams["two"]
        first, second = upstream.targets
        for _ in range(FAILURES_TO_EJECT):
            upstream.failed(second, UpstreamError("of an earlier request"))
        network.clock.now += FIRST_EJECTION_SECONDS
        stage.say(STRANGER, b"GET /o HTTP/1.1\r\nHost: a\r\n\r\n")
        await loop.settled()
        assert [connection.target for connection in first.open] == [first]
        network.made[0].break_off(None)
        stage.peer(STRANGER).transport.break_off(None)
        await loop.settled()
        assert network.attempts == 2, "the second try has been made"
        assert second.is_fit(network.clock.now)

    with asyncio.Runner(loop_factory=lambda: MemoryLoop(network)) as runner:
        runner.run(play())
