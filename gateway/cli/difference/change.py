"""A difference of two settings, and a change as it is told. Must not know: which setting means what."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from gateway.settings import Settings

Place = tuple[str, ...]
MASK: Final = "***"


class Danger(StrEnum):
    """What a change does to who gets in, the worst first."""

    OPENS = "opens"
    CLOSES = "closes"
    OTHER = "other"


class Absent:
    """Stands where one of the configurations has nothing of that name."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """Two values at one place. Either may be ABSENT, and secret ones are whole: `shown` masks them."""

    place: Place
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Context:
    """The two configurations as wholes."""

    old: Settings
    new: Settings


@dataclass(frozen=True, slots=True)
class Change:
    """One change in words: for `whom`, and what (a sentence without its full stop). Values are fit for JSON."""

    danger: Danger
    place: str
    whom: str
    text: str
    old: Any = None
    new: Any = None

    def shown(self) -> dict[str, Any]:
        """For programs."""
        return {
            "danger": self.danger.value,
            "place": self.place,
            "whom": self.whom,
            "text": self.text,
            "old": self.old,
            "new": self.new,
        }


def shown(value: Any) -> Any:
    """A value as it may be shown: plain, and without a secret in it."""
    if value is None or value is ABSENT:
        return None
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, BaseModel):
        return {name: shown(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(name): shown(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [shown(one) for one in value]
    if isinstance(value, frozenset | set):
        return sorted((shown(one) for one in value), key=str)
    if isinstance(value, bool | int | float | str):
        return value
    return str(value)


def worded(value: Any) -> str:
    """A value within a sentence."""
    plain = shown(value)
    if plain is None:
        return "none"
    if isinstance(plain, bool):
        return str(plain).lower()
    if isinstance(plain, float):
        return f"{plain:g}"
    if isinstance(plain, list):
        return ", ".join(worded(one) for one in plain) or "none"
    if isinstance(plain, dict):
        inner = ", ".join(f"{name}: {worded(one)}" for name, one in plain.items() if one not in (None, [], {}))
        return "{" + inner + "}"
    return str(plain)


def network_text(network: IPv4Network | IPv6Network) -> str:
    """A network; a single address without its prefix."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)
