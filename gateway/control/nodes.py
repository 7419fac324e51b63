"""The call that lists the nodes, as they report themselves."""

from typing import Any

from aiohttp import web

from gateway.control import answers, moments
from gateway.control.calls import READERS_OF_ALL, Call, query_of
from gateway.control.pages import Listing
from gateway.control.problems import reply
from gateway.stores.postgres.revisions import NodeRow, RevisionLog


class NodeCalls:
    """The handler of `/v1/nodes`."""

    def __init__(self, revisions: RevisionLog, environment: str) -> None:
        self._revisions = revisions
        self._environment = environment

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="GET",
                path="/v1/nodes",
                handler=self.list,
                roles=READERS_OF_ALL,
                about="List the nodes as they report themselves, all on one page",
                query=Listing,
                answer=answers.Nodes,
            ),
        )

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/nodes`: all of them on one page; a node that died stays until it is forgotten."""
        query_of(request, Listing)
        nodes = await self._revisions.nodes(self._environment)
        return reply({"items": [shown_node(node) for node in nodes], "next_cursor": None})


def shown_node(node: NodeRow) -> dict[str, Any]:
    """The node as the API shows it."""
    return {
        "id": node.id,
        "version": node.version,
        "revision": node.revision,
        "view_age_seconds": node.view_age_seconds,
        "started_at": moments.text(node.started_at),
        "seen_at": moments.text(node.seen_at),
        "seen_seconds_ago": node.seen_seconds_ago,
        "is_fresh": bool(node.signs.get("is_fresh", False)),
        "decisions": node.signs.get("decisions", {}),
        "dependencies": node.signs.get("dependencies", {}),
        "durations": node.signs.get("durations", {}),
    }
