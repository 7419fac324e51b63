"""Metrics and health."""

from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from gateway.control.status import status_of
from gateway.telemetry.metrics import Metrics


async def nothing(*, is_open: bool) -> bytes:
    return b""


async def well() -> tuple[bool, dict[str, Any]]:
    return True, {"checks": {}}


async def test_ready_is_what_the_checks_say() -> None:
    """200 while all is well, else 503, with the reasons; live does not depend on them. R079."""
    checks = {"postgres": True, "view": False}

    async def readiness() -> tuple[bool, dict[str, Any]]:
        return all(checks.values()), {"checks": checks}

    async with TestClient(TestServer(status_of(nothing, readiness))) as client:
        async with client.get("/health/ready") as response:
            assert response.status == 503
            assert await response.json() == {"status": "unready", "checks": checks}
        async with client.get("/health/live") as response:
            assert (response.status, await response.json()) == (200, {"status": "live"})
        checks["view"] = True
        async with client.get("/health/ready") as response:
            assert response.status == 200
            assert await response.json() == {"status": "ready", "checks": checks}
            assert response.headers["Cache-Control"] == "no-store"


async def test_metrics_are_in_the_text_format() -> None:
    """As Prometheus reads it; nothing needs a key. R079, R326."""
    metrics = Metrics()
    metrics.key_operations.labels("create", "ok").inc()

    async def exposition(*, is_open: bool) -> bytes:
        return metrics.exposition(is_open=is_open)

    async with TestClient(TestServer(status_of(exposition, well))) as client, client.get("/metrics") as r:
        assert r.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'ostiary_key_operations_total{operation="create",result="ok"} 1.0' in await r.text()
