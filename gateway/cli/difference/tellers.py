"""Ways to tell a kind of difference: numbers, flags, lists, things that come and go.

A teller is made once, for a setting; it takes a difference and says what it means, or nothing where it has nothing to
say: then the setting is told as one that changed from a to b. Texts may hold `{name}`, the second part of the place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gateway.cli.difference.change import (
    ABSENT,
    Change,
    Context,
    Danger,
    Difference,
    Place,
    network_text,
    shown,
    worded,
)
from gateway.cli.difference.walk import collapsed
from gateway.configuration.mistakes import shown as spelled

Teller = Callable[[Difference, Context], Iterator[Change]]

OPENS, CLOSES, OTHER = Danger.OPENS, Danger.CLOSES, Danger.OTHER
EVERYBODY = "everybody"
MORE, LESS = (OPENS, CLOSES), (CLOSES, OPENS)  # what more of something does, and what less of it does
NEITHER = (OTHER, OTHER)


def otherwise(difference: Difference) -> Change:
    """What is told of a difference that nothing else is said of."""
    if difference.new is ABSENT:
        text = f"{_place(difference.place)} is gone (was {worded(difference.old)})"
    elif difference.old is ABSENT:
        text = f"{_place(difference.place)} is new: {worded(difference.new)}"
    else:
        said = worded(difference.old), worded(difference.new)
        how = "to another value" if said[0] == said[1] else f"from {said[0]} to {said[1]}"
        text = f"other setting {_place(difference.place)} changed {how}"
    return _change(OTHER, difference, _whom(difference.place), text)


def number(what: str, unit: str = "", *, dangers: tuple[Danger, Danger] = NEITHER, none: str = "no limit") -> Teller:
    """`what` rises or drops; without a value it is `none`, which is more than any number."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        old, new = _bare(difference.old), _bare(difference.new)
        is_rise = new is None or (old is not None and new > old)
        subject, behind = _filled(what, difference.place), f" {unit}" if unit else ""
        if old is None:
            text = f"{subject} drops from {none} to {worded(new)}{behind}"
        elif new is None:
            text = f"{subject} rises from {worded(old)}{behind} to {none}"
        else:
            text = f"{subject} {'rises' if is_rise else 'drops'} from {worded(old)} to {worded(new)}{behind}"
        yield _change(dangers[0 if is_rise else 1], difference, _whom(difference.place), text)

    return tell


def flag(on: tuple[Danger, str], off: tuple[Danger, str]) -> Teller:
    """Something is turned on or off."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        danger, text = on if difference.new else off
        yield _change(danger, difference, _whom(difference.place), _filled(text, difference.place))

    return tell


def presence(come: tuple[Danger, str], gone: tuple[Danger, str]) -> Teller:
    """Something is set up or taken away; `{value}` is what it is, or was."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        is_come = _bare(difference.old) is None
        if is_come == (_bare(difference.new) is None):
            return
        danger, text = come if is_come else gone
        value = worded(difference.new if is_come else difference.old)
        yield _change(danger, difference, _whom(difference.place), _filled(text, difference.place, value=value))

    return tell


def items(added: tuple[Danger, str], removed: tuple[Danger, str]) -> Teller:
    """Some of a list come, others go; `{items}` are those."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        old, new = (_members(value) for value in (difference.old, difference.new))
        for (danger, text), some in ((added, new - old), (removed, old - new)):
            if some:
                said = _filled(text, difference.place, items=", ".join(sorted(some)))
                yield _change(danger, difference, _whom(difference.place), said)

    return tell


def networks(added: tuple[Danger, str], removed: tuple[Danger, str], *, empty_is_all: bool = False) -> Teller:
    """The same of networks. Where `empty_is_all`, an empty list is the longest."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        whom = _whom(difference.place)
        if empty_is_all and bool(difference.old) != bool(difference.new):
            danger, text = added if difference.old else removed
            said = "any address" if difference.old else f"any address but {_networks(difference.new)}"
            yield _change(danger, difference, whom, _filled(text, difference.place, items=said))
            return
        old, new = collapsed(difference.old), collapsed(difference.new)
        for (danger, text), some in ((added, new - old), (removed, old - new)):
            if some:
                said = _filled(text, difference.place, items=_networks(some))
                yield _change(danger, difference, whom, said)

    return tell


def ranked(order: Sequence[str], text: str) -> Teller:
    """One word for another; each in `order` lets more in than the one before it. `{old}` and `{new}` are the words."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        if difference.old not in order or difference.new not in order:
            return
        is_wider = order.index(difference.new) > order.index(difference.old)
        said = _filled(text, difference.place, old=worded(difference.old), new=worded(difference.new))
        yield _change(OPENS if is_wider else CLOSES, difference, _whom(difference.place), said)

    return tell


def worded_as(words: Mapping[str, tuple[Danger, str]]) -> Teller:
    """One word for another, each with its own sentence."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        found = words.get(difference.new)
        if found is not None:
            yield _change(found[0], difference, _whom(difference.place), _filled(found[1], difference.place))

    return tell


def replaced(*told: tuple[Danger, str]) -> Teller:
    """One value for another; each text may hold `{old}` and `{new}`. More than one where it opens and closes."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        values = {"old": worded(difference.old), "new": worded(difference.new)}
        for danger, text in told:
            yield _change(danger, difference, _whom(difference.place), _filled(text, difference.place, **values))

    return tell


def _change(danger: Danger, difference: Difference, whom: str, text: str) -> Change:
    return Change(danger, _place(difference.place), whom, text, shown(difference.old), shown(difference.new))


def _whom(place: Place) -> str:
    """Whom a setting is about."""
    section, name = place[0], place[1] if len(place) > 1 else ""
    match section:
        case "routes":
            return f"callers of route {name}"
        case "plans":
            return f"users of plan {name}"
        case "upstreams":
            return f"callers of routes to upstream {name}"
        case "oidc":
            return "users who sign in"
        case "tokens":
            return "callers with access tokens"
        case "keys" | "environment":
            return "owners of keys"
        case "github_secret_scanning":
            return "owners of leaked keys"
        case "listen" if name in ("admin", "status"):
            return "operators"
        case "metering":
            return "operators"
        case _:
            return EVERYBODY


def _filled(text: str, place: Place, **values: str) -> str:
    names = {"name": place[1] if len(place) > 1 else "", "last": place[-1], "words": place[-1].replace("_", " ")}
    return text.format(**{**names, "third": place[3] if len(place) > 3 else "", **values})


def _place(place: Place) -> str:
    return spelled(place)


def _bare(value: Any) -> Any:
    return None if value is ABSENT else value


def _members(value: Any) -> set[str]:
    return set() if value in (None, ABSENT) else {worded(one) for one in value}


def _networks(some: Any) -> str:
    return ", ".join(sorted(network_text(network) for network in some))
