"""A collector of traces that throws them away: `python -m bench.collector PORT`."""

import sys

from aiohttp import web


async def take(request: web.Request) -> web.Response:
    """Read what comes, and be content."""
    await request.read()
    return web.Response(content_type="application/x-protobuf")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/v1/traces", take)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
