"""The status listener: metrics and health. No key needed, so keep it off the public network (R079, R326)."""

from collections.abc import Callable, Mapping

from aiohttp import web

from gateway.control.problems import reply
from gateway.telemetry.metrics import Metrics


def build_status(*, metrics: Metrics, checks: Mapping[str, Callable[[], bool]]) -> web.Application:
    """The application of the status listener: `/metrics`, `/health/live`, `/health/ready`.

    The node is ready while every one of `checks` (name: whether it is well; must not block) says so.
    """

    async def show_metrics(request: web.Request) -> web.Response:
        return web.Response(
            body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def live(request: web.Request) -> web.Response:
        return reply({"status": "live"})

    async def ready(request: web.Request) -> web.Response:
        answers = {name: is_well() for name, is_well in checks.items()}
        is_ready = all(answers.values())
        return reply({"status": "ready" if is_ready else "unready", "checks": answers}, status=200 if is_ready else 503)

    async def forbid_caching(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Cache-Control"] = "no-store"

    app = web.Application()
    app.on_response_prepare.append(forbid_caching)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    return app
