"""A leak at a real node: one command ends the key, its former secret, its tokens and its open streams."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import StartGateway
from tests.fixtures.launching import command
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.waiting import until
from tests.integration.test_streams import Feed, World

ROUTE = {"name": "orders", "paths": ["/orders"], "upstream": "orders", "tokens": True}


async def status_of(world: World, credential: str) -> tuple[int, str | None]:
    headers = {"Authorization": f"Bearer {credential}"}
    async with world.session.get(f"{world.node.proxy_url}/.ostiary/whoami", headers=headers) as response:
        return response.status, (await response.json()).get("code")


async def minted(world: World, secret: str) -> str:
    headers = {"Authorization": f"Bearer {secret}"}
    async with world.session.post(f"{world.node.proxy_url}/.ostiary/tokens", json={}, headers=headers) as response:
        assert response.status == 201, await response.text()
        return str((await response.json())["token"])


@pytest.mark.parametrize("door", ["api", "stores"])
async def test_a_leak_is_contained(gateway: StartGateway, operator_token: str, aiohttp_server: Any, door: str) -> None:
    """All that rests on the key is refused once the command is done, and its streams end. R179, R197, R221, R280."""
    feed = Feed()
    app = web.Application()
    app.router.add_get("/orders/feed", feed.listen)
    server = await aiohttp_server(app, shutdown_timeout=0.1)
    upstreams = {"orders": {"targets": [f"http://127.0.0.1:{server.port}"]}}
    tokens = {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY}
    node = await gateway({"upstreams": upstreams, "tokens": tokens, "routes": [ROUTE]})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        world = World(node, feed, session, operator_token)
        await world.manage("POST", "/tenants", {"id": "acme", "name": "Acme"})
        await world.manage("PUT", "/users/ada", {"tenant_id": "acme"})
        await world.manage("PUT", "/users/ada/entitlement", {"plan": "starter"})
        key, other = await world.key("leaked"), await world.key("other")
        rotated = await world.manage("POST", f"/keys/{key['id']}/rotate", {})
        token = await minted(world, rotated["secret"])
        credentials = (key["secret"], rotated["secret"], token)
        assert [await status_of(world, one) for one in credentials] == [(200, None)] * 3

        async def is_used() -> bool:
            async with session.get(
                f"{node.admin_url}/v1/keys/{key['id']}", headers={"Authorization": f"Bearer {operator_token}"}
            ) as response:
                return (await response.json())["last_used_at"] is not None

        await until(is_used)
        async with (
            world.listening(rotated["secret"]) as by_key,
            world.listening(token) as by_token,
            world.listening(other["secret"]) as unrelated,
        ):
            options = ("--api", node.admin_url) if door == "api" else ("-c", str(node.config_path))
            environment = {"OSTIARY_ADMIN_TOKEN": operator_token}
            done = await command("keys", "contain", key["id"], *options, "-o", "json", environment=environment)
            assert (done.returncode, done.stderr) == (0, "")
            told = json.loads(done.stdout)
            assert [await status_of(world, one) for one in credentials] == [(401, "key_revoked")] * 3
            for stream in (by_key, by_token):
                with pytest.raises((aiohttp.ClientError, asyncio.IncompleteReadError)):
                    await asyncio.wait_for(stream.readuntil(b"\n\n"), 5)
            feed.say(b"still here")
            assert await unrelated.readuntil(b"\n\n") == b"data: still here\n\n"
        assert await status_of(world, other["secret"]) == (200, None)
    assert (told["key"]["status"], told["propagation"]["state"]) == ("revoked", "confirmed")
    assert told["touched"]["last_used_at"] is not None
    assert [secret["id"] for secret in told["touched"]["retired_secrets"]] == [rotated["retired_secret"]["id"]]
    assert [event["action"] for event in told["touched"]["audit"]] == ["key.rotate", "key.create"]
    assert len(told["touched"]["nodes"]) == 1
