"""Whether new keys are made, at a node: its pages, its API, and a reload."""

import re
from collections.abc import AsyncIterator, Mapping
from html import unescape

import aiohttp
import pytest

from tests.conftest import StartGateway
from tests.fixtures import psql
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import plant
from tests.integration.test_portal_on_the_public_listener import SESSION, sign_in
from tests.integration.test_reload import reload

CLOSED = "No new keys are made at present"
CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class Visitor:
    """Somebody with a session at the portal of a node."""

    def __init__(self, http: aiohttp.ClientSession, node: GatewayProcess, session: str) -> None:
        self._http = http
        self._pages = f"{node.admin_url}/portal"
        self._cookies = {"Cookie": f"{SESSION}={session}"}

    async def get(self, page: str) -> str:
        """The text of a page that must be there."""
        async with self._http.get(f"{self._pages}/{page}", headers=self._cookies) as reply:
            assert reply.status == 200, page
            return unescape(await reply.text())

    async def send(self, page: str, form: Mapping[str, str], *, csrf_of: str = "keys") -> tuple[int, str]:
        """What a form is answered with."""
        found = CSRF.search(await self.get(csrf_of))
        assert found is not None
        data = {"csrf": found[1], **form}
        async with self._http.post(f"{self._pages}/{page}", data=data, headers=self._cookies) as reply:
            return reply.status, unescape(await reply.text())


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Keeps no cookies, since visitors bring their own, and no connections: one may ask once more after a reload."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def node_with_portal(gateway: StartGateway) -> GatewayProcess:
    nobody = "http://127.0.0.1:1"  # who has signed in needs no provider
    return await gateway(
        {
            "oidc": {"issuer": nobody, "audience": "https://api.example.com"},
            "portal": {"url": nobody, "client_id": "portal"},
        }
    )


async def operator(http: aiohttp.ClientSession, node: GatewayProcess, token: str) -> Visitor:
    """Somebody who has signed in by an operator's token."""
    url = f"{node.admin_url}/portal/admin/sign-in"
    async with http.post(url, data={"token": token}, allow_redirects=False) as reply:
        assert reply.status == 303
        return Visitor(http, node, reply.cookies[SESSION].value)


async def test_from_the_file_to_the_page(
    gateway: StartGateway, http: aiohttp.ClientSession, postgres_dsn: str, operator_token: str
) -> None:
    """Closed by a reload, the portal says so in place of the form, and makes none; opened for a tenant, it does. R225.

    The key that there is is admitted all the while, and rotates.
    """
    node = await node_with_portal(gateway)
    caller = await plant(postgres_dsn)
    ada = Visitor(http, node, await sign_in(postgres_dsn, caller))
    grace = await operator(http, node, operator_token)
    tenant = f"admin/tenants/{caller.tenant_id}"

    async def count() -> object:
        return await psql.value(postgres_dsn, "SELECT count(*) FROM api_keys")

    async def is_admitted() -> bool:
        headers = {"Authorization": f"Bearer {caller.secret}"}
        async with http.get(f"{node.proxy_url}/orders/1", headers=headers) as reply:
            return reply.status == 200

    assert "Create the key" in await ada.get("keys/new")
    assert "<strong>made</strong>, as configured for all" in await grace.get(tenant)

    await reload(node, {"keys": {"issuance": "closed"}})
    assert "<strong>not made</strong>, as configured for all" in await grace.get(tenant)
    for page in ("keys", "keys/new"):
        text = await ada.get(page)
        assert CLOSED in text
        assert "Create the key" not in text
        assert "Create a key</a>" not in text
    status, text = await ada.send("keys/new", {"name": "new"})
    assert (status, CLOSED in text) == (403, True)
    status, text = await ada.send(f"{tenant}/issuance", {"issuance": "open"})
    assert status == 403
    headers = {"Authorization": f"Bearer {operator_token}"}
    wanted = {"user_id": caller.user_id, "name": "new"}
    async with http.post(f"{node.admin_url}/v1/keys", json=wanted, headers=headers) as reply:
        assert (reply.status, (await reply.json())["code"]) == (403, "issuance_closed")
    assert await count() == 1
    assert await is_admitted()
    async with http.post(f"{node.admin_url}/v1/keys/{caller.key_id}/rotate", headers=headers) as reply:
        assert reply.status == 200

    assert (await grace.send(f"{tenant}/issuance", {"issuance": "ajar"}, csrf_of=tenant))[0] == 400
    status, text = await grace.send(f"{tenant}/issuance", {"issuance": "open"}, csrf_of=tenant)
    assert (status, "gets new API keys." in text) == (200, True)
    assert "<strong>made</strong>, whatever the configuration says" in await grace.get(tenant)
    assert (await ada.send("keys/new", {"name": "new"}))[0] == 201
    assert await count() == 2
    await grace.send(f"{tenant}/issuance", {"issuance": "configured"}, csrf_of=tenant)
    assert CLOSED in await ada.get("keys/new")
    await reload(node, {"keys": None})
    assert CLOSED not in await ada.get("keys/new")
    assert await is_admitted()
