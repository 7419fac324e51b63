"""The same request twice: straight to httpbin, and through the gateway."""

from tests.integration.httpbin.answers import Answer
from tests.integration.httpbin.clients import Client, Pairs
from tests.integration.httpbin.world import World


async def ask_both(
    client: Client,
    world: World,
    method: str,
    path: str,
    headers: Pairs = (),
    body: bytes | None = None,
    *,
    is_chunked: bool = False,
) -> tuple[Answer, Answer]:
    """The direct answer and the one through the gateway; only the latter's request carries a credential."""
    direct = await client.fetch(method, world.direct + path, headers, body, is_chunked=is_chunked)
    headers = [*headers, *world.credential]
    return direct, await client.fetch(method, world.via + path, headers, body, is_chunked=is_chunked)


async def assert_same(
    client: Client, world: World, method: str, path: str, headers: Pairs = (), body: bytes | None = None
) -> Answer:
    """Fails unless both answers are equal in all that the gateway does not own; returns the gateway's."""
    direct, via = await ask_both(client, world, method, path, headers, body)
    assert via.relayed == direct.relayed
    assert via.header("X-Request-Id"), "the gateway did not see this request"
    assert direct.header("X-Request-Id") is None, "the direct call was not direct"
    assert len(via.all("Date")) == 1
    return via
