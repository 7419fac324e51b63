"""The gateway's own endpoints on the public listener, `/.ostiary/...`: an aiohttp application.

The proxy forwards to it as to any upstream, over a socket pair inside the process: admission, header hygiene, limits
and framing are the same, and what it reads of the caller are the identity headers that an upstream would see.
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from gateway.control.problems import answer_errors, mark_reply, reply

PREFIX: Final = "/.ostiary"


def build_public(identity_headers: Mapping[str, str]) -> web.Application:
    """The application. `identity_headers` maps a fact (`user_id` ...) to the header name that carries it."""

    async def whoami(request: web.Request) -> web.Response:
        """The caller, as an upstream would be told."""
        facts = {fact: request.headers.get(name) for fact, name in identity_headers.items()}
        scopes = (facts.pop("scopes", None) or "").split()
        return reply({**facts, "scopes": scopes})

    app = web.Application(middlewares=[answer_errors])
    app.on_response_prepare.append(mark_reply)
    app.router.add_get(f"{PREFIX}/whoami", whoami)
    return app
