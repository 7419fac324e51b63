"""The API as most tests want it."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.management.world import Management, give_tenant_token, give_tokens, management_over


@pytest.fixture
async def management(postgres_dsn: str) -> AsyncIterator[Management]:
    """The API without Redis, planted, with a token for each role."""
    async with management_over(postgres_dsn) as world:
        await give_tokens(world)
        await world.plant()
        await give_tenant_token(world, "acme")
        yield world
