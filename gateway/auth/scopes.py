"""What a granted scope allows. Pure.

A scope is words between colons, from the wide to the narrow: `orders:read:1729`. It allows itself and everything under
it, so `orders:read` is for every order, and `orders:read:1729` for one. `all` as the last word stands for any:
`read:all` allows `read:orders` and nothing that writes. `admin` by itself allows everything; `admin:billing` is a scope
like others.
"""

from collections.abc import Collection, Iterable
from typing import Final

UNIVERSAL: Final = frozenset({"admin", "all"})


def allows(granted: Collection[str], asked: str) -> bool:
    """Whether one of the granted scopes is as wide as the one asked for (R173)."""
    return asked in granted or any(_is_under(asked, scope) for scope in granted)


def lacking(granted: Collection[str], asked: Iterable[str]) -> list[str]:
    """Those of the scopes asked for that none of the granted ones allows, sorted; each of them counts (R174)."""
    return sorted(scope for scope in asked if not allows(granted, scope))


def shared(one: Collection[str], other: Collection[str]) -> tuple[str, ...]:
    """What both allow, sorted: of two scopes of which one is under the other, the narrow one."""
    narrow = {scope for scope in one if allows(other, scope)} | {scope for scope in other if allows(one, scope)}
    return tuple(sorted(narrow))


def _is_under(asked: str, scope: str) -> bool:
    if scope in UNIVERSAL:
        return True
    return asked.startswith(scope.removesuffix("all") if scope.endswith(":all") else scope + ":")
