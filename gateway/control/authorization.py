"""Who may call what, decided before the body is read and before anything is looked up (R124).

Every call names the roles that may make it, or says that anybody may.
"""

from dataclasses import dataclass, field, replace

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.control.admin_tokens import Administrator, AdminTokens
from gateway.control.calls import CALL, Call
from gateway.control.problems import Forbidden, Unauthenticated, request_id_of

_ADMINISTRATOR = web.RequestKey("administrator", Administrator)


@dataclass
class Gate:
    """Lets a request through to its handler when its bearer has a role that the call names.

    A request to an address or with a method that does not exist is refused as 401 first, too: what exists is told to
    those alone who may call something.
    """

    tokens: AdminTokens
    _calls: dict[web.AbstractRoute, Call] = field(default_factory=dict)

    def guard(self, router: web.UrlDispatcher, call: Call) -> None:
        """Register a call."""
        self._calls[router.add_route(call.method, call.path, call.handler)] = call

    @property
    def middleware(self) -> Middleware:
        """The middleware that stands before every handler."""

        @web.middleware
        async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
            call = self._calls.get(request.match_info.route)
            if call is not None:
                request[CALL] = call
                if call.roles is None:
                    return await handler(request)
            administrator = await self._authenticate(request)
            if request.match_info.http_exception is None:
                if call is None or call.roles is None or administrator.role not in call.roles:
                    raise Forbidden(f"{administrator.token_id} is {administrator.role}")
                origin = replace(administrator.origin, address=request.remote, request_id=request_id_of(request))
                request[_ADMINISTRATOR] = replace(administrator, origin=origin)
            return await handler(request)

        return authorize

    async def _authenticate(self, request: web.Request) -> Administrator:
        sent = request.headers.getall("Authorization", [])
        if len(sent) != 1:
            raise Unauthenticated(f"{len(sent)} Authorization headers")
        scheme, _, token = sent[0].partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("not a Bearer token")
        administrator = await self.tokens.recognise(token.strip())
        if administrator is None:
            raise Unauthenticated("malformed, unknown, revoked or expired")
        return administrator


def is_let_through(request: web.Request) -> bool:
    """Whether it is a call with an administrator: not an open route, nor an address that does not exist."""
    return _ADMINISTRATOR in request


def set_administrator(request: web.Request, administrator: Administrator) -> None:
    """Say more about who is calling."""
    request[_ADMINISTRATOR] = administrator


def administrator_of(request: web.Request) -> Administrator:
    """Who is calling; only the gate lets a request come this far."""
    return request[_ADMINISTRATOR]
