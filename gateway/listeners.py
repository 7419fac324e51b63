"""Sockets that are listened on: bound, served, and closed in order."""

import contextlib
import ssl
from collections.abc import Callable
from typing import Final

from aiohttp import web

from gateway.errors import GatewayError
from gateway.settings import Address

SHUTDOWN_SECONDS: Final = 30.0  # for exchanges under way
BACKLOG: Final = 1024


class ListenerFailed(GatewayError):
    """A listener's address cannot be bound."""


class Listeners:
    """Starts listeners; what closes them goes onto `stack`."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack

    async def serve(self, app: web.Application, address: Address) -> None:
        """Serve an application of the operators' side. Raises ListenerFailed."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self.listen(runner, address, tcp_site(None))

    async def listen(
        self, runner: web.BaseRunner, address: Address, site: Callable[[web.BaseRunner, Address], web.BaseSite]
    ) -> None:
        """Have a runner serve on an address. Raises ListenerFailed."""
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        try:
            await site(runner, address).start()
        except OSError as error:
            raise ListenerFailed(f"cannot listen on {address}: {error.strerror or error}") from error


def tcp_site(tls: ssl.SSLContext | None) -> Callable[[web.BaseRunner, Address], web.BaseSite]:
    """A plain listener, with TLS where there is a context."""

    def site(runner: web.BaseRunner, address: Address) -> web.BaseSite:
        return web.TCPSite(runner, address.host, address.port, backlog=BACKLOG, ssl_context=tls)

    return site
