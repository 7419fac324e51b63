"""What changes, and for whom, from one configuration to another, in terms of who gets in.

change.py        a difference of two settings, and a change as it is told
walk.py          two configurations side by side; what differs in spelling alone is no difference
routing.py       which requests are answered by another route, or by none
tellers.py       ways to tell a kind of difference
rules.py         how each setting is told: a table

Whatever differs and has no sentence of its own is told all the same: as a setting that changed from a to b.
"""

from collections.abc import Iterator

from gateway.cli.difference.change import Change, Context, Danger, Difference
from gateway.cli.difference.routing import Rerouting
from gateway.cli.difference.rules import teller_of
from gateway.cli.difference.tellers import otherwise
from gateway.cli.difference.walk import Walk
from gateway.settings import Settings

__all__ = ["Change", "Danger", "changes"]

ROUTED = frozenset({"paths", "hosts", "methods"})


def changes(old: Settings, new: Settings) -> list[Change]:
    """All changes, what opens something first, then what closes something, then the rest; by place within."""
    context = Context(old, new)
    rerouting = Rerouting(old, new)
    found = list(rerouting.changes())
    for difference in Walk(old, new, rerouting.renamed).differences():
        if not _is_told_by_requests(difference, rerouting):
            found += _told(difference, context)
    order = list(Danger)
    return sorted(found, key=lambda change: (order.index(change.danger), change.place, change.text))


def _told(difference: Difference, context: Context) -> Iterator[Change]:
    teller = teller_of(difference.place)
    told = [] if teller is None else list(teller(difference, context))
    yield from told or [otherwise(difference)]


def _is_told_by_requests(difference: Difference, rerouting: Rerouting) -> bool:
    """Whether it has been told which requests that is: routes that come or go, and what routes match."""
    section, *rest = difference.place
    if section != "routes" or rest[0] not in rerouting.mentioned:
        return False
    return len(rest) == 1 or (len(rest) == 2 and rest[1] in ROUTED)
