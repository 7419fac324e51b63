"""The status listener: metrics and health. No key needed, so keep it off the public network (R079, R326)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from gateway.control.problems import reply
from gateway.telemetry.exposition import content_type, is_open_wanted
from gateway.telemetry.metrics import Metrics


def build_status(*, metrics: Metrics, checks: Mapping[str, Callable[[], bool]]) -> web.Application:
    """The application of a node's status listener: `/metrics`, `/health/live`, `/health/ready`.

    The node is ready while every one of `checks` (name: whether it is well; must not block) says so.
    """

    async def exposition(*, is_open: bool) -> bytes:
        return metrics.exposition(is_open=is_open)

    async def readiness() -> tuple[bool, dict[str, Any]]:
        answers = {name: is_well() for name, is_well in checks.items()}
        return all(answers.values()), {"checks": answers}

    return status_of(exposition, readiness)


class Exposition(Protocol):
    """Whoever has metrics."""

    def __call__(self, *, is_open: bool) -> Awaitable[bytes]:
        """Their page: in OpenMetrics, or in Prometheus' text format."""
        ...


def status_of(
    exposition: Exposition, readiness: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]
) -> web.Application:
    """The same paths for whoever gives its metrics, and tells whether it is ready, with the reasons."""

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
