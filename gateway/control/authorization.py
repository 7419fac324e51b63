"""Who may call what, decided before the body is read and before anything is looked up (R124).

Every call names the roles that may make it, or says that anybody may, or that it is for signed-in users: those take no
admin token, whatever its role.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.auth.tokens import is_token
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.calls import CALL, Call
from gateway.control.people import People, Person
from gateway.control.problems import Forbidden, SignInRequired, Unauthenticated, request_id_of

_ADMINISTRATOR = web.RequestKey("administrator", Administrator)
_PERSON = web.RequestKey("person", Person)


class Bearers(Protocol):
    """Knows whose token is whose (gateway.control.admin_tokens)."""

    async def recognise(self, token: str) -> Administrator | None:
        """Who calls with this token; None for one that is none, or none any more."""
        ...


@dataclass
class Gate:
    """Lets a request through to its handler when its bearer has a role that the call names.

    A request to an address or with a method that does not exist is refused as 401 first, too: what exists is told to
    those alone who may call something.
    """

    tokens: Bearers
    people: People | None = None
    _calls: dict[web.AbstractRoute, Call] = field(default_factory=dict)

    def guard(self, router: web.UrlDispatcher, calls: Sequence[Call]) -> None:
        """Register the calls. A name in a path stands for anything but what is a path of its own (/v1/keys/verify)."""
        for call in calls:
            start, _, end = call.path.partition("{id}")
            taken = [other.path.removeprefix(start) for other in calls if other.path.startswith(start) and not end]
            literal = "|".join(sorted({re.escape(name) for name in taken if name.isalpha()}))
            path = call.path.replace("{id}", f"{{id:(?!(?:{literal})$)[^{{}}/]+}}") if literal else call.path
            self._calls[router.add_route(call.method, path, call.handler)] = call

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
            caller = await self._authenticate(request, is_personal=call is not None and call.is_personal)
            if request.match_info.http_exception is None:
                if call is None or not _may(caller, call):
                    raise Forbidden(f"{caller.token_id} is {caller.role}")
                origin = replace(caller.origin, address=request.remote or None, request_id=request_id_of(request))
                request[_ADMINISTRATOR] = replace(caller, origin=origin)
            return await handler(request)

        return authorize

    async def _authenticate(self, request: web.Request, *, is_personal: bool) -> Administrator:
        """Who is calling, by an access token or an admin token, as the call takes them."""
        token = _bearer_token(request)
        person = await self._person(token)
        if person is not None:
            request[_PERSON] = person
        if is_personal:
            if person is None:
                raise SignInRequired("not an access token")
            return person.as_owner
        caller = await self.tokens.recognise(token) if person is None else person.as_administrator
        if caller is None:
            raise Unauthenticated("no token, or malformed, unknown, revoked or expired")
        return caller

    async def _person(self, token: str) -> Person | None:
        """Who has signed in, if somebody may and this has the shape of an access token."""
        if self.people is None or not is_token(token.encode(errors="replace")):
            return None
        return await self.people.recognise(token)


def _bearer_token(request: web.Request) -> str:
    """The one Bearer token of the request, or an empty text."""
    sent = request.headers.getall("Authorization", [])
    scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _may(caller: Administrator, call: Call) -> bool:
    """Whether the caller may make the call."""
    if call.is_personal:
        return True  # the caller has been found to be a user, for whom nobody else's exists
    return has_role(caller, call.roles or frozenset())


def has_role(caller: Administrator, roles: frozenset[Role]) -> bool:
    """Whether the caller may do what is for these roles; of a tenant's callers, none what its administrator may not."""
    return caller.role in roles and (caller.tenant_id is None or Role.TENANT_ADMIN in roles)


def is_let_through(request: web.Request) -> bool:
    """Whether it is a call with an administrator: not an open route, nor an address that does not exist."""
    return _ADMINISTRATOR in request


def set_administrator(request: web.Request, administrator: Administrator) -> None:
    """Say more about who is calling."""
    request[_ADMINISTRATOR] = administrator


def administrator_of(request: web.Request) -> Administrator:
    """Who is calling; only the gate lets a request come this far."""
    return request[_ADMINISTRATOR]


def person_of(request: web.Request) -> Person:
    """Who has signed in; only such a request comes to a call of signed-in users."""
    return request[_PERSON]
