"""A key that is limited to a path, before an upstream that decodes more often, or cuts elsewhere, than we do."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import ENVIRONMENT, Caller, plant
from tests.fixtures.readings import readings
from tests.fixtures.stores import Databases
from tests.fixtures.upstream import RecordingUpstream
from tests.integration.threats.raw import exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = 20261122
AT_ONCE = 16
PUBLIC = b"/public"
STAFF = b"/public/staff"  # inside of what is public, and not
SLASHES = (
    *(b"/", b"//", b"/./", b"/%2e/", b"\\", b"/;/", b";/", b";a=b/", b"%3b/", b"%253b/", b"/x/../"),
    *(b"%2f", b"%2F", b"%252f", b"%25252f", b"%25%32%66", b"%5c", b"%255c", b"/%00/", b"%00/", b"?/", b"%3f/", b"%23/"),
    *(b"#/", b"%20/", b"/%20/", b"%09/", b"%0d%0a/", b"/.%00/", b"%c0%af", b"%ef%bc%8f"),
)
UPS = (
    *(b"..", b".%2e", b"%2e.", b"%2e%2e", b"%2E%2e", b"%252e%252e", b"%252e.", b"%25%32%65%25%32%65", b"%25252e."),
    *(b"..;", b"..;a=b", b"..%3b", b"..%00", b"..%20", b"..%09", b"..%23", b"..%3f", b"..%253f", b"..?", b"..#"),
    *(b"..\\", b".", b"...", b"%c0%ae%c0%ae", b".%00.", b""),
)
PLACES = (
    *(b"staff", b"%73taff", b"staff%3bx", b"staff%253f", b"staff%20", b"admin", b"%61dmin", b"%2561dmin", b"admin%2f"),
    *(b"..%2f..%2fadmin", b"%2e%2e/%2e%2e/admin", b"public/../../admin"),
)


def systematic() -> list[bytes]:
    """Out of /public, by every way to write a slash and a step up; and into what is inside of it."""
    starts = (b"/public", b"/public/x", b"/%70ublic", b"//public")
    ways = itertools.product(starts, SLASHES, UPS)
    out = [start + slash + up + slash + b"admin" for start, slash, up in ways]
    return list(dict.fromkeys(out + [PUBLIC + slash + place for slash in SLASHES for place in PLACES]))


def by_chance(count: int) -> list[bytes]:
    """Pieces of the above in any order, the same in every run."""
    chance = random.Random(SEED)
    pieces = (*SLASHES, *UPS, *PLACES, b"public", b"x", b"%70ublic", b"PUBLIC", b"?a=/../admin")
    made = (b"/public/" + b"".join(chance.choices(pieces, k=chance.randint(1, 7))) for _ in range(count))
    return list(dict.fromkeys(made))


@dataclass(frozen=True)
class Front:
    """A gateway with a rule for /public, others for what is inside and outside of it, and one upstream behind all."""

    node: GatewayProcess
    upstream: RecordingUpstream
    caller: Caller

    async def ask(self, target: bytes) -> int:
        """The status of a request for `target`, with the key that may see what is public."""
        head = b"GET %b HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\nX-Api-Key: %b\r\n\r\n"
        status, _ = await exchange(self.node.proxy_port, head % (target, self.caller.secret.encode()))
        return status

    async def ask_all(self, targets: list[bytes]) -> dict[bytes, int]:
        """The status of each, several at a time."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def ask(target: bytes) -> int:
            async with slots:
                return await self.ask(target)

        return dict(zip(targets, await asyncio.gather(*map(ask, targets)), strict=True))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> AsyncIterator[Front]:
    """Shared by the tests of this module."""
    folder: Path = tmp_path_factory.mktemp("decoding")
    dsn = await databases.create(is_migrated=True)
    caller = await plant(dsn, Caller("guest", scopes=("public:read",)))
    async with RecordingUpstream() as upstream:
        config = {
            "environment": ENVIRONMENT,
            "postgres": {"dsn": dsn},
            "upstreams": {"files": {"targets": [upstream.url]}},
            "routes": [
                {"name": "public", "paths": ["/public"], "upstream": "files", "require": {"scopes": ["public:read"]}},
                {"name": "staff", "paths": ["/public/staff"], "upstream": "files", "require": {"scopes": ["staff"]}},
                {"name": "rest", "paths": ["/"], "upstream": "files", "require": {"scopes": ["everything"]}},
            ],
        }
        node = GatewayProcess(folder / "node", config)
        await node.start()
        yield Front(node, upstream, caller)
        await node.stop()
    await databases.drop(dsn)


def is_public(path: bytes) -> bool:
    return (path + b"/").startswith(PUBLIC + b"/") and not (path + b"/").startswith(STAFF + b"/")


@pytest.mark.threat("path of two readings")
@pytest.mark.parametrize(
    "targets", [pytest.param(systematic(), id="systematic"), pytest.param(by_chance(800), id="by chance")]
)
async def test_a_key_for_one_path_opens_no_other_however_it_is_read(front: Front, targets: list[bytes]) -> None:
    """Whatever reaches the upstream is public in every reading of up to three decodings. R341.

    Thousands of ways to something else, each written differently; those that do not lead there have to get through.
    """
    front.upstream.requests.clear()
    statuses = await front.ask_all(targets)
    assert set(statuses.values()) <= {200, 400, 403}, statuses
    assert len(front.upstream.requests) == sum(status == 200 for status in statuses.values())
    for request in front.upstream.requests:
        strays = {path for path in readings(request.target.encode("latin-1")) if not is_public(path)}
        assert not strays, f"{request.target} was forwarded, and may be read as {strays}"
        assert request.header("X-Key-Id") == front.caller.key_id
    for status in (200, 400, 403):
        assert list(statuses.values()).count(status) > 10, "the cases are of one kind: they prove little"


@pytest.mark.threat("path of two readings")
async def test_the_readings_tell_a_way_out(front: Front) -> None:
    """The yardstick sees what it is there to see, and the ordinary passes it. R382."""
    for target in (b"/public/%252e%252e/admin", b"/public/..;/admin", b"/public\\..\\admin", b"/public/staff%253bx"):
        assert not all(map(is_public, readings(target)))
    for target in (b"/public", b"/public/a%20b", b"/public/x?/../../admin"):
        assert all(map(is_public, readings(target)))
        assert await front.ask(target) == 200
