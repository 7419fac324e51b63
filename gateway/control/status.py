"""The status listener: metrics and health. No key needed, so keep it off the public network (R079, R326)."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from gateway.control.problems import reply
from gateway.telemetry.exposition import content_type, is_open_wanted


class Exposition(Protocol):
    """Whoever has metrics."""

    def __call__(self, *, is_open: bool) -> Awaitable[bytes]:
        """Their page: in OpenMetrics, or in Prometheus' text format."""
        ...


def status_of(
    exposition: Exposition, readiness: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]
) -> web.Application:
    """The status listener's application: `/metrics`, `/health/live`, `/health/ready`.

    It is given the page of metrics, and whether all is ready, with the reasons; neither must block.
    """

    async def show_metrics(request: web.Request) -> web.Response:
        is_open = is_open_wanted(request.headers.get("Accept", ""))
        return web.Response(
            body=await exposition(is_open=is_open),
            headers={"Content-Type": content_type(is_open=is_open), "Vary": "Accept"},
        )

    async def live(request: web.Request) -> web.Response:
        return reply({"status": "live"})

    async def ready(request: web.Request) -> web.Response:
        is_ready, reasons = await readiness()
        return reply({"status": "ready" if is_ready else "unready", **reasons}, status=200 if is_ready else 503)

    async def forbid_caching(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Cache-Control"] = "no-store"

    app = web.Application()
    app.on_response_prepare.append(forbid_caching)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    return app
