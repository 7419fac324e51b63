"""HTTP/2 and gRPC, through the proxies that speak them: the key is checked, and the service is told who calls."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures.ports import free_port
from tests.fixtures.upstream import RecordingUpstream
from tests.integration.forward_auth.world import World, told, world

METHOD = "/orders.v1.Orders/Get"
SPOOFED = (("x-user-id", "mallory"), ("x-plan", "gold"), ("x-identity-assertion", "e30.e30."))


class Service:
    """A gRPC service of one method, which answers in pieces. `seen` is the metadata of each call."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, str]] = []
        self.port = free_port()
        self._server = grpc.aio.server()
        self._server.add_insecure_port(f"{HOST}:{self.port}")
        handler = grpc.unary_stream_rpc_method_handler(self._get)
        name, method = METHOD[1:].split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler}),))
        self.start, self.stop = self._server.start, self._server.stop

    async def _get(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        self.seen.append(dict(context.invocation_metadata()))
        for number in range(3):
            yield b"%b-%d" % (request, number)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    await made.start()
    yield made
    await made.stop(None)


@pytest.fixture(params=["nginx", "envoy"])
async def stand(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    gateway: StartGateway,
    postgres_dsn: str,
    upstream: RecordingUpstream,
    service: Service,
) -> AsyncIterator[World]:
    """One of the proxies, the gateway, an API and a gRPC service."""
    folder = tmp_path / "front"
    async with world(request.param, folder, gateway, postgres_dsn, upstream, service.port) as made:
        yield made


# The client loses the status of a refusal now and then, where nginx sends it in a head and the end apart from that.
LOST_STATUS = grpc.StatusCode.UNKNOWN
TRIES = 3


async def check_refused(
    call: grpc.aio.UnaryStreamMultiCallable,
    metadata: tuple[tuple[str, str], ...],
    code: grpc.StatusCode,
    *,
    tries: int = TRIES,
) -> None:
    """It ends with this status."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [piece async for piece in call(b"order", metadata=metadata)]
    if caught.value.code() == LOST_STATUS and tries > 1:
        await check_refused(call, metadata, code, tries=tries - 1)
        return
    assert caught.value.code() == code, caught.value


async def test_grpc_calls_are_let_through_with_the_identity(stand: World, service: Service) -> None:
    """A call with a key arrives with the caller's identity; others end as gRPC has it, and do not arrive. R020."""
    async with grpc.aio.insecure_channel(f"{HOST}:{stand.front.port}") as channel:
        call = channel.unary_stream(METHOD)
        key = (("x-api-key", stand.caller.secret),)
        assert [piece async for piece in call(b"order", metadata=(*key, *SPOOFED))] == [
            b"order-0",
            b"order-1",
            b"order-2",
        ]
        seen = service.seen.pop()
        assert (seen["x-user-id"], seen["x-plan"]) == (stand.caller.user_id, "starter")
        assert not seen.get("x-identity-assertion")
        assert stand.caller.secret not in str(seen)
        await check_refused(call, SPOOFED, grpc.StatusCode.UNAUTHENTICATED)
        admin = channel.unary_stream("/admin/Get")
        await check_refused(admin, key, grpc.StatusCode.PERMISSION_DENIED)
        assert service.seen == []
        stand.gateway.kill()
        await check_refused(call, key, grpc.StatusCode.UNAVAILABLE)
    assert service.seen == []


async def test_http2_is_spoken_to_clients(stand: World) -> None:
    """Over HTTP/2 the decisions are the same, and so is what the API is told."""
    async with httpx.AsyncClient(http1=False, http2=True, base_url=stand.front.url) as client:
        passed = await client.get("/orders/7", headers={"X-Api-Key": stand.caller.secret, "X-User-Id": "mallory"})
        refused = await client.get("/orders/7", headers={"X-User-Id": "mallory"})
    assert (passed.status_code, passed.http_version) == (200, "HTTP/2")
    assert told(stand.api.last)["X-User-Id"] == stand.caller.user_id
    assert (refused.status_code, refused.json()["code"]) == (401, "missing_api_key")
    assert len(stand.api.requests) == 1
