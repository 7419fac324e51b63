"""A gateway with the shipped configuration for this, an API, and one of the proxies in front of both."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from yarl import URL

from gateway.proxy.headers import fold
from tests.conftest import StartGateway
from tests.fixtures.fronts import SHIPPED, Front
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller, plant
from tests.fixtures.ports import free_port
from tests.fixtures.upstream import RecordedRequest, RecordingUpstream

IDENTITY: Final = (
    *("X-User-Id", "X-Tenant-Id", "X-Key-Id", "X-Key-Environment", "X-Auth-Kind", "X-Scopes", "X-Plan"),
    "X-Identity-Assertion",
)
FOLDED: Final = {fold(name.encode()): name for name in IDENTITY}
ROUTES: Final[list[dict[str, Any]]] = [
    {"name": "admin", "paths": ["/admin"], "upstream": "api", "require": {"scopes": ["admin:write"]}},
    {"name": "few", "paths": ["/few"], "upstream": "api", "limits": [{"by": "key", "per_minute": 1}]},
    {
        "name": "few-by-address",
        "paths": ["/few-by-address"],
        "upstream": "api",
        "auth": "none",
        "limits": [{"by": "address", "per_minute": 1}],
    },
    # What rests on Redis, which is not there: nobody can tell whether it may pass.
    {
        "name": "unknown",
        "paths": ["/unknown"],
        "upstream": "api",
        "limits": [{"by": "key", "per_minute": 100, "without_redis": "refuse"}],
    },
    {"name": "pages", "paths": ["/pages"], "upstream": "api", "cors": {"origins": ["https://app.example.com"]}},
    {"name": "maybe", "paths": ["/maybe"], "upstream": "api", "auth": "optional"},
]


@dataclass(frozen=True)
class Answer:
    """A reply, as a client of the proxy gets it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    times: Mapping[str, int]  # that each header came, by its lower-cased name

    @property
    def problem(self) -> dict[str, Any]:
        """Its body; fails where it is none."""
        assert self.headers.get("Content-Type") == "application/problem+json", (self.status, self.headers, self.body)
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


async def ask(url: str, path: str, secret: str = "", method: str = "GET", body: str = "", **headers: str) -> Answer:
    """One request. Underscores in names of `headers` stand for hyphens, two of them for one."""
    sent = {name.replace("__", "\0").replace("_", "-").replace("\0", "_"): value for name, value in headers.items()}
    if secret:
        sent["X-Api-Key"] = secret
    target = URL(url + path, encoded=True)  # as it is: nothing is cleaned on the way out
    async with aiohttp.request(method, target, headers=sent, data=body.encode() or None) as answer:
        received = await answer.read()
        names = [name.lower() for name in answer.headers]
        times = {name: names.count(name) for name in names}
        return Answer(answer.status, answer.headers, received, times)


def told(request: RecordedRequest) -> dict[str, str]:
    """What an API is told of its caller that folds headers' names together, as some do; empty values are none."""
    found: dict[str, str] = {}
    for name, value in request.headers:
        known = FOLDED.get(fold(name.encode()))
        if known is not None and value:
            assert known not in found, f"{known} came twice: {request.headers}"
            found[known] = value
    return found


@dataclass
class World:
    """The three of them, and a caller with a key."""

    gateway: GatewayProcess
    front: Front
    api: RecordingUpstream
    caller: Caller

    async def ask(
        self, path: str, secret: str | None = None, method: str = "GET", body: str = "", **headers: str
    ) -> Answer:
        """One request through the proxy; unless a `secret` is given (which may be empty), with the caller's key."""
        return await ask(
            self.front.url, path, self.caller.secret if secret is None else secret, method, body, **headers
        )


async def start_gateway(start: StartGateway, api: RecordingUpstream, changes: Mapping[str, Any]) -> GatewayProcess:
    """The gateway with the shipped configuration, and routes for what is to be seen beside its own."""
    shipped = yaml.safe_load((SHIPPED / "gateway.yaml").read_text())
    return await start(
        {
            **{name: shipped[name] for name in ("trusted_proxies", "credentials", "plans")},
            "upstreams": {"api": {"targets": [api.url]}, "orders": None},
            "routes": [*shipped["routes"], *ROUTES],
            "redis": {"url": f"redis://127.0.0.1:{free_port()}"},
            **changes,
        }
    )


@asynccontextmanager
async def world(
    name: str, folder: Path, start: StartGateway, dsn: str, api: RecordingUpstream, grpc_port: int = 1
) -> AsyncIterator[World]:
    """All of it, with the proxy called `name` in front."""
    gateway = await start_gateway(start, api, {})
    caller = await plant(dsn)
    folder.mkdir()
    front = Front(name, folder, gateway_port=gateway.proxy_port, api_port=api.port, grpc_port=grpc_port)
    await front.serve()
    try:
        yield World(gateway, front, api, caller)
    finally:
        await front.stop()
