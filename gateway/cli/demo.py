"""What `ostiary up` has to show: a tenant, a user who may call, and a key, all made through the management API."""

from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.errors import GatewayError

TENANT = "demo"
USER = "ada"
PLAN = "starter"
KEY_NAME = "try-it"
ENVIRONMENT = "dev"


class DemoFailed(GatewayError):
    """The management API answered something else than expected."""


@dataclass(frozen=True)
class DemoKey:
    """A key that works, and its secret, which stands nowhere else."""

    id: str
    secret: str = field(repr=False)


class Demo:
    """The demo's data behind the management API at `admin_url`, with an operator's `token`.

    The plan PLAN is taken to exist: the configuration declares it.
    """

    def __init__(self, session: aiohttp.ClientSession, admin_url: str, token: str) -> None:
        self._session = session
        self._url = f"{admin_url}/v1"
        self._headers = {"Authorization": f"Bearer {token}"}

    async def prepare(self) -> DemoKey:
        """Make what is missing, leave what is there, and return a key with a secret made just now.

        A secret is shown once and not kept, so a start that finds the key of an earlier one rotates it, without grace.
        """
        await self._call("POST", "/tenants", {"id": TENANT, "name": "Demo"}, accepted={201, 409})
        await self._put_if_absent(f"/users/{USER}", {"tenant_id": TENANT, "display_name": "Ada"})
        await self._put_if_absent(f"/users/{USER}/entitlement", {"plan": PLAN})
        listing = await self._call("GET", f"/keys?user_id={USER}&status=active", accepted={200})
        for key in listing["items"]:
            if key["name"] == KEY_NAME:
                made = await self._call("POST", f"/keys/{key['id']}/rotate", {"grace_seconds": 0}, accepted={200})
                return DemoKey(key["id"], made["secret"])
        order = {"user_id": USER, "name": KEY_NAME, "scopes": ["orders:read"], "environment": ENVIRONMENT}
        made = await self._call("POST", "/keys", order, accepted={201})
        return DemoKey(made["id"], made["secret"])

    async def _put_if_absent(self, path: str, document: dict[str, Any]) -> None:
        found = await self._call("GET", path, accepted={200, 404})
        if found.get("status") == 404:
            await self._call("PUT", path, document, accepted={200, 201})

    async def _call(
        self, method: str, path: str, document: dict[str, Any] | None = None, *, accepted: set[int]
    ) -> dict[str, Any]:
        async with self._session.request(method, self._url + path, json=document, headers=self._headers) as response:
            if response.status not in accepted:
                raise DemoFailed(f"{method} /v1{path}: {response.status} {await response.text()}")
            answer: dict[str, Any] = await response.json(content_type=None)
            return answer
