"""The upstream that `ostiary up` forwards to: a tiny orders API that tells what it was told about the caller."""

from aiohttp import web

ORDERS = {"42": {"item": "lantern", "quantity": 2}, "43": {"item": "rope", "quantity": 1}}
IDENTITY_HEADERS = (
    *("X-User-Id", "X-Tenant-Id", "X-Key-Id", "X-Key-Environment", "X-Auth-Kind", "X-Scopes", "X-Plan"),
    *("X-Request-Id", "X-Identity-Assertion"),
)


def application() -> web.Application:
    """`GET /orders`, `POST /orders` (echoes), `GET /orders/{id}`, `GET /public`. It stores nothing."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/orders", _list),
            web.post("/orders", _create),
            web.get("/orders/{id}", _show),
            web.get("/public", _public),
        ]
    )
    return app


async def _list(request: web.Request) -> web.Response:
    return _reply(request, {"orders": [{"id": number, **order} for number, order in ORDERS.items()]})


async def _show(request: web.Request) -> web.Response:
    number = request.match_info["id"]
    if number not in ORDERS:
        return _reply(request, {"error": "no such order"}, status=404)
    return _reply(request, {"order": {"id": number, **ORDERS[number]}})


async def _create(request: web.Request) -> web.Response:
    return _reply(request, {"received": await request.text()}, status=201)


async def _public(request: web.Request) -> web.Response:
    return _reply(request, {"hello": "anyone"})


def _reply(request: web.Request, document: dict[str, object], *, status: int = 200) -> web.Response:
    caller = {name: request.headers[name] for name in IDENTITY_HEADERS if name in request.headers}
    return web.json_response({**document, "caller": caller}, status=status)
