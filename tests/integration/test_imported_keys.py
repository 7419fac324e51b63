"""Keys that were imported with secrets of another shape, at a real node: admitted where that is configured."""

import hashlib
import json
from typing import Any

import aiohttp
import pytest

from gateway.auth.secrets import SecretFormat
from gateway.control.imports import BATCH
from tests.conftest import StartGateway
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess

FOREIGN = "sk_live_51Habc-DEF.ghi/jkl+mno="
SHORT, LONG = "x" * 15, "x" * 41
OWN_LOOK = "ost_test_" + "A" * 30


async def prepare(node: GatewayProcess, token: str, *secrets: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    rows = [
        {"secret_sha256": hashlib.sha256(secret.encode()).hexdigest(), "user_id": "ada", "name": f"k{number}"}
        for number, secret in enumerate(secrets)
    ]
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/v1/tenants", {"id": "acme", "name": "Acme"}),
        ("PUT", "/v1/users/ada", {"tenant_id": "acme"}),
        ("PUT", "/v1/users/ada/entitlement", {"plan": "starter"}),
    ]
    async with aiohttp.ClientSession(headers=headers) as session:
        for method, path, body in calls:
            async with session.request(method, node.admin_url + path, json=body) as response:
                assert response.status in (200, 201), await response.text()
        lines = "\n".join(map(json.dumps, rows))
        typed = {"Content-Type": "application/x-ndjson"}
        async with session.post(f"{node.admin_url}/v1/imports", data=lines, headers=typed) as response:
            assert f'"created": {len(rows)}' in await response.text()


async def asked(node: GatewayProcess, secret: str, header: str = "X-Api-Key") -> tuple[int, str | None]:
    value = f"Bearer {secret}" if header == "Authorization" else secret
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{node.proxy_url}/orders/1", headers={header: value}) as response,
    ):
        body = await response.json(content_type=None)
        return response.status, body.get("code")


async def lookups(node: GatewayProcess) -> float:
    """Decisions that took more than this process knew."""
    return (await scraped(node)).sum("ostiary_cache_events_total", layer="local", event="miss")


async def test_an_imported_secret_keeps_its_shape(gateway: StartGateway, operator_token: str) -> None:
    """Admitted by either header once its shape is configured; own keys work as before. R001, R013."""
    node = await gateway({"keys": {"imported": {"length_minimum": 16, "length_maximum": 40}}})
    own = SecretFormat("ost", "test").generate()
    await prepare(node, operator_token, FOREIGN, own, "é" * 10)
    for secret in (FOREIGN, own):
        for header in ("X-Api-Key", "Authorization"):
            assert await asked(node, secret, header) == (200, None)
    before = await lookups(node)
    assert await asked(node, "x" * 20) == (401, "invalid_api_key")
    assert await lookups(node) == before + 1


async def test_keys_that_were_probed_before_work_when_the_import_is_done(
    gateway: StartGateway, operator_token: str
) -> None:
    """Unknown a moment ago on two nodes, in any batch: all know of all when the summary has come. R061, R101."""
    changes = {"keys": {"imported": {}, "max_per_user": 1000}, "cache": {"negative_ttl_seconds": 600}}
    nodes = [await gateway(changes), await gateway(changes)]
    secrets = [f"imported-secret-number-{number:03}" for number in range(2 * BATCH + 50)]
    probed = [secrets[0], secrets[BATCH], secrets[-1]]
    for node in nodes:
        assert [await asked(node, secret) for secret in probed] == [(401, "invalid_api_key")] * 3
    await prepare(nodes[0], operator_token, *secrets)
    for node in nodes:
        assert [await asked(node, secret) for secret in probed] == [(200, None)] * 3


@pytest.mark.parametrize("secret", [SHORT, LONG, OWN_LOOK, "a blank " + "x" * 20, "ost_prod_" + "A" * 31])
async def test_other_shapes_are_refused_without_a_lookup(
    gateway: StartGateway, operator_token: str, secret: str
) -> None:
    """Too short, too long, or what would be one of ours: no store is asked, though it was imported. R006, R011."""
    node = await gateway({"keys": {"imported": {"length_minimum": 16, "length_maximum": 40}}})
    await prepare(node, operator_token, secret)
    before = await lookups(node)
    assert await asked(node, secret) == (401, "invalid_api_key")
    assert await lookups(node) == before


async def test_without_the_setting_nothing_foreign_is_looked_up(gateway: StartGateway, operator_token: str) -> None:
    """The default: what has not the gateway's own shape costs no lookup. R006."""
    node = await gateway()
    await prepare(node, operator_token, FOREIGN)
    before = await lookups(node)
    assert await asked(node, FOREIGN) == (401, "invalid_api_key")
    assert await lookups(node) == before
