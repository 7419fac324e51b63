"""Users who sign in at a provider, at real nodes: from the sign-in to the key at the public listener."""

from typing import Any

import aiohttp

from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.provider import AUDIENCE, OpenIdProvider
from tests.fixtures.waiting import until


async def test_a_user_makes_a_key_and_ends_it(gateway: StartGateway, operator_token: str) -> None:
    """A node does not wait for its provider. A key of the user's own making works on every node, and ends on all."""
    provider = OpenIdProvider()  # not running yet
    oidc = {"issuer": provider.issuer, "audience": AUDIENCE, "algorithms": ["ES256"], "key_scopes": ["orders:read"]}
    nodes = [await gateway({"oidc": oidc}) for _ in range(2)]
    first, second = nodes
    async with aiohttp.ClientSession() as session:

        async def call(
            method: str, url: str, body: Any = None, *, token: str | None = None
        ) -> tuple[int, dict[str, Any]]:
            headers = {"Authorization": f"Bearer {token or provider.token()}"}
            async with session.request(method, url, json=body, headers=headers) as response:
                return response.status, await response.json(content_type=None)

        async def plant(path: str, body: Any) -> None:
            method = "POST" if path == "/v1/tenants" else "PUT"
            status, answer = await call(method, first.admin_url + path, body, token=operator_token)
            assert status in (200, 201), answer

        await plant("/v1/tenants", {"id": "acme", "name": "Acme"})
        await plant("/v1/users/ada", {"tenant_id": "acme"})
        await plant("/v1/users/ada/entitlement", {"plan": "starter"})
        status, answer = await call("GET", f"{first.admin_url}/v1/me")
        assert (status, answer["code"]) == (503, "auth_unavailable")

        await provider.start()
        try:

            async def is_served(node: GatewayProcess) -> bool:
                return (await call("GET", f"{node.admin_url}/v1/me"))[0] == 200

            for node in nodes:
                await until(lambda node=node: is_served(node), what="the node to read the provider's keys")
            body = {"name": "laptop", "scopes": ["orders:read"]}
            status, key = await call("POST", f"{first.admin_url}/v1/me/keys", body)
            assert status == 201, key
            for node in nodes:
                assert (await call("GET", f"{node.proxy_url}/orders", token=key["secret"]))[0] == 200
                # The provider's word is for the management API alone.
                assert (await call("GET", f"{node.proxy_url}/orders"))[0] == 401
            status, revoked = await call("POST", f"{second.admin_url}/v1/me/keys/{key['id']}/revoke")
            assert (status, revoked["propagation"]["state"]) == (200, "confirmed")
            for node in nodes:
                status, answer = await call("GET", f"{node.proxy_url}/orders", token=key["secret"])
                assert (status, answer["code"]) == (401, "key_revoked")
        finally:
            await provider.stop()
