"""Tokens that are for one request: two real nodes, one of which admits one of all that come with it (R149)."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.control.purge import Purge
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.conftest import StartGateway
from tests.fixtures import psql
from tests.fixtures.echoing import echo
from tests.fixtures.gateway import GatewayProcess, operator_token
from tests.fixtures.limited import ask
from tests.fixtures.planted import Caller, plant
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.stores import OwnPostgres
from tests.fixtures.upstream import RecordingUpstream

MORE: Final = {"orders": {}, "reports": {"scopes": ["reports:read"]}, "sold": {"tier": 9}}
CHANGES: Final = {
    "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
    "routes": [
        {"name": name, "paths": [f"/{name}"], "upstream": "orders", "tokens": True, "require": asked}
        for name, asked in MORE.items()
    ],
}


async def mint(node: GatewayProcess, caller: Caller, **body: Any) -> str:
    """A token for one request."""
    headers = {"X-Api-Key": caller.secret}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(node.proxy_url + "/.ostiary/tokens", json={"once": True, **body}) as answer,
    ):
        assert answer.status == 201
        return str((await answer.json())["token"])


async def explained(node: GatewayProcess, operator: str, token: str) -> str:
    """What `explain` says of the rule that the token has not been used."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {operator}"}) as session,
        session.post(node.admin_url + "/v1/explain", json={"path": "/orders", "secret": token}) as answer,
    ):
        steps = (await answer.json())["steps"]
    return next(str(step["outcome"]) for step in steps if step["step"] == "rule token_used")


async def come(nodes: Sequence[GatewayProcess], token: str, times: int, path: str = "/orders") -> list[tuple[int, str]]:
    """So many requests with the token at once to each node: statuses and codes, sorted."""
    async with aiohttp.ClientSession() as session:
        asked = [ask(session, node, "", path, Authorization=f"Bearer {token}") for node in nodes for _ in range(times)]
        return sorted((reply.status, reply.code) for reply in await asyncio.gather(*asked))


async def test_one_request_of_all_is_admitted(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """Forty come at once, to two nodes: one reaches the upstream; later ones do not, nor after a restart. R149."""
    ada = await plant(postgres_dsn)
    nodes = [await gateway(CHANGES), await gateway(CHANGES)]
    for _ in range(3):
        token = await mint(nodes[0], ada)
        before = len(upstream.requests)
        told = await come(nodes, token, 20)
        assert told == [(200, "")] + [(401, "token_used")] * 39
        assert await come([nodes[1]], token, 1) == [(401, "token_used")]
        assert len(upstream.requests) == before + 1
    assert upstream.requests[-1].header("X-Auth-Kind") == "token"
    await nodes[0].stop()
    assert await come([await gateway(CHANGES)], token, 1) == [(401, "token_used")]
    assert len(upstream.requests) == 3


async def test_what_is_refused_for_another_reason_uses_nothing_up(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """A route that asks for more, and `explain`, leave the one request to whom it is for. R149, R340."""
    operator = await operator_token(postgres_dsn)
    ada = await plant(postgres_dsn)
    node = await gateway(CHANGES)
    token = await mint(node, ada)
    assert await come([node], token, 2, "/reports") == [(403, "insufficient_scope")] * 2
    assert await come([node], token, 2, "/sold") == [(403, "upgrade_required")] * 2
    for is_unused, then in ((True, (200, "")), (False, (401, "token_used"))):
        for _ in range(2):
            assert await explained(node, operator, token) == ("passed" if is_unused else "failed")
        assert await come([node], token, 1) == [then]
    assert len(upstream.requests) == 1


async def test_where_nobody_can_tell_nobody_is_admitted(
    gateway: StartGateway, own_postgres: OwnPostgres, upstream: RecordingUpstream
) -> None:
    """Without Postgres a token for one request is 503, also on a node that knows it; then it works. R070, R149."""
    ada = await plant(own_postgres.dsn)
    node = await gateway({"postgres": {"dsn": own_postgres.dsn}, **CHANGES})
    known, unknown = await mint(node, ada), await mint(node, ada)
    assert await come([node], known, 1, "/reports") == [(403, "insufficient_scope")]
    own_postgres.pause()
    for token in (known, unknown):
        assert await come([node], token, 2) == [(503, "auth_unavailable")] * 2
    assert upstream.requests == []
    own_postgres.resume()
    async with asyncio.timeout(30):
        while (told := await come([node], unknown, 1)) == [(503, "auth_unavailable")]:
            await asyncio.sleep(0.1)
    assert told == [(200, "")]
    assert await come([node], unknown, 2) == [(401, "token_used")] * 2
    assert len(upstream.requests) == 1


async def test_a_stream_goes_on_after_its_token_was_used(gateway: StartGateway, postgres_dsn: str) -> None:
    """What a token for one request has opened stays open, and ends with its key. R149, R197."""
    app = web.Application()
    app.router.add_get("/orders/live", echo)
    ada = await plant(postgres_dsn)
    async with TestServer(app) as live:
        node = await gateway({**CHANGES, "upstreams": {"orders": {"targets": [f"http://127.0.0.1:{live.port}"]}}})
        headers = {"Authorization": f"Bearer {await mint(node, ada)}"}
        url = node.proxy_url + "/orders/live"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as opened:
            for number in range(15):  # longer than a sweep takes to ask about each stream
                await opened.send_str(str(number))
                assert await opened.receive_str(timeout=5) == str(number)
                await asyncio.sleep(0.1)
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await session.ws_connect(url, headers=headers)
            await psql.value(postgres_dsn, "UPDATE api_keys SET revoked_at = now() RETURNING id")
            message = await opened.receive(timeout=10)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)


async def test_used_tokens_are_forgotten_after_their_end(postgres_dsn: str) -> None:
    """And not before: a row that went too early would let its token in again. R107, R149."""
    for token_id, hours in (("over", -2), ("lately", -0.5), ("ahead", 1)):
        statement = "INSERT INTO used_tokens VALUES ($1, now() + make_interval(secs => $2)) RETURNING id"
        await psql.value(postgres_dsn, statement, token_id, hours * 3600.0)
    postgres = Postgres(postgres_dsn, metrics=Metrics())
    try:
        assert await Purge(postgres).purge() == 1
        assert (
            await psql.value(postgres_dsn, "SELECT string_agg(id, ' ' ORDER BY id) FROM used_tokens") == "ahead lately"
        )
    finally:
        await postgres.close()
