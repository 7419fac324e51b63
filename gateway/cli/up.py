"""`ostiary up`: the gateway with everything it needs, and a key to try it, from an empty folder."""

import asyncio
import contextlib
import shlex
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import typer
import yaml
from aiohttp import web

from gateway.cli.demo import ENVIRONMENT, PLAN, USER, Demo, DemoFailed, DemoKey
from gateway.control.admin_tokens import AdminTokens, Role
from gateway.embedded import example
from gateway.embedded.keeper import Addresses, Keeper
from gateway.embedded.server_process import HOST, free_port, write_private
from gateway.errors import GatewayError
from gateway.running.alone import Alone
from gateway.running.configuration_file import ConfigurationFile
from gateway.running.service import Service
from gateway.settings import Settings
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.migrate import migrate
from gateway.telemetry.metrics import Metrics


class PortTaken(GatewayError):
    """A port that `up` needs has a listener already."""


class ServerLost(GatewayError):
    """An embedded server ended while the gateway ran."""


async def run(data: Path, port: int) -> None:
    """Run until SIGINT or SIGTERM. Raises PortTaken, EmbeddedServerError, ServerLost."""
    began = time.monotonic()
    check_ports(port)
    async with contextlib.AsyncExitStack() as stack:
        keeper = Keeper(data)
        stack.push_async_callback(asyncio.to_thread, keeper.stop)
        is_first = not (data / "postgres").exists()
        addresses = await asyncio.to_thread(keeper.start)
        path = _write_configuration(data, port, addresses, await _start_example(stack))
        file = ConfigurationFile(path, environ={})
        settings = file.read()
        await migrate(settings.postgres.dsn.get_secret_value())
        token = await _operator_token(data, settings, is_first=is_first)
        service = Service(file, settings, Alone)
        await stack.enter_async_context(service.running())
        async with aiohttp.ClientSession() as session:
            key = await _demo_key(Demo(session, f"http://{settings.listen.admin}", token.read_text()))
        typer.echo(Welcome(settings, key, token, is_first, time.monotonic() - began).text())
        await _wait(service, keeper)
        typer.echo("\nstopping")


def check_ports(port: int) -> None:
    """Raise PortTaken if one of the three ports cannot be listened on."""
    for needed in (port, port + 1, port + 2):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listeners do
            try:
                probe.bind((HOST, needed))
            except OSError as error:
                raise PortTaken(
                    f"cannot listen on port {needed} ({error.strerror}). `up` needs {port}, {port + 1} and {port + 2}:"
                    " choose others with --port"
                ) from error


@dataclass(frozen=True)
class Welcome:
    """What is printed once all is ready: commands that can be pasted into a shell, in this order."""

    settings: Settings
    key: DemoKey | DemoFailed
    token_path: Path
    is_first: bool
    seconds: float

    def text(self) -> str:
        """The text. It shows the demo key's secret, and where the operator's token is but not the token."""
        if isinstance(self.key, DemoKey):
            secret, tried = "; the key's secret is new", self._lines(self.key)
        else:
            secret, tried = "", self._failure(self.key)
        found = "" if self.is_first else f" The data of the last start is still there{secret}."
        return f"""
Ostiary is up, after {self.seconds:.1f} s.{found}

  callers  http://{self.settings.listen.proxy}   management  http://{self.settings.listen.admin}\
   status  http://{self.settings.listen.status}
  data     {self.token_path.parent}   (gateway.yaml is its configuration)

{tried}

Ctrl-C stops everything."""

    def _lines(self, demo_key: DemoKey) -> str:
        orders = f"http://{self.settings.listen.proxy}/orders/42"
        key = f"http://{self.settings.listen.admin}/v1/keys/{demo_key.id}"
        operator = f'-H "Authorization: Bearer $(cat {shlex.quote(str(self.token_path))})"'
        json = "-H 'Content-Type: application/json'"
        return f"""\
With a key, the request is forwarded, and the upstream is told who is calling (200):
  curl -i -H 'Authorization: Bearer {demo_key.secret}' {orders}
With a wrong one it is not (401):
  curl -i -H 'Authorization: Bearer ost_wrong' {orders}
Rotate: the answer holds a new secret, and the old one works for another minute:
  curl -i -X POST {operator} {json} -d '{{"grace_seconds": 60}}' {key}/rotate
Revoke: when this has answered, no secret of the key is admitted any more:
  curl -i -X POST {operator} {json} -d '{{"reason": "tried it"}}' {key}/revoke"""

    def _failure(self, failed: DemoFailed) -> str:
        configuration = shlex.quote(str(self.token_path.with_name("gateway.yaml")))
        return f"""\
There is no new key to try it with; what is in the data does not allow one:
  {failed}
Look at the keys that there are, and at who has them:
  ostiary keys list -c {configuration}
  ostiary users show {USER} -c {configuration}"""


async def _demo_key(demo: Demo) -> DemoKey | DemoFailed:
    """A key with a new secret, or why there is none: the data are the user's own, who may have changed everything."""
    try:
        return await demo.prepare()
    except DemoFailed as failed:
        return failed


async def _start_example(stack: contextlib.AsyncExitStack) -> int:
    runner = web.AppRunner(example.application(), access_log=None)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, HOST, port).start()
    return port


def _write_configuration(data: Path, port: int, addresses: Addresses, upstream_port: int) -> Path:
    document = {
        "environment": ENVIRONMENT,
        "listen": {"proxy": f"{HOST}:{port}", "admin": f"{HOST}:{port + 1}", "status": f"{HOST}:{port + 2}"},
        "postgres": {"dsn": addresses.postgres_dsn},
        "redis": {"url": addresses.redis_url},
        "drain": {"delay_seconds": 0},  # no balancer is in front that would have to notice
        "upstreams": {"orders": {"targets": [f"http://{HOST}:{upstream_port}"]}},
        "routes": [
            {
                "name": "orders",
                "paths": ["/orders"],
                "upstream": "orders",
                "require": {"scopes": ["orders:read"]},
            },
            {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
        ],
        "plans": {PLAN: {"tier": 1, "features": {"api_access": True}}},
    }
    path = data / "gateway.yaml"
    head = "# Written by `ostiary up` at every start. Copy it to change it; it holds passwords.\n"
    write_private(path, head + yaml.safe_dump(document, sort_keys=False))
    return path


async def _operator_token(data: Path, settings: Settings, *, is_first: bool) -> Path:
    path = data / "operator.token"
    if is_first or not path.exists():
        postgres = Postgres(settings.postgres.dsn.get_secret_value(), metrics=Metrics())
        await postgres.open()
        try:
            _, token = await AdminTokens(postgres).create(
                name="ostiary up", role=Role.OPERATOR, tenant_id=None, expires_at=None
            )
        finally:
            await postgres.close()
        write_private(path, token)
    return path


async def _wait(service: Service, keeper: Keeper) -> None:
    """Return once asked to stop. Raises ServerLost when an embedded server ends first, and what fails the gateway."""
    lost = asyncio.ensure_future(asyncio.to_thread(keeper.wait_for_end))
    await service.wait(lost)
    if lost.done():
        raise ServerLost("an embedded server ended: see postgres.log and redis.log in the data folder")
