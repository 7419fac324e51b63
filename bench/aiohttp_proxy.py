"""A key-checking proxy as one writes it in an afternoon, and well: aiohttp, uvloop, one session that keeps connections.

Bodies stream both ways, headers of one hop stay behind, nothing is logged or decompressed. What a gateway has to do
beyond that, and what it costs, is the difference to the gateway's row.

Usage: `python -m bench.aiohttp_proxy PORT UPSTREAM_PORT KEYS_FILE [--tls CHAIN KEY] [--prefixes PREFIX ...]`. A line of
the file is a secret, a space, and the user whose it is.
"""

import argparse
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

_OF_ONE_HOP = ("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade")
_ADDED_BY_THE_CLIENT = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT, hdrs.CONTENT_TYPE)
_CONNECT_SECONDS = 5
_KEEP_ALIVE_SECONDS = 75


def _without_hop(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers that travel on: not those of one hop, nor what `Connection` names (RFC 9110, 7.6.1)."""
    kept = CIMultiDict(headers)
    for named in headers.getall(hdrs.CONNECTION, ()):
        for name in named.split(","):
            kept.popall(name.strip(), None)
    for name in _OF_ONE_HOP:
        kept.popall(name, None)
    return kept


class AiohttpProxy:
    """Forwards what brings a key of `users` to one upstream."""

    def __init__(self, upstream: str, users: dict[str, str]) -> None:
        self._upstream = upstream
        self._users = users

    def application(self, prefixes: list[str]) -> web.Application:
        """Return the application with a route for each prefix, or one for everything."""
        application = web.Application()
        application.cleanup_ctx.append(self._session_of)
        for prefix in prefixes or [""]:
            application.router.add_route("*", prefix + "/{rest:.*}", self.forward)
        return application

    async def _session_of(self, application: web.Application) -> AsyncIterator[None]:
        self._session = ClientSession(
            connector=TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            timeout=ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=DummyCookieJar(),
            skip_auto_headers=_ADDED_BY_THE_CLIENT,
            auto_decompress=False,
        )
        yield
        await self._session.close()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Answer one request: 401 without a good key, 502 without an upstream, else the upstream's reply."""
        scheme, _, secret = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        user = self._users.get(secret) if scheme.lower() == "bearer" else None
        if user is None:
            return web.Response(status=401, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
        headers = _without_hop(request.headers)
        del headers[hdrs.AUTHORIZATION]
        headers["X-User-Id"] = user
        url = URL(self._upstream + request.raw_path, encoded=True)
        body = request.content if request.body_exists else None
        response = None
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as reply:
                response = web.StreamResponse(
                    status=reply.status, reason=reply.reason, headers=_without_hop(reply.headers)
                )
                await response.prepare(request)
                async for piece in reply.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response
        except ClientError:
            if response is not None:
                raise  # the reply has begun: the connection is cut, so that nobody takes it for whole
            return web.Response(status=502)


def _users_of(path: Path) -> dict[str, str]:
    return dict(line.split(" ") for line in path.read_text().splitlines())


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("upstream_port", type=int)
    parser.add_argument("keys_file", type=Path)
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--prefixes", nargs="+", default=[])
    arguments = parser.parse_args()
    context = None
    if arguments.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arguments.tls)
    proxy = AiohttpProxy(f"http://127.0.0.1:{arguments.upstream_port}", _users_of(arguments.keys_file))
    web.run_app(
        proxy.application(arguments.prefixes),
        host="127.0.0.1",
        port=arguments.port,
        ssl_context=context,
        loop=uvloop.new_event_loop(),
        access_log=None,
        print=None,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
