"""The gateway's own endpoints on the public listener, `/.ostiary/...`: an aiohttp application.

The proxy forwards to it as to any upstream, over a socket pair inside the process: admission, header hygiene, limits
and framing are the same, and what it reads of the caller are the identity headers that an upstream would see.
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from gateway.control.problems import answer_errors, mark_reply, reply
from gateway.control.tokens import Mint

PREFIX: Final = "/.ostiary"
WHOAMI: Final = f"{PREFIX}/whoami"
TOKENS: Final = f"{PREFIX}/tokens"
JWKS: Final = f"{PREFIX}/jwks.json"
BODY_LIMIT_BYTES: Final = 64 * 1024


def build_public(identity_headers: Mapping[str, str], mint: Mint | None = None) -> web.Application:
    """The application. `identity_headers` maps a fact (`user_id` ...) to the header name that carries it.

    `mint` makes access tokens; None where there are none.
    """

    async def whoami(request: web.Request) -> web.Response:
        """The caller, as an upstream would be told."""
        facts = {fact: request.headers.get(name) for fact, name in identity_headers.items()}
        scopes = (facts.pop("scopes", None) or "").split()
        return reply({**facts, "scopes": scopes})

    app = web.Application(middlewares=[answer_errors], client_max_size=BODY_LIMIT_BYTES)
    app.on_response_prepare.append(mark_reply)
    app.router.add_get(WHOAMI, whoami)
    if mint is not None:
        app.router.add_post(TOKENS, mint.mint)
        app.router.add_get(JWKS, mint.jwks)
    return app
