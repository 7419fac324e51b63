"""Pages about keys."""

from aiohttp import web

from gateway.control.keys import Keys
from gateway.control.me import OwnKeys
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.visits import Page


class KeyPages:
    """The list of somebody's keys."""

    def __init__(self, keys: Keys, own: OwnKeys, renderer: Renderer) -> None:
        self._keys = keys
        self._own = own
        self._renderer = renderer

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [Page("GET", "/keys", self.list)]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /portal/keys`."""
        return self._renderer.page(request, "keys.html")
