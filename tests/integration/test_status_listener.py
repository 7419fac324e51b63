"""Metrics and health."""

from aiohttp.test_utils import TestClient, TestServer

from gateway.control.status import build_status
from gateway.telemetry.metrics import Metrics


async def test_ready_is_what_the_checks_say() -> None:
    """200 while all of them are well, else 503, with each by name; live does not depend on them. R079."""
    well = {"postgres": True, "view": False}
    app = build_status(metrics=Metrics(), checks={"postgres": lambda: well["postgres"], "view": lambda: well["view"]})
    async with TestClient(TestServer(app)) as client:
        async with client.get("/health/ready") as response:
            assert response.status == 503
            assert await response.json() == {"status": "unready", "checks": well}
        async with client.get("/health/live") as response:
            assert (response.status, await response.json()) == (200, {"status": "live"})
        well["view"] = True
        async with client.get("/health/ready") as response:
            assert response.status == 200
            assert await response.json() == {"status": "ready", "checks": well}
            assert response.headers["Cache-Control"] == "no-store"


async def test_metrics_are_in_the_text_format() -> None:
    """As Prometheus reads it; nothing needs a key. R079, R326."""
    metrics = Metrics()
    metrics.key_operations.labels("create", "ok").inc()
    async with TestClient(TestServer(build_status(metrics=metrics, checks={}))) as client, client.get("/metrics") as r:
        assert r.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'ostiary_key_operations_total{operation="create",result="ok"} 1.0' in await r.text()
