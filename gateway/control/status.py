"""The status listener: metrics and health. No key needed, so keep it off the public network (R079, R326)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from gateway.control.problems import reply
from gateway.telemetry.metrics import Metrics


def build_status(*, metrics: Metrics, checks: Mapping[str, Callable[[], bool]]) -> web.Application:
    """The application of a node's status listener: `/metrics`, `/health/live`, `/health/ready`.

    The node is ready while every one of `checks` (name: whether it is well; must not block) says so.
    """

    async def exposition() -> bytes:
        return metrics.exposition()

    async def readiness() -> tuple[bool, dict[str, Any]]:
        answers = {name: is_well() for name, is_well in checks.items()}
        return all(answers.values()), {"checks": answers}

    return status_of(exposition, readiness)


def status_of(
    exposition: Callable[[], Awaitable[bytes]], readiness: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]
) -> web.Application:
    """The same paths for whoever gives its metrics in the text format, and whether it is ready, with the reasons."""

    async def show_metrics(request: web.Request) -> web.Response:
        return web.Response(
            body=await exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
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
