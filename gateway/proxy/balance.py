"""Which of an upstream's targets gets a request. Pure: usable targets in, one of them out."""

import hashlib
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar, assert_never

from gateway.proxy.target import Target

T = TypeVar("T", bound=Target)

Balance = Literal["round_robin", "least_connections", "power_of_two", "user_hash"]
Balancer = Callable[[Sequence[Target], str], Target]  # (usable targets, user id or "") -> one of them

_RANDOM: Final = random.Random()  # noqa: S311  # spreads load; nobody gains by guessing it


def balancer(balance: Balance) -> Balancer:
    """The function that the setting names."""
    match balance:
        case "round_robin":
            return _round_robin()
        case "least_connections":
            return _least_connections
        case "power_of_two":
            return _power_of_two
        case "user_hash":
            return _user_hash()
        case _ as unreachable:
            assert_never(unreachable)


def _round_robin() -> Balancer:
    turns = itertools.count()
    return lambda targets, user: targets[next(turns) % len(targets)]


def _least_connections(targets: Sequence[Target], user: str) -> Target:
    """The one with the fewest exchanges under way; equal ones by chance, so that no target is everybody's first."""
    fewest = min(target.busy_count for target in targets)
    return _RANDOM.choice([target for target in targets if target.busy_count == fewest])


def _power_of_two(targets: Sequence[Target], user: str) -> Target:
    """The less busy of two picked by chance: nearly as even as asking all, and without the herd."""
    if len(targets) == 1:
        return targets[0]
    first, second = _RANDOM.sample(targets, 2)
    return first if first.busy_count <= second.busy_count else second


def _user_hash() -> Balancer:
    """The same target for the same user (rendezvous hashing): a target that goes moves its own users alone."""
    anonymous = _round_robin()

    def choose(targets: Sequence[Target], user: str) -> Target:
        if not user:
            return anonymous(targets, user)
        return max(
            targets,
            key=lambda target: hashlib.blake2b(f"{target.authority}\0{user}".encode(), digest_size=8).digest(),
        )

    return choose
