"""The API with a few users, and a shell at each of the two doors."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.commands.shell import Shell, written_config
from tests.integration.management.world import Management, give_tokens, management_over


@pytest.fixture
async def world(postgres_dsn: str) -> AsyncIterator[Management]:
    """The API, planted, with the operator's and the auditor's token."""
    async with management_over(postgres_dsn) as world:
        await give_tokens(world)
        await world.plant()
        yield world


@pytest.fixture
def config(world: Management, redis_url: str, tmp_path: Path) -> Path:
    """A configuration of the stores behind it."""
    return written_config(world, redis_url, tmp_path)


@pytest.fixture(params=["stores", "api"])
def shell(request: pytest.FixtureRequest, world: Management, config: Path) -> Shell:
    """Both doors."""
    door = ("-c", str(config)) if request.param == "stores" else ("--api", str(world.client.make_url("/")))
    return Shell(world, config, door, world.operator)
