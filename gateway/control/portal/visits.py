"""What is known of a request by the time that its page is made: the session, and who has signed in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from aiohttp import web

from gateway.control.admin_tokens import Administrator, Role
from gateway.control.people import Person
from gateway.control.portal.sessions import Session
from gateway.control.problems import request_id_of

_SESSION: Final = web.RequestKey("portal_session", Session)
_PERSON: Final = web.RequestKey("portal_person", Person)
_ADMINISTRATOR: Final = web.RequestKey("portal_administrator", Administrator)
_ADDRESS: Final = web.RequestKey("portal_address", str)
_TAKES_TOKENS: Final = web.RequestKey("portal_takes_tokens", bool)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access(StrEnum):
    """For whom a page is."""

    ANYBODY = "anybody"
    SESSION = "session"  # whoever has a session, whatever has become of them since
    USER = "user"  # who has signed in by the provider, and is a user in good standing now
    ADMINISTRATOR = "administrator"  # who has one of the page's roles now, by an admin token or by the provider


@dataclass(frozen=True, slots=True)
class Page:
    """One address of the portal. A POST runs only for a form of the very session (R365)."""

    method: str
    path: str  # below /portal
    handler: Handler
    access: Access = Access.USER
    roles: frozenset[Role] = frozenset()


def enter(request: web.Request, session: Session | None, person: Person | None, address: str | None) -> None:
    """Say who is there, and from where."""
    if session is not None:
        request[_SESSION] = session
    if person is not None:
        request[_PERSON] = person
    if address is not None:
        request[_ADDRESS] = address


def enter_administrator(request: web.Request, administrator: Administrator) -> None:
    """Say which rights somebody has who is there."""
    request[_ADMINISTRATOR] = administrator


def open_to_tokens(request: web.Request) -> None:
    """Say that the request has come to a place where one may sign in by an admin token."""
    request[_TAKES_TOKENS] = True


def takes_tokens(request: web.Request) -> bool:
    """Whether one may sign in by an admin token where the request has come to."""
    return request.get(_TAKES_TOKENS) is True


def has_session(request: web.Request) -> Session | None:
    """The session, where there is one that has been looked up."""
    return request.get(_SESSION)


def has_person(request: web.Request) -> Person | None:
    """Who has signed in, where that is known."""
    return request.get(_PERSON)


def has_administrator(request: web.Request) -> Administrator | None:
    """Whose rights stand behind the request, where it is somebody's who has any."""
    return request.get(_ADMINISTRATOR)


def session_of(request: web.Request) -> Session:
    """The session of a request for a page that is not for anybody."""
    return request[_SESSION]


def person_of(request: web.Request) -> Person:
    """Who has signed in; only such a request comes to a page for users."""
    return request[_PERSON]


def owner_of(request: web.Request) -> Administrator:
    """Who is calling, for the services: a user, for whom nothing but what is theirs exists (R272)."""
    return _from(request, person_of(request).as_owner)


def administrator_of(request: web.Request) -> Administrator:
    """Who is calling, for the services: with the rights of a role, as at the management API."""
    return _from(request, request[_ADMINISTRATOR])


def _from(request: web.Request, caller: Administrator) -> Administrator:
    origin = replace(caller.origin, address=request.get(_ADDRESS), request_id=request_id_of(request))
    return replace(caller, origin=origin)
