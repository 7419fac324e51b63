"""What a limit is, and how plans, entitlements and routes spell it. Pure. Must not know: clocks, who it is for.

A *window* (second, minute, hour) lets `burst` through at once and then refills evenly: the generic cell rate algorithm,
kept as a level that leaks. A *quota* (day, month) counts from the beginning of the calendar's day or month, in UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final


class Unit(IntEnum):
    """What a limit counts in: an even flow, or a calendar's days or months."""

    FLOW = 0
    DAY = 1
    MONTH = 2


FLOW_SECONDS: Final = {"per_second": 1, "per_minute": 60, "per_hour": 3600}
QUOTAS: Final = {"per_day": Unit.DAY, "per_month": Unit.MONTH}
WINDOWS: Final = (*FLOW_SECONDS, *QUOTAS)  # narrow ones first
TOLD_SECONDS: Final = {**FLOW_SECONDS, "per_day": 86_400, "per_month": 2_678_400}  # the `w` of RateLimit-Policy
SLICES: Final = 50  # a node takes a fiftieth of the smallest burst ahead: docs/limits.md has the bound that follows
RATE_LIMIT_LINES: Final = b"RateLimit-Policy: %b\r\nRateLimit: %b\r\n"
UNLIMITED: Final = (0, -1)  # an allowance of -1 is unlimited, and 0 limits nothing (R295)


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """`count` requests in `window`. `label` is what callers see it called; a quota's `burst` is its count."""

    window: str
    count: int
    burst: int
    label: str
    unit: Unit = field(init=False)
    seconds: int = field(init=False)
    rate: float = field(init=False)  # what leaks in a second; 0.0 of a quota, which goes by the calendar

    def __post_init__(self) -> None:
        unit = QUOTAS.get(self.window, Unit.FLOW)
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "seconds", TOLD_SECONDS[self.window])
        object.__setattr__(self, "rate", self.count / self.seconds if unit is Unit.FLOW else 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Allowance:
    """The limits that hold together, narrow ones first; equal ones are one object. `lines` tell callers of them.

    `malformed` are windows whose override made no sense, so that the plan's value stands (R300).
    """

    limits: tuple[Limit, ...]
    malformed: tuple[str, ...] = ()
    policy: bytes = field(init=False)
    told: bytes = field(init=False)  # with a place for what is left of each, and one for when all of it is back
    lines: bytes = field(init=False)  # both, as header lines with their CRLF
    slice: int = field(init=False)  # how many requests a node may take ahead of a budget that several share
    quota: Unit = field(init=False)  # the shortest of its quotas; FLOW where it has none

    def __post_init__(self) -> None:
        # draft-ietf-httpapi-ratelimit-headers-10, section 3: quota and window of each policy
        items = (f'"{limit.label}";q={limit.count};w={limit.seconds}' for limit in self.limits)
        object.__setattr__(self, "policy", ", ".join(items).encode())
        object.__setattr__(self, "told", ", ".join(f'"{limit.label}";r=%d;t=%d' for limit in self.limits).encode())
        object.__setattr__(self, "lines", RATE_LIMIT_LINES % (self.policy, self.told))
        smallest = min((limit.burst for limit in self.limits), default=0)
        object.__setattr__(self, "slice", max(1, smallest // SLICES))
        quotas = [limit.unit for limit in self.limits if limit.unit is not Unit.FLOW]
        object.__setattr__(self, "quota", min(quotas, default=Unit.FLOW))


def limits_of(counts: Mapping[str, int], label: str, burst: int | None = None) -> tuple[Limit, ...]:
    """The limits among `counts` (by window); `burst` is that of windows, if it is not their count."""
    return tuple(
        Limit(
            window, counts[window], counts[window] if burst is None or window in QUOTAS else burst, f"{label}.{window}"
        )
        for window in WINDOWS
        if counts.get(window, 0) not in UNLIMITED
    )


def allowance_of(override: Mapping[str, Any], plan: Mapping[str, Any]) -> Allowance | None:
    """What a plan allows with a user's own limits over it (`override` holds both); None where that is everything.

    A value that is no whole number, or below -1, is passed over: the plan's stands, or there is none (R300).
    """
    malformed = tuple(window for window in WINDOWS if window in override and not _is_count(override[window]))
    counts = [(window, value) for window in WINDOWS if (value := _count(window, override, plan)) not in UNLIMITED]
    return _shared(tuple(counts), malformed) if counts or malformed else None


def _count(window: str, *values: Mapping[str, Any]) -> int:
    return next((mapping[window] for mapping in values if window in mapping and _is_count(mapping[window])), 0)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= -1


@lru_cache(maxsize=4096)
def _shared(counts: tuple[tuple[str, int], ...], malformed: tuple[str, ...]) -> Allowance:
    """A hundred thousand keys have a few plans."""
    return Allowance(limits_of(dict(counts), "plan"), malformed)
