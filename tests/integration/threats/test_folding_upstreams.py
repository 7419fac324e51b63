"""Identity headers as applications behind WSGI, CGI and PHP see them, where many spellings are one name."""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.embedded.server_process import HOST
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import ENVIRONMENT, Caller, plant
from tests.fixtures.stores import Databases
from tests.integration.threats.folding import gunicorn_server, php_like_server, wsgiref_server
from tests.integration.threats.raw import exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPSTREAMS = ("wsgiref", "gunicorn", "php")
NAMES = ("X-User-Id", "X-Tenant-Id", "X-Key-Id", "X-Key-Environment", "X-Auth-Kind", "X-Scopes", "X-Plan")
JOINTS = ("-", "_", ".", "")
FORGED = "forged"


@dataclass(frozen=True)
class Front:
    """A gateway whose routes lead to servers that fold names: `/NAME/AUTH`."""

    node: GatewayProcess
    caller: Caller

    async def seen(self, path: str, lines: list[str]) -> dict[str, str]:
        """What the application behind `path` sees of a request with these header lines."""
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: gw.test", "Connection: close", *lines, "", ""])
        status, body = await exchange(self.node.proxy_port, head.encode())
        assert status == 200, body
        seen: dict[str, str] = json.loads(body)
        return seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> AsyncIterator[Front]:
    """Shared by the tests of this module."""
    folder: Path = tmp_path_factory.mktemp("folding")
    dsn = await databases.create(is_migrated=True)
    caller = await plant(dsn)
    async with contextlib.AsyncExitStack() as stack:
        urls = {
            "wsgiref": stack.enter_context(wsgiref_server()),
            "gunicorn": await stack.enter_async_context(gunicorn_server(folder)),
            "php": await stack.enter_async_context(php_like_server()),
        }
        config = {
            "environment": ENVIRONMENT,
            "postgres": {"dsn": dsn},
            "upstreams": {name: {"targets": [url]} for name, url in urls.items()},
            "routes": [
                {"name": f"{name}-{auth}", "paths": [f"/{name}/{auth}"], "upstream": name, "auth": auth}
                for name in urls
                for auth in ("required", "optional", "none")
            ],
        }
        node = GatewayProcess(folder / "node", config)
        stack.push_async_callback(node.stop)
        await node.start()
        yield Front(node, caller)
    await databases.drop(dsn)


def spellings(name: str) -> list[str]:
    """Every way to join the words of a name, in several cases, and with a joint more at either end."""
    words = name.split("-")
    joined = [
        "".join(itertools.chain.from_iterable(zip(words, (*joints, ""), strict=True)))
        for joints in itertools.product(JOINTS, repeat=len(words) - 1)
    ]
    return [case(text) for text in joined for case in (str, str.lower, str.upper)] + [f"_{name}", f"{name}_"]


def wsgi_name(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


@pytest.mark.threat("forged identity")
@pytest.mark.parametrize(
    ("auth", "has_key"), [("required", True), ("optional", True), ("optional", False), ("none", True), ("none", False)]
)
@pytest.mark.parametrize("upstream", UPSTREAMS)
async def test_an_application_sees_one_identity(front: Front, upstream: str, auth: str, has_key: bool) -> None:
    """However a client spells identity, an application that folds names sees the gateway's, or none. R020 R022."""
    key = [f"X-Api-Key: {front.caller.secret}"] if has_key else []
    is_known = has_key and auth != "none"
    facts = (
        *(front.caller.user_id, front.caller.tenant_id, front.caller.key_id, ENVIRONMENT, "key"),
        *(" ".join(front.caller.scopes), front.caller.plan),
    )
    for name in NAMES:
        forgeries = [f"{spelling}: {FORGED}" for spelling in spellings(name)]
        middle = len(forgeries) // 2
        seen = await front.seen(f"/{upstream}/{auth}", [*forgeries[:middle], *key, *forgeries[middle:]])
        assert FORGED not in json.dumps(seen)
        expected = dict(zip(map(wsgi_name, NAMES), facts, strict=True)) if is_known else {}
        assert {name: value for name, value in seen.items() if name in map(wsgi_name, NAMES)} == expected


@pytest.mark.threat("forged identity")
@pytest.mark.parametrize("upstream", UPSTREAMS)
async def test_an_application_sees_no_credential(front: Front, upstream: str) -> None:
    """Nor does a key travel on under a name that folds to one of its places. R023."""
    secret = front.caller.secret
    places = [f"{spelling}: {secret}" for spelling in spellings("X-Api-Key")]
    places += [f"{spelling}: Bearer {secret}" for spelling in ("authorization", "AUTHORIZATION", "Authorization_")]
    seen = await front.seen(f"/{upstream}/required", places)
    assert secret not in json.dumps(seen)
    assert seen["HTTP_X_KEY_ID"] == front.caller.key_id


@pytest.mark.threat("forged identity")
@pytest.mark.parametrize("upstream", UPSTREAMS)
async def test_an_application_sees_one_peer(front: Front, upstream: str) -> None:
    """What the gateway says of the client's address cannot be overlaid either. R024 R297."""
    for name in ("X-Forwarded-For", "X-Real-Ip", "Forwarded"):
        seen = await front.seen(f"/{upstream}/none", [f"{spelling}: 6.6.6.6" for spelling in spellings(name)])
        assert "6.6.6.6" not in json.dumps(seen)
        assert seen["HTTP_X_FORWARDED_FOR"] == HOST
