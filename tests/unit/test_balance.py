"""Balancers and the fitness of targets: pure, with a clock that stands still."""

from collections import Counter
from typing import Any

import pytest

from gateway.proxy.balance import balancer
from gateway.proxy.errors import UpstreamError, UpstreamUnavailable
from gateway.proxy.headers import RESPONSE_FIELDS, HeaderTable
from gateway.proxy.target import FAILURES_TO_EJECT, LONGEST_EJECTION_SECONDS, Target
from gateway.proxy.upstream import RETRY_BURST, Upstream
from gateway.proxy.upstream_connection import UpstreamConnection

TABLE = HeaderTable(RESPONSE_FIELDS)
ERROR = UpstreamError("broken")


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def occupy(target: Target, count: int) -> None:
    """So many of its connections are in an exchange."""
    target.open.update(UpstreamConnection(target, TABLE) for _ in range(count))


def targets(count: int) -> list[Target]:
    async def never(factory: Any) -> Any:
        raise AssertionError("nothing connects here")

    return [Target(f"target-{number}", never, TABLE) for number in range(count)]


def upstream(group: list[Target], clock: Clock, *, attempts: int = 1) -> Upstream:
    return Upstream(
        "orders",
        list(group),
        balance="round_robin",
        attempts=attempts,
        connect_seconds=1,
        idle_seconds=1,
        observe=lambda seconds: None,
        monotonic=clock.monotonic,
    )


async def test_round_robin_takes_turns() -> None:
    """Each target gets every n-th request."""
    group = targets(3)
    choose = balancer("round_robin")
    assert [choose(group, "").authority[-1] for _ in range(6)] == list("012012")


async def test_least_connections_takes_the_idle_one() -> None:
    """The target with the fewest exchanges gets the request; equal ones share."""
    group = targets(3)
    for target, count in zip(group, (3, 1, 1), strict=True):
        occupy(target, count)
    choose = balancer("least_connections")
    chosen = Counter(choose(group, "").authority for _ in range(400))
    assert set(chosen) == {"target-1", "target-2"}
    assert min(chosen.values()) > 100


async def test_power_of_two_avoids_the_busiest() -> None:
    """Of two picked by chance the less busy one: the busiest of all gets nothing."""
    group = targets(4)
    occupy(group[2], 9)
    choose = balancer("power_of_two")
    chosen = Counter(choose(group, "").authority for _ in range(400))
    assert set(chosen) == {"target-0", "target-1", "target-3"}


async def test_user_hash_is_steady() -> None:
    """A user keeps his target, users spread, and a target that goes moves its own users alone."""
    group = targets(4)
    choose = balancer("user_hash")
    users = [f"user-{number}" for number in range(400)]
    before = {user: choose(group, user) for user in users}
    assert {user: choose(group, user) for user in users} == before
    assert min(Counter(target.authority for target in before.values()).values()) > 50
    after = {user: choose(group[1:], user) for user in users}
    assert all(after[user] is before[user] for user in users if before[user] is not group[0])


async def test_failures_in_a_row_eject_with_growing_time() -> None:
    """A failing target is left alone, tried with one request, and left alone for twice as long when that fails."""
    clock, group = Clock(), targets(2)
    service = upstream(group, clock)
    for _ in range(FAILURES_TO_EJECT):
        service.failed(group[0], ERROR)
    assert {service.pick("") for _ in range(6)} == {group[1]}
    clock.now += 1.0
    trial = [service.pick("") for _ in range(6)]
    assert trial.count(group[0]) == 1
    service.failed(group[0], ERROR)
    clock.now += 1.5
    assert {service.pick("") for _ in range(6)} == {group[1]}
    clock.now += 0.5
    assert group[0] in [service.pick("") for _ in range(2)]
    service.answered(group[0])
    assert {service.pick("") for _ in range(6)} == set(group)
    assert not service.is_troubled


async def test_trial_that_says_nothing_lets_another_try() -> None:
    """A trial whose client leaves tells nothing of the target: the next request tries, however late."""
    clock, group = Clock(), targets(2)
    service = upstream(group, clock)
    for _ in range(FAILURES_TO_EJECT):
        service.failed(group[0], ERROR)
    clock.now += 1.0
    assert [service.pick("") for _ in range(6)].count(group[0]) == 1
    assert group[0].is_on_trial
    group[0].trial_ended()
    assert [service.pick("") for _ in range(6)].count(group[0]) == 1


async def test_target_that_never_comes_back_is_tried_for_ever() -> None:
    """The time between two trials grows to its limit, and no further, however often."""
    clock, group = Clock(), targets(2)
    for _ in range(FAILURES_TO_EJECT):
        group[0].failed(clock.now, may_eject=True)
    for _ in range(3000):
        clock.now = group[0].ejected_until
        group[0].chosen()
        assert group[0].failed(clock.now, may_eject=True)
        assert group[0].ejected_until - clock.now <= LONGEST_EJECTION_SECONDS


async def test_failures_under_way_are_held_against_it_once() -> None:
    """Requests that were under way when a target was ejected, and fail too, do not lengthen its ejection."""
    clock, group = Clock(), targets(2)
    service = upstream(group, clock)
    for _ in range(60):
        service.failed(group[0], ERROR)
    assert group[0].ejected_until == clock.now + 1.0


async def test_answers_between_failures_are_forgiven() -> None:
    """Only failures in a row count, also where another target answers in between."""
    clock, group = Clock(), targets(2)
    service = upstream(group, clock)
    for _ in range(10 * FAILURES_TO_EJECT):
        service.failed(group[0], ERROR)
        service.answered(group[1])
        assert service.is_troubled, "the next answer of the failing target must be heard"
        service.answered(group[0])
    assert not group[0].ejected_until


async def test_no_more_than_half_are_ejected() -> None:
    """Where all fail the fault is likelier elsewhere: half of the targets stay, whatever they do."""
    group = targets(4)
    service = upstream(group, Clock())
    for _ in range(50):
        for target in group:
            service.failed(target, ERROR)
    assert len({service.pick("") for _ in range(40)}) == 2


async def test_single_target_is_never_ejected() -> None:
    """There is no one to ask instead."""
    group = targets(1)
    service = upstream(group, Clock())
    for _ in range(50):
        service.failed(group[0], ERROR)
    assert service.pick("") is group[0]


async def test_unhealthy_targets_are_out() -> None:
    """What the health check has found bad is not asked; with none left the answer is that there is none."""
    group = targets(2)
    service = upstream(group, Clock())
    service.set_health(group[0], False)
    assert {service.pick("") for _ in range(4)} == {group[1]}
    service.set_health(group[1], False)
    with pytest.raises(UpstreamUnavailable):
        service.pick("")
    service.set_health(group[1], True)
    assert service.pick("") is group[1]


async def test_another_target_for_a_second_try() -> None:
    """A second try goes to a target that has not been tried, while there is one."""
    group = targets(2)
    service = upstream(group, Clock())
    assert {service.pick_other("", (group[0],)) for _ in range(4)} == {group[1]}
    assert {service.pick_other("", tuple(group)) for _ in range(4)} == set(group)


async def test_retries_have_a_budget() -> None:
    """Retries are a share of the requests, so that a failing upstream is not asked twice as much."""
    service = upstream(targets(2), Clock(), attempts=3)
    allowed = sum(service.may_retry(1) for _ in range(100))
    assert allowed == RETRY_BURST
    for _ in range(100):
        service.earn_retry()
        allowed += service.may_retry(1)
    assert allowed <= RETRY_BURST + 20
    assert not service.may_retry(3)
