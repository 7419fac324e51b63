"""httpbin under gunicorn, a gateway in front of it, and a key."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.embedded.server_process import HOST
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.ports import free_port
from tests.fixtures.programs import Program
from tests.integration.httpbin.tap import Tap

SCOPES = ["things:read", "things:write"]


class Httpbin(Program):
    """The upstream: `gunicorn httpbin:app`, one process with threads, connections kept open."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        super().__init__("gunicorn", folder)
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"

    async def serve(self) -> None:
        """Start it and wait until it answers; on failure shows its log."""
        arguments = ["--bind", f"{HOST}:{self.port}", "--worker-class", "gthread", "--threads", "8"]
        command = [sys.executable, "-m", "gunicorn", *arguments, "--keep-alive", "60", "httpbin:app"]
        control = {"HOME": str(self._folder), "XDG_RUNTIME_DIR": str(self._folder)}  # where it may put its socket
        await self.start(command, control, asked=f"{self.url}/status/200", status=200)


@dataclass(frozen=True)
class World:
    """`direct` and `via` are the base URLs of httpbin itself and of httpbin behind the gateway.

    `tapped` is a second way to it through the gateway, on which `tap` sits between gateway and httpbin.
    """

    gateway: GatewayProcess
    httpbin: Httpbin
    tap: Tap
    key_id: str
    secret: str = field(repr=False)

    @property
    def direct(self) -> str:
        """Without the gateway."""
        return self.httpbin.url

    @property
    def via(self) -> str:
        """Through the gateway."""
        return self.gateway.proxy_url

    @property
    def tapped(self) -> str:
        """Through the gateway and the tap."""
        return f"{self.gateway.proxy_url}/tapped"

    @property
    def credential(self) -> list[tuple[str, str]]:
        """The header that lets a caller in."""
        return [("Authorization", f"Bearer {self.secret}")]


def configuration(dsn: str, redis_url: str, httpbin: Httpbin, tap: Tap) -> dict[str, Any]:
    """Everything goes to httpbin; what begins with /tapped goes there through the tap, without the prefix."""
    return {
        "environment": "test",
        "postgres": {"dsn": dsn},
        "redis": {"url": redis_url},
        "upstreams": {"httpbin": {"targets": [httpbin.url]}, "tapped": {"targets": [tap.url]}},
        "routes": [
            {"name": "everything", "paths": ["/"], "upstream": "httpbin"},
            {"name": "tapped", "paths": ["/tapped"], "upstream": "tapped", "strip_prefix": True},
        ],
        "plans": {"starter": {"tier": 1, "features": {"api_access": True}}},
    }


async def create_key(admin_url: str, operator_token: str) -> tuple[str, str]:
    """Id and secret of a key of Ada's at Acme, made as a customer's would be: by the management API."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {operator_token}"}) as session:

        async def call(method: str, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
            async with session.request(method, f"{admin_url}/v1{path}", json=document) as response:
                assert response.status in (200, 201), await response.text()
                answer: dict[str, Any] = await response.json()
                return answer

        await call("POST", "/tenants", {"id": "acme", "name": "Acme"})
        await call("PUT", "/users/ada", {"tenant_id": "acme", "display_name": "Ada"})
        await call("PUT", "/users/ada/entitlement", {"plan": "starter"})
        made = await call("POST", "/keys", {"user_id": "ada", "name": "try", "scopes": SCOPES, "environment": "test"})
        return made["id"], made["secret"]
