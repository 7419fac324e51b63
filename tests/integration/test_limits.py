"""Limits of one node, met by callers: who shares what, what is told, and what a refusal costs."""

import asyncio
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import jwt
import pytest

from gateway.auth.secrets import SecretFormat
from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures.limited import another_key, ask, asked, counted, override, statuses
from tests.fixtures.planted import ENVIRONMENT, Caller, plant
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY, Signer
from tests.fixtures.stores import OwnPostgres
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until

LOCAL = {"limits": {"mode": "local"}}


def sold(limits: Mapping[str, int], **more: Any) -> dict[str, Any]:
    """Changes of the configuration: what the plan allows, counted by each node for itself."""
    return {**LOCAL, "plans": {"starter": {"limits": dict(limits)}}, **more}


def limited(*limits: Mapping[str, Any], **route: Any) -> list[dict[str, Any]]:
    """The routes: `/orders` with these limits, `/free` without."""
    return [
        {
            "name": "orders",
            "paths": ["/orders"],
            "upstream": "orders",
            "limits": [dict(one) for one in limits],
            **route,
        },
        {"name": "free", "paths": ["/free"], "upstream": "orders"},
    ]


async def test_an_owner_has_what_was_sold(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """All keys of a user, and all secrets of a key, draw on one budget, and others on theirs. R291, R299."""
    node = await gateway(sold({"per_minute": 6}))
    retired = SecretFormat("ost", ENVIRONMENT).generate()
    ada = await plant(postgres_dsn, retired_secret=retired)
    second = await another_key(postgres_dsn, ada, "second")
    other = await plant(postgres_dsn, Caller("bob"))
    replies = await asked(node, [ada.secret, retired, second] * 3)
    assert statuses(replies) == [200] * 6 + [429] * 3
    assert len(upstream.requests) == 6
    assert statuses(await asked(node, [other.secret])) == [200]
    assert await counted(node, "ostiary_limited", limiter="plan", mode="enforced") == 3
    assert await counted(node, "ostiary_requests", route="orders", outcome="limited") == 3


async def test_who_is_refused_is_told(gateway: StartGateway, postgres_dsn: str) -> None:
    """429 tells plan, limit, window, what is left, and when; headers and body agree; relayed replies tell too. R292."""
    node = await gateway(sold({"per_minute": 3, "per_day": 100}))
    ada = await plant(postgres_dsn)
    *_, last, refused = await asked(node, [ada.secret] * 4)
    policy = '"plan.per_minute";q=3;w=60, "plan.per_day";q=100;w=86400'
    assert last.headers["RateLimit-Policy"] == refused.headers["RateLimit-Policy"] == policy
    left = re.fullmatch(r'"plan\.per_minute";r=0;t=(\d+), "plan\.per_day";r=97;t=(\d+)', last.headers["RateLimit"])
    assert left is not None
    assert 58 <= int(left[1]) <= 60
    assert refused.status == 429
    body = refused.body
    assert (body["code"], body["plan"], body["limit"], body["window"]) == ("rate_limited", "starter", 3, "per_minute")
    assert body["remaining"] == 0
    assert 1 <= body["retry_after"] == int(refused.headers["Retry-After"]) <= 20
    assert body["retry_after"] <= body["reset"] <= 60
    assert refused.headers["Cache-Control"] == "no-store"


async def test_a_day_is_not_used_up_by_refusals(gateway: StartGateway, postgres_dsn: str) -> None:
    """A day's quota is told by its own code and until midnight; what it refuses, no other limit has counted. R293."""
    node = await gateway(sold({"per_minute": 50, "per_day": 2}))
    ada = await plant(postgres_dsn)
    replies = await asked(node, [ada.secret] * 6)
    assert statuses(replies) == [200] * 2 + [429] * 4
    assert {reply.code for reply in replies[2:]} == {"quota_exhausted"}
    now = datetime.now(UTC)
    left = 86_400 - (now.hour * 3600 + now.minute * 60 + now.second)
    assert abs(int(replies[-1].headers["Retry-After"]) - left) <= 5
    assert '"plan.per_minute";r=48' in replies[-1].headers["RateLimit"]


async def test_the_shadow_refuses_nobody(gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream) -> None:
    """A limit in the shadow serves, counts each request over it once, and is not told of. R294."""
    node = await gateway({**LOCAL, "routes": limited({"per_minute": 2, "mode": "shadow"})})
    ada = await plant(postgres_dsn)
    replies = await asked(node, [ada.secret] * 5)
    assert statuses(replies) == [200] * 5
    assert len(upstream.requests) == 5
    assert await counted(node, "ostiary_limited", limiter="route", mode="shadow") == 3
    assert "RateLimit" not in replies[-1].headers


@pytest.mark.parametrize("own", [{"per_minute": -1}, {"per_minute": 0}, {"per_minute": 20}])
async def test_a_user_may_have_other_limits(gateway: StartGateway, postgres_dsn: str, own: dict[str, int]) -> None:
    """What is the user's own goes before the plan's; -1 is unlimited, 0 refuses nobody. R295."""
    node = await gateway(sold({"per_minute": 2}))
    ada = await plant(postgres_dsn)
    await override(postgres_dsn, ada, own)
    assert statuses(await asked(node, [ada.secret] * 6)) == [200] * 6


async def test_an_override_that_makes_no_sense(gateway: StartGateway, postgres_dsn: str) -> None:
    """The plan's limit stands, and a metric tells of it; once it is mended, the mended one holds. R300."""
    node = await gateway(sold({"per_minute": 2}))
    ada = await plant(postgres_dsn)
    await override(postgres_dsn, ada, {"per_minute": "many"})
    assert statuses(await asked(node, [ada.secret] * 3)) == [200, 200, 429]
    assert await counted(node, "ostiary_malformed_limits") >= 1
    await override(postgres_dsn, ada, {"per_minute": 100})

    async def is_served() -> bool:
        return statuses(await asked(node, [ada.secret])) == [200]

    await until(is_served, what="the node to hear of the change")


async def test_no_header_makes_another_client(gateway: StartGateway, postgres_dsn: str) -> None:
    """By address, only the socket counts, or who a trusted proxy says it is; what is unknown is one. R297."""
    limits = [{"by": "address", "per_minute": 3}]
    by_address = [{"name": "open", "paths": ["/open"], "upstream": "orders", "auth": "none", "limits": limits}]
    node = await gateway({**LOCAL, "routes": by_address})
    async with aiohttp.ClientSession() as session:
        replies = [
            await ask(session, node, "", "/open", X_Forwarded_For=f"10.0.0.{n}", Forwarded=f"for=10.0.0.{n}")
            for n in range(5)
        ]
    assert statuses(replies) == [200] * 3 + [429] * 2
    trusting = await gateway({**LOCAL, "routes": by_address, "trusted_proxies": ["127.0.0.0/8"]})
    async with aiohttp.ClientSession() as session:
        chains = ["10.0.0.1", "10.9.9.9, 10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"]
        replies = [await ask(session, trusting, "", "/open", X_Forwarded_For=chain) for chain in chains]
        assert statuses(replies) == [200, 200, 200, 429, 200]
        replies = [await ask(session, trusting, "", "/open", X_Forwarded_For=f"unknown{n}") for n in range(4)]
        assert statuses(replies) == [200, 200, 200, 429]


async def test_routes_and_plans_hold_together(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """A request has to be within all limits, by its weight; one that a route refuses costs the plan nothing. R293."""
    changes = sold({"per_minute": 20}, routes=limited({"per_minute": 2, "by": "route", "name": "busy"}, cost=5))
    changes["routes"][0]["limits"][0]["burst"] = 10
    node = await gateway(changes)
    ada = await plant(postgres_dsn)
    bob = await plant(postgres_dsn, Caller("bob"))
    replies = await asked(node, [ada.secret, bob.secret, ada.secret])
    assert statuses(replies) == [200, 200, 429]
    assert replies[2].body["policy"] == "busy.per_minute"
    assert '"plan.per_minute";r=15;' in replies[2].headers["RateLimit"]
    free = await asked(node, [ada.secret] * 16, "/free")
    assert statuses(free) == [200] * 15 + [429]
    assert len(upstream.requests) == 17


async def test_without_limits_nothing_is_told(gateway: StartGateway, postgres_dsn: str) -> None:
    """Who has no limits hears of none, and neither does who uses the gateway's own endpoints."""
    node = await gateway(LOCAL)
    ada = await plant(postgres_dsn)
    (reply,) = await asked(node, [ada.secret])
    assert "RateLimit" not in reply.headers
    strict = await gateway(sold({"per_day": 1}))
    own = await asked(strict, [ada.secret] * 3, "/.ostiary/whoami")
    assert statuses(own) == [200] * 3


@pytest.mark.threat("flood of unknown keys")
async def test_unknown_keys_of_an_address_are_limited(gateway: StartGateway, postgres_dsn: str) -> None:
    """Look-ups of keys that nobody knows are bounded by address; good keys cost nothing and go on. R290."""
    ada = await plant(postgres_dsn)  # before the node: what it hears of later it looks up again
    node = await gateway({"limits": {"mode": "local", "unknown_keys_per_minute": 20}})
    assert statuses(await asked(node, [ada.secret] * 2)) == [200, 200]
    keys = SecretFormat("ost", ENVIRONMENT)
    unknown = [keys.generate() for _ in range(40)]
    began = time.monotonic()
    replies = await asked(node, unknown)
    looked_up = statuses(replies).count(401)
    assert 20 <= looked_up <= 20 + (time.monotonic() - began) / 3  # one more every three seconds
    refused = next(reply for reply in replies if reply.status == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert await counted(node, "ostiary_limited", limiter="guard", mode="enforced") == 40 - looked_up
    assert statuses(await asked(node, [ada.secret, unknown[0]])) == [200, 401]  # what is remembered is not looked up


@pytest.mark.threat("flood of unknown keys")
async def test_bad_tokens_of_an_address_are_limited(
    gateway: StartGateway, own_postgres: OwnPostgres, upstream: RecordingUpstream
) -> None:
    """Tokens that nobody here has signed count as unknown keys do, and no store is asked about any. R162, R180."""
    ada = await plant(own_postgres.dsn)
    node = await gateway(
        {
            "postgres": {"dsn": own_postgres.dsn},
            "limits": {"mode": "local", "unknown_keys_per_minute": 20},
            "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
            "routes": [{"name": "orders", "paths": ["/orders"], "upstream": "orders", "tokens": True}],
        }
    )
    async with aiohttp.ClientSession() as session:
        minted = node.proxy_url + "/.ostiary/tokens"
        async with session.post(minted, headers={"X-Api-Key": ada.secret}, data=b"{}") as answer:
            good = (await answer.json())["token"]
        assert statuses([await ask(session, node, "", Authorization=f"Bearer {good}")]) == [200]
        own_postgres.pause()
        began = time.monotonic()
        said = jwt.decode(good, options={"verify_signature": False})
        bad = [Signer(jwt.get_unverified_header(good)["kid"]).sign(said) for _ in range(40)]
        replies = [await ask(session, node, "", Authorization=f"Bearer {token}") for token in bad]
        own_postgres.resume()
        answered = [reply.code for reply in replies].count("invalid_token")
        assert 20 <= answered <= 20 + (time.monotonic() - began) / 3  # one more every three seconds
        assert [reply.code for reply in replies].count("rate_limited") == 40 - answered
        assert statuses([await ask(session, node, "", Authorization=f"Bearer {good}")]) == [200]
    assert len(upstream.requests) == 2


@pytest.mark.threat("flood of unknown keys")
async def test_who_does_not_wait_for_the_answer_has_asked_all_the_same(
    gateway: StartGateway, own_postgres: OwnPostgres
) -> None:
    """A look-up counts for its address also where the client has left, unless the key turns out to be known. R290."""
    ada = await plant(own_postgres.dsn)
    limits = {"mode": "local", "unknown_keys_per_minute": 20}
    node = await gateway({"postgres": {"dsn": own_postgres.dsn}, "limits": limits})
    keys = SecretFormat("ost", ENVIRONMENT)

    async def come(secret: str) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection(HOST, node.proxy_port)
        writer.write(f"GET /orders HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: {secret}\r\n\r\n".encode())
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return writer

    async def have_come(number: int) -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{node.status_url}/metrics") as answer:
            return f'ostiary_connections{{side="client",state="busy"}} {number:.1f}' in await answer.text()

    async def leave(secrets: list[str]) -> None:
        own_postgres.pause()
        clients = [await come(secret) for secret in secrets]
        await until(lambda: have_come(len(secrets)), what="the look-ups to be under way")
        for writer in clients:
            writer.transport.abort()
        await until(lambda: have_come(0), what="the gateway to have noticed")
        own_postgres.resume()

    await leave([ada.secret] * 10)
    assert statuses(await asked(node, [ada.secret])) == [200]
    await leave([keys.generate() for _ in range(20)])
    replies = await asked(node, [keys.generate() for _ in range(5)])
    assert 429 in statuses(replies), replies
    assert statuses(await asked(node, [ada.secret])) == [200]


@asynccontextmanager
async def slow_upstream(release: asyncio.Event) -> AsyncIterator[tuple[str, list[bytes]]]:
    """One that answers once it is told to; its URL, and what has come."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}", heads
    finally:
        release.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("changes", "status", "limiter"),
    [
        ({"limits": {"mode": "local", "key_concurrency": 2}}, 429, "key_concurrency"),
        ({**LOCAL, "upstreams": {"orders": {"concurrency": 2}}}, 503, "upstream_concurrency"),
    ],
)
async def test_requests_under_way_are_limited(
    gateway: StartGateway, postgres_dsn: str, changes: dict[str, Any], status: int, limiter: str
) -> None:
    """One more than may be under way is refused at once; whatever ends, or is left by its client, makes room."""
    release = asyncio.Event()
    async with slow_upstream(release) as (url, heads), aiohttp.ClientSession() as session:
        upstreams = {"orders": {"targets": [url], **changes.get("upstreams", {}).get("orders", {})}}
        node = await gateway({**changes, "upstreams": upstreams})
        ada = await plant(postgres_dsn)
        first = [asyncio.create_task(ask(session, node, ada.secret)) for _ in range(2)]
        await until(lambda: len(heads) == 2, what="two requests under way")
        refused = await ask(session, node, ada.secret)
        assert refused.status == status
        assert int(refused.headers["Retry-After"]) >= 1
        assert await counted(node, "ostiary_limited", limiter=limiter, mode="enforced") == 1
        first[0].cancel()
        third: list[asyncio.Task[Any]] = []

        async def is_under_way() -> bool:
            if third and not third[-1].done():
                return len(heads) == 3
            third.append(asyncio.create_task(ask(session, node, ada.secret)))
            await asyncio.wait(third[-1:], timeout=0.05)
            return len(heads) == 3

        await until(is_under_way, what="room after a client has left")
        release.set()
        assert (await first[1]).status == 200
        assert (await third[-1]).status == 200
        assert statuses([await ask(session, node, ada.secret) for _ in range(4)]) == [200] * 4
