"""The page of the fleet: every node, how far it is behind, where its knowledge comes from, and how fast it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import web

from gateway.control.calls import READERS_OF_ALL
from gateway.control.portal.administration.services import Services
from gateway.control.portal.fleet_charts import durations, progress, said, shares
from gateway.control.portal.visits import Access, Page
from gateway.stores.postgres.revisions import NodeRow

# A node reports every second: one that has not for so long hangs, is cut off or is gone.
SILENT_SECONDS: Final = 5.0
FRESH: Final = "fresh"
BEHIND: Final = "behind"
STALE: Final = "stale"
SILENT: Final = "silent"
WORDS: Final = {
    FRESH: "knows every change",
    BEHIND: "has not seen the latest change yet",
    STALE: "cannot tell what has changed, and trusts nothing that it remembers",
    SILENT: "does not report: it hangs, is cut off, or is gone",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as people look at it. `lag`: how many revisions it is behind the one that has come furthest."""

    id: str
    version: str
    revision: int
    lag: int
    state: str
    view_age_seconds: float | None
    started_at: datetime
    seen_seconds_ago: float
    decisions: Mapping[str, int]
    dependencies: Mapping[str, bool]
    durations: Mapping[str, int]

    @property
    def words(self) -> str:
        """How it stands, in words."""
        return WORDS[self.state]


def seen(nodes: Sequence[NodeRow]) -> list[Seen]:
    """The nodes, each held against the one that has come furthest."""
    latest = max((node.revision for node in nodes), default=0)
    return [
        Seen(
            node.id,
            node.version,
            node.revision,
            latest - node.revision,
            _state(node, latest),
            node.view_age_seconds,
            node.started_at,
            node.seen_seconds_ago,
            node.signs.get("decisions", {}),
            node.signs.get("dependencies", {}),
            node.signs.get("durations", {}),
        )
        for node in nodes
    ]


def _state(node: NodeRow, latest: int) -> str:
    if node.seen_seconds_ago > SILENT_SECONDS:
        return SILENT
    if not node.signs.get("is_fresh", False):
        return STALE
    return BEHIND if node.revision < latest else FRESH


class FleetPages:
    """All nodes on one page."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [Page("GET", "/admin/fleet", self.show, Access.ADMINISTRATOR, READERS_OF_ALL)]

    async def show(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/fleet`: renewed by itself where scripts run."""
        nodes = seen(await self._services.revisions.nodes(self._services.environment))
        counts = {state: sum(node.state == state for node in nodes) for state in WORDS}
        total: dict[str, int] = {}
        for node in nodes:
            for bound, number in node.durations.items():
                total[bound] = total.get(bound, 0) + number
        return self._services.renderer.page(
            request,
            "admin/fleet.html",
            nodes=nodes,
            counts={state: number for state, number in counts.items() if number},
            latest=max((node.revision for node in nodes), default=0),
            progress=progress([(node.id, node.lag, node.state, node.words) for node in nodes]),
            shares={node.id: shares(node.decisions, node.id) for node in nodes},
            durations=durations(total),
            durations_said=said(total),
            requests=sum(total.values()),
        )
