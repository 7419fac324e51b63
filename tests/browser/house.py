"""Everything that a person meets: nodes with a portal, an OpenID provider, an upstream, and a real browser."""

import asyncio
import itertools
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from gateway.control.admin_tokens import AdminTokens, Role
from gateway.embedded.server_process import HOST
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.browser.install import MODULES, NODE, browser
from tests.fixtures.gateway import GatewayProcess, operator_token
from tests.fixtures.ports import free_port
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until

HERE: Final = Path(__file__).parent
CLIENT_ID: Final = "ostiary-portal"
CLIENT_SECRET: Final = "a secret of the client, for tests: not/plain+at=all"
NODES: Final = 3
STOP_SECONDS: Final = 5.0


class CertifiedProvider:
    """A process of `oidc-provider`, which signs in whoever gives a name."""

    def __init__(self, folder: Path, redirect_uris: list[str]) -> None:
        self.port = free_port()
        self.issuer = f"http://{HOST}:{self.port}"
        self._redirect_uris = redirect_uris
        self._log_path = folder / "provider.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        about = {
            "port": self.port,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "redirect_uris": self._redirect_uris,
        }
        script = MODULES.parent / "provider.mjs"  # modules are looked for beside the script
        script.write_bytes((HERE / "provider.mjs").read_bytes())
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [NODE, script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PROVIDER": json.dumps(about)},
            )

        async def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._log_path.read_text()
            return "ready" in self._log_path.read_text()

        await until(answers, seconds=20, what="the provider")

    async def stop(self) -> None:
        """Stop it and wait until it is gone."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)


@dataclass
class House:
    """The world of the browser tests. Each test makes its own users in it."""

    nodes: list[GatewayProcess]
    provider: CertifiedProvider
    upstream: RecordingUpstream
    browser: Browser
    dsn: str
    redis_url: str
    http: aiohttp.ClientSession
    token: str = field(repr=False)

    _numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """The portal, on the admin listener of the first node."""
        return f"{self.nodes[0].admin_url}/portal"

    @property
    def public_url(self) -> str:
        """The same, on the public listener of the second."""
        return f"{self.nodes[1].proxy_url}/portal"

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the management API by an operator, which must succeed."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = self.nodes[0].admin_url + path
        async with self.http.request(method, url, json=body, headers=headers) as response:
            assert response.status < 300, (path, await response.text())
            return await response.json() if response.status != 204 else None

    async def ask(self, secret: str, node: int = 0, path: str = "/orders/1") -> tuple[int, str | None]:
        """Call the API behind the gateway with a key: the status, and the problem's code."""
        headers = {"Authorization": f"Bearer {secret}"}
        async with self.http.get(self.nodes[node].proxy_url + path, headers=headers) as response:
            body = await response.json(content_type=None)
            return response.status, body.get("code")

    async def user(
        self,
        *,
        tenant: str | None = None,
        plan: str | None = "starter",
        display_name: str = "Ada Lovelace",
        role: str | None = None,
    ) -> str:
        """A new user, of a tenant of their own unless one is named; without a plan where that is None.

        `role` is what the provider says of them: `boss` administrates the tenant, `auditor` reads it.
        """
        number = next(self._numbers)
        name = f"ada-{number}" if role is None else f"ada-{number}.{role}"
        if tenant is None:
            tenant = await self.tenant()
        await self.api("PUT", f"/v1/users/{name}", {"tenant_id": tenant, "display_name": display_name})
        if plan is not None:
            await self.api("PUT", f"/v1/users/{name}/entitlement", {"plan": plan})
        return name

    async def tenant(self, name: str = "Acme") -> str:
        """A new tenant."""
        tenant = f"acme-{next(self._numbers)}"
        await self.api("POST", "/v1/tenants", {"id": tenant, "name": name})
        return tenant

    async def admin_token(self, role: Role, tenant: str | None = None, name: str = "Grace") -> tuple[str, str]:
        """A new admin token: its id, and its text."""
        postgres = Postgres(self.dsn, metrics=Metrics())
        await postgres.open()
        try:
            row, token = await AdminTokens(postgres).create(name=name, role=role, tenant_id=tenant, expires_at=None)
            return row.id, token
        finally:
            await postgres.close()

    async def at_desk(
        self, role: Role = Role.OPERATOR, tenant: str | None = None, name: str = "Grace", **options: Any
    ) -> Page:
        """A page of somebody who has just signed in by a new admin token, in a browser of their own."""
        _, token = await self.admin_token(role, tenant, name)
        page = await (await self.context(**options)).new_page()
        await page.goto(f"{self.url}/admin/sign-in")
        await page.get_by_label("Admin token").fill(token)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(re.compile("/portal/admin/(fleet|tenants/)"))
        return page

    async def context(self, **options: Any) -> BrowserContext:
        """A browser that has been nowhere yet."""
        context = await self.browser.new_context(locale="en-GB", **options)
        context.set_default_timeout(10_000)
        return context

    async def key(self, user: str, name: str, **more: Any) -> Any:
        """A new key of the user, with its secret, made by an operator."""
        return await self.api("POST", "/v1/keys", {"user_id": user, "name": name, **more})

    async def execute(self, statement: str, *values: Any) -> Any:
        """One statement typed into psql; returns the first value of its first row."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(statement, *values)
        finally:
            await connection.close()

    async def signed_in(self, user: str, *, url: str | None = None, **options: Any) -> Page:
        """A page of somebody who has just signed in, in a browser of their own."""
        context = await self.context(**options)
        page = await context.new_page()
        await page.goto(url or self.url)
        await self.sign_in(page, user)
        return page

    async def sign_in(self, page: Page, user: str) -> None:
        """From the portal's first page through the provider's, and back."""
        await page.get_by_role("link", name="Sign in").click()
        await page.locator("input[name=login]").fill(user)
        await page.locator("input[name=password]").fill("any")
        await page.locator("button[type=submit]").click()
        await page.wait_for_url("**/portal/**")


@asynccontextmanager
async def house(folder: Path, dsn: str, redis_url: str) -> AsyncIterator[House]:
    """All of it, started; stopped in the end."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(RecordingUpstream())
        nodes = [GatewayProcess(folder / f"node-{number}", {}) for number in range(NODES)]
        urls = [nodes[0].admin_url, *(node.proxy_url for node in nodes[1:])]
        provider = CertifiedProvider(folder, [f"{url}/portal/callback" for url in urls])
        await provider.start()
        stack.push_async_callback(provider.stop)
        for number, node in enumerate(nodes):
            node.configure(configuration(dsn, redis_url, upstream, provider, urls[number]))
            await node.start()
            stack.push_async_callback(node.stop)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        playwright = await stack.enter_async_context(async_playwright())
        executable, environment = browser()
        chromium = await playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--no-zygote", "--disable-gpu"],
            env=dict(environment),
        )
        stack.push_async_callback(chromium.close)
        yield House(nodes, provider, upstream, chromium, dsn, redis_url, http, await operator_token(dsn))


def configuration(
    dsn: str, redis_url: str, upstream: RecordingUpstream, provider: CertifiedProvider, url: str
) -> dict[str, Any]:
    """The configuration of a node."""
    return {
        "environment": "test",
        "postgres": {"dsn": dsn},
        "redis": {"url": redis_url},
        "metering": {"interval_seconds": 0.2},
        "oidc": {
            "issuer": provider.issuer,
            "audience": "https://api.example.com",
            "key_scopes": ["orders:read", "orders:write"],
            "admin_roles": {"roles": {"boss": "tenant-admin", "auditor": "auditor"}},
        },
        "tokens": {
            "issuer": "https://api.example.com",
            "audience": "https://api.example.com",
            "sealing_key": "of these tests alone: 0123456789abcdef",
        },
        "portal": {"url": url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
        "upstreams": {"orders": {"targets": [upstream.url]}},
        "routes": [
            {"name": "orders", "paths": ["/orders"], "upstream": "orders"},
            {"name": "portal", "paths": ["/portal"], "upstream": ".portal", "auth": "none"},
        ],
        "plans": {
            "starter": {"tier": 1, "features": {"api_access": True}, "limits": {"per_minute": 600}},
            "reader": {"tier": 0},
            "pro": {"tier": 2, "features": {"api_access": True, "reports": True}, "limits": {"per_minute": 6000}},
        },
    }
