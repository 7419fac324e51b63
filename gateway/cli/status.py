"""What status listeners say of their nodes: readiness, and the metrics that tell of dependencies and of the view."""

import asyncio
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

ANSWER_SECONDS: Final = 3.0
DEPENDENCY: Final = "ostiary_dependency_up"
VIEW_AGE: Final = "ostiary_view_age_seconds"
REVISION: Final = "ostiary_revision"


async def statuses_at(urls: Sequence[str]) -> list[dict[str, Any]]:
    """What each of these listeners says, in this order. One that does not answer is `unreachable`."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return list(await asyncio.gather(*(_status_at(session, url.rstrip("/")) for url in urls)))


async def _status_at(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "url": url,
        "state": "unreachable",
        "checks": {},
        "dependencies": {},
        "view_age_seconds": None,
        "revision": None,
    }
    try:
        async with session.get(f"{url}/health/ready") as response:
            health = await response.json()
        async with session.get(f"{url}/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
        told |= {"state": str(health["status"]), "checks": dict(health["checks"])}
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
        return told
    for family in families:
        for sample in family.samples:
            if sample.name == DEPENDENCY:
                told["dependencies"][sample.labels["dependency"]] = sample.value == 1
            elif sample.name == VIEW_AGE:
                told["view_age_seconds"] = round(sample.value, 3) if isfinite(sample.value) else None
            elif sample.name == REVISION:
                told["revision"] = int(sample.value)
    return told
