"""httpbin under gunicorn, a gateway in front of it, and a key."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.embedded.server_process import HOST
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until
from tests.integration.httpbin.tap import Tap

SCOPES = ["things:read", "things:write"]
STOP_SECONDS = 10.0


class Httpbin:
    """The upstream: `gunicorn httpbin:app`, one process with threads, connections kept open."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it answers; on failure shows its log."""
        log_path = self._folder / "gunicorn.log"
        arguments = ["--bind", f"{HOST}:{self.port}", "--worker-class", "gthread", "--threads", "8"]
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *arguments, "--keep-alive", "60", "httpbin:app"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                # Where it may put its control socket.
                env={**os.environ, "HOME": str(self._folder), "XDG_RUNTIME_DIR": str(self._folder)},
            )
        async with aiohttp.ClientSession() as session:

            async def answers() -> bool:
                assert self._process is not None
                assert self._process.poll() is None, f"httpbin ended:\n{log_path.read_text()}"
                try:
                    async with session.get(f"{self.url}/status/200") as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await until(answers, seconds=30, what=f"httpbin, its log is {log_path}")

    async def stop(self) -> None:
        """Stop it and wait until it is gone."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)


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
