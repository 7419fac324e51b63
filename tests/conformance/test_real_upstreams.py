"""The same bytes through a gateway to five servers that others wrote: none sees more than was counted as forwarded."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count

import aiohttp
import pytest
import pytest_asyncio

from gateway.embedded.server_process import HOST
from tests.fixtures.edge import Line
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import ENVIRONMENT, Caller, plant
from tests.fixtures.real_upstreams.cases import CASES, CLOSE, SECRET, Case
from tests.fixtures.real_upstreams.records import IDENTITY_NAMES, REPLY
from tests.fixtures.real_upstreams.servers import COMMANDS, RealUpstream, Seen
from tests.fixtures.stores import Databases

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERED = re.compile(rb"HTTP/1\.1 (?:200|403) ")  # by an upstream; the gateway says neither here
DIRECT = ("/ready", "/direct", "/lost")  # asked without the gateway
SMALL_BODY = 10
TIMEOUT_SECONDS = 2


@dataclass
class Behind:
    """A gateway, and behind it one of the five servers. `unfinished` is how many requests may have begun in vain."""

    gateway: GatewayProcess
    upstream: RealUpstream
    session: aiohttp.ClientSession
    numbers: "count[int]"
    unfinished: int = 0

    async def converse(self, case: Case) -> bytes:
        """Send what the case says; all that the gateway answered."""
        reader, writer = await asyncio.open_connection(HOST, self.gateway.proxy_port)
        line = Line(reader, writer)
        try:
            await line.send(case.sent)
            if case.then:
                await line.until(lambda received: b"\r\n\r\n" in received)
                await line.send(case.then)
            if case.is_cut:
                await line.finish()
            return await line.until_ended()
        finally:
            await line.close()

    async def settle(self) -> str:
        """Return once the upstream has done all that it was asked for until now: it is one thread. How it knows."""
        target = f"/settle/{next(self.numbers)}"
        async with self.session.get(self.gateway.proxy_url + target, headers={"Connection": "close"}) as response:
            assert (response.status, await response.read()) == (200, REPLY)
        await self.upstream.until_noted(target)
        return target

    async def forwarded(self) -> int:
        """How many requests the gateway has counted as forwarded."""
        return int((await scraped(self.gateway)).sum("ostiary_requests_total", outcome="forwarded"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planted_dsn(databases: Databases) -> AsyncIterator[str]:
    """A database with a caller in it."""
    dsn = await databases.create(is_migrated=True)
    await plant(dsn, Caller(secret=SECRET))
    yield dsn
    await databases.drop(dsn)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(COMMANDS))
async def behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, planted_dsn: str
) -> AsyncIterator[Behind]:
    """A gateway in front of each server in turn. In the end both have counted the same, but for what went past one."""
    upstream = RealUpstream(request.param, tmp_path_factory.mktemp(request.param))
    seconds = {f"{name}_timeout_seconds": TIMEOUT_SECONDS for name in ("head", "body", "idle")}
    config = {
        "environment": ENVIRONMENT,
        "postgres": {"dsn": planted_dsn},
        "client": seconds,
        "upstreams": {"real": {"targets": [upstream.url]}},
        "routes": [
            {"name": "open", "paths": ["/"], "upstream": "real", "auth": "none"},
            {"name": "keyed", "paths": ["/keyed"], "upstream": "real"},
            {"name": "reading", "paths": ["/reading"], "upstream": "real", "auth": "none", "methods": ["GET"]},
            {"name": "small", "paths": ["/small"], "upstream": "real", "auth": "none", "body_limit_bytes": SMALL_BODY},
        ],
    }
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), config)
    try:
        await asyncio.gather(upstream.serve(), gateway.start())
        async with aiohttp.ClientSession() as session:
            behind = Behind(gateway, upstream, session, count())
            yield behind
            await behind.settle()
            through = [seen for seen in upstream.seen() if seen.is_whole and seen.target not in DIRECT]
            assert len(through) == await behind.forwarded()
        assert "Traceback" not in gateway.log, gateway.log
    finally:
        await upstream.stop()
        assert await gateway.stop() == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_an_upstream_sees_what_was_forwarded_and_no_more(behind: Behind, case: Case) -> None:
    """Its record, the gateway's count and the replies agree with the verdict; nothing hidden is seen. R341, R345."""
    before, forwarded = len(behind.upstream.seen()), await behind.forwarded()
    said = await behind.converse(case)
    settled = await behind.settle()
    seen = behind.upstream.seen()
    assert [request for request in seen[before:] if request.is_whole] == [*case.seen, Seen("GET", settled)], said
    assert await behind.forwarded() - forwarded == len(case.seen) + 1
    assert len(ANSWERED.findall(said)) == len(case.seen), said
    assert not [field for request in seen[before:] for field in request.identity if "/keyed" not in request.target]
    # A server may notice late that nothing more will come: perhaps one that began in an earlier case.
    behind.unfinished += case.unfinished
    unfinished = [request for request in seen if not request.is_whole and request.target not in DIRECT]
    assert len(unfinished) <= behind.unfinished
    assert {(request.method, request.target) for request in unfinished} <= {("POST", "/a"), ("POST", "/small")}


def spellings(name: str) -> list[str]:
    """What servers and languages take for `name` (`X-Like-This`)."""
    signs = "_.!#$%&'*+^`|~"
    return [
        name,
        name.lower(),
        name.upper(),
        name.replace("-", ""),
        name.replace("-", "_", 1),
        name.replace("-", "--"),
        f"{name}-",
        *(name.replace("-", sign) for sign in signs),
    ]


NAMES = ("X-User-Id", "X-Tenant-Id", "X-Key-Id", "X-Key-Environment", "X-Auth-Kind", "X-Scopes", "X-Plan")
VALUES = ("user-ada", "tenant-of-ada", "key_ada", "test", "key", "orders:read orders:write", "starter")
IDENTITY = {name: [value] for name, value in zip(IDENTITY_NAMES, VALUES, strict=True)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_keyed", [True, False], ids=["keyed", "open"])
async def test_an_upstream_that_folds_names_is_told_one_identity(behind: Behind, is_keyed: bool, name: str) -> None:
    """Each value once, and the gateway's; a forged one in no spelling, and none at all without a key. R020, R022."""
    forged = "".join(f"{spelling}: forged\r\n" for spelling in spellings(name)).encode()
    endings = {
        "plain": CLOSE + b"\r\n",
        "hop-by-hop": b"Connection: close, %b\r\n\r\n" % name.encode(),
        "trailers": CLOSE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + forged + b"\r\n",
    }
    folder = f"/{'keyed' if is_keyed else 'open'}/{next(behind.numbers)}"
    key = f"X-Api-Key: {SECRET}\r\n".encode()
    for how, ending in endings.items():
        line = f"POST {folder}/{how} HTTP/1.1\r\nHost: gw.test\r\n".encode()
        said = await behind.converse(Case(how, line + forged + key + ending))
        assert ANSWERED.match(said), said
    await behind.settle()
    told = {seen.target: seen.identity for seen in behind.upstream.seen() if seen.target.startswith(folder)}
    assert told == {f"{folder}/{how}": IDENTITY if is_keyed else {} for how in endings}


async def test_an_upstream_notes_what_it_is_asked(behind: Behind) -> None:
    """The record can tell: whole requests and one that breaks off, forged names, and what was hidden in a good one."""
    before = len(behind.upstream.seen())
    lost = b"POST /lost HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhello"
    forged = b"POST /direct HTTP/1.1\r\nHost: x\r\nX_User_Id: forged\r\nContent-Length: 5\r\n" + CLOSE + b"\r\nhello"
    for sent in (lost, forged):
        reader, writer = await asyncio.open_connection(HOST, behind.upstream.port)
        writer.write(sent)
        if sent is lost:
            writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
    await behind.upstream.until_noted("/direct")
    lost_ones, direct = [
        [request for request in behind.upstream.seen()[before:] if request.target == target]
        for target in ("/lost", "/direct")
    ]
    assert [request.is_whole for request in lost_ones] == [False]
    assert direct == [Seen("POST", "/direct", "hello")]
    assert direct[0].identity == {"XUSERID": ["forged"]}
