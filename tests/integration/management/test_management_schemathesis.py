"""Schemathesis over the document of the management API, against a running gateway. Always the same requests.

No reply is a 500, of a status that is not documented, or not what the document says of it; what the document does not
allow is refused; what needs a token is refused without one; a method that is not there is a 405 with `Allow`.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.control.admin_tokens import AdminTokens, Role
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess

# What is planted, so that calls come further than to a 404; and what may be deleted without taking the rest along.
OWNERS = {"ada": "acme", "alan": "acme", "olga": "other", "dora": "acme"}
KEEPERS = {"tenants": ("acme", "other"), "users": ("ada", "alan", "olga"), "plans": ("starter",)}
DOOMED = {"tenants": ("spare",), "users": ("dora",)}
# A document cannot say everything: an end in the past, a plan that does not exist, a cursor that was not given out.
LEFT_OUT = "positive_data_acceptance"


class Planted:
    """A gateway with something in it, and what to tell Schemathesis about that."""

    def __init__(self, node: GatewayProcess, folder: Path, operator: str) -> None:
        self.node = node
        self.operator = operator
        self._folder = folder
        self._ids: dict[str, Sequence[str]] = {}

    async def plant(self) -> None:
        """Tenants, users who are entitled, keys and retired secrets."""
        headers = {"Authorization": f"Bearer {self.operator}"}
        async with aiohttp.ClientSession(self.node.admin_url, headers=headers, raise_for_status=True) as session:

            async def call(method: str, path: str, body: Any) -> Any:
                async with session.request(method, path, json=body) as response:
                    return await response.json()

            for tenant in (*KEEPERS["tenants"], *DOOMED["tenants"]):
                await call("POST", "/v1/tenants", {"id": tenant, "name": tenant})
            keys = []
            for user, tenant in OWNERS.items():
                await call("PUT", f"/v1/users/{user}", {"tenant_id": tenant})
                await call("PUT", f"/v1/users/{user}/entitlement", {"plan": "starter"})
                keys += [await call("POST", "/v1/keys", {"user_id": user, "name": f"{user}-{n}"}) for n in range(3)]
            rotated = [await call("POST", f"/v1/keys/{key['id']}/rotate", {}) for key in keys[::2]]
        retired = [key["retired_secret"]["id"] for key in rotated]
        self._ids = {
            **KEEPERS,
            "keys": [key["id"] for key in keys],
            "retired-secrets": retired,
        }

    async def run(self, *arguments: str, token: str | None) -> None:
        """One run of Schemathesis as the bearer of `token`; fails with what it says if it finds anything."""
        told = self._folder / "schemathesis.toml"
        told.write_text(self._configuration())
        program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
        assert program is not None
        process = await asyncio.create_subprocess_exec(
            program,
            "--config-file",
            str(told),
            "run",
            f"{self.node.admin_url}/v1/openapi.json",
            *([] if token is None else ["--header", f"Authorization: Bearer {token}"]),
            f"--exclude-checks={LEFT_OUT}",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
            *arguments,
            cwd=self._folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert "No operations" not in said.decode()
        assert "management call broke" not in self.node.log

    async def actions(self) -> set[str]:
        """What was done, by the audit trail."""
        headers = {"Authorization": f"Bearer {self.operator}"}
        async with (
            aiohttp.ClientSession(self.node.admin_url, headers=headers) as session,
            session.get("/v1/audit/export") as response,
        ):
            return {json.loads(line)["action"] for line in (await response.text()).splitlines()}

    def _configuration(self) -> str:
        dictionaries = {**self._ids, **{f"doomed-{name}": ids for name, ids in DOOMED.items()}}
        lists = "".join(f"[dictionaries.{name}]\nvalues = {list(ids)}\n" for name, ids in dictionaries.items())
        paths = "".join(
            f'[[operations]]\ninclude-path-regex = "^/v1/{name}/"\n{which}-method = "DELETE"\n'
            f'parameters = {{ "path.{"name" if name == "plans" else "id"}"'
            f' = {{ dictionary = "{"doomed-" if which == "include" and name in DOOMED else ""}{name}",'
            f" probability = 0.8 }} }}\n"
            for name in self._ids
            for which in ("include", "exclude")
        )
        bodies = "".join(
            f'"body.{field}" = {{ dictionary = "{name}", probability = 0.8 }}\n'
            for field, name in (("user_id", "users"), ("tenant_id", "tenants"), ("plan", "plans"))
        )
        return f"{lists}[parameters]\n{bodies}{paths}"


@pytest.fixture
async def planted(gateway: StartGateway, tmp_path: Path, operator_token: str) -> Planted:
    """A running gateway."""
    world = Planted(await gateway(), tmp_path, operator_token)
    await world.plant()
    return world


async def token_of(dsn: str, role: Role, tenant_id: str | None) -> str:
    """A new admin token."""
    postgres = Postgres(dsn, metrics=Metrics())
    await postgres.open()
    try:
        _, token = await AdminTokens(postgres).create(name="t", role=role, tenant_id=tenant_id, expires_at=None)
        return token
    finally:
        await postgres.close()


async def test_an_operator_meets_nothing_that_is_not_documented(planted: Planted) -> None:
    """Every limit of every schema tried, each by itself, and then whatever fits or does not. R121, R122, R126, R278."""
    await planted.run("--phases=coverage,fuzzing", "--max-examples=5", token=planted.operator)
    done = {"tenant.change", "tenant.delete", "user.change", "plan.put", "key.change", "key.revoke", "cache.invalidate"}
    assert await planted.actions() >= done  # what was tried came further than to refusals


async def test_neither_do_lesser_roles(planted: Planted, postgres_dsn: str) -> None:
    """Nor does a stranger: whatever is sent, it is refused in the documented way. R123."""
    await planted.run("--phases=fuzzing", "--max-examples=1", token=None)
    for role, tenant_id in ((Role.TENANT_ADMIN, "acme"), (Role.AUDITOR, None)):
        token = await token_of(postgres_dsn, role, tenant_id)
        await planted.run("--phases=fuzzing", "--max-examples=3", token=token)
