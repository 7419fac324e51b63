"""What stands before every page: whose session it is, whether a form is one of ours, and what is shown when it is not.

An outage is a page that says so, with 503: nobody is signed out, nor taken for somebody without rights, because a
database is away (R360).
"""

from collections.abc import Callable
from math import inf
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.auth.sign_in import Statement
from gateway.control.people import People
from gateway.control.portal.attempt import onward
from gateway.control.portal.cookies import Cookies
from gateway.control.portal.forms import read_form
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.sessions import USER, Session, Sessions
from gateway.control.portal.visits import Access, Page, enter
from gateway.control.problems import Problem, heard, name_request
from gateway.setting_values import PORTAL_PATH

CSRF: Final = "csrf"
OWN_SITE: Final = frozenset({"same-origin", "none"})  # Sec-Fetch-Site, of browsers that send it
AddressOf = Callable[[web.Request], str | None]


class SignedOut(Problem):
    """The page is for somebody who has signed in, and nobody has, or the session has ended."""

    code = "signed_out"
    status = 401
    public = "You are signed out. Nothing has been changed."

    def __init__(self) -> None:
        super().__init__("no session", headers={"WWW-Authenticate": 'OpenID realm="ostiary portal"'})


class ForeignForm(Problem):
    """A form that is not of this session (R365)."""

    code = "foreign_form"
    status = 403
    public = "This form is not one of your present session. Nothing has been changed."


class PortalGate:
    """Lets requests through to their pages. `address_of` tells from where a request comes."""

    def __init__(
        self, sessions: Sessions, people: People, cookies: Cookies, renderer: Renderer, address_of: AddressOf
    ) -> None:
        self._sessions = sessions
        self._people = people
        self._cookies = cookies
        self._renderer = renderer
        self._address_of = address_of
        self._pages: dict[web.AbstractRoute, Page] = {}

    def guard(self, app: web.Application, pages: list[Page]) -> None:
        """Register the pages."""
        for page in pages:
            self._pages[app.router.add_route(page.method, page.path, page.handler)] = page

    @property
    def middleware(self) -> Middleware:
        """The middleware that stands before every page."""

        @web.middleware
        async def pass_gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            name_request(request)
            try:
                await self._enter(request)
                return await handler(request)
            except Exception as error:
                if isinstance(error, web.HTTPException) and error.status < 400:
                    raise
                return self._renderer.failure(request, heard(request, error))

        return pass_gate

    async def _enter(self, request: web.Request) -> None:
        """Find out who is there, and whether the page is for them. Raises what the failure is."""
        page = self._pages.get(request.match_info.route)
        token = self._cookies.session(request)
        if page is None or (page.access is Access.ANYBODY and not token):
            return
        session = await self._sessions.find(token)
        if session is None:
            if page.access is Access.ANYBODY:
                return
            if request.method == "GET":
                raise web.HTTPSeeOther(f"{PORTAL_PATH}?next={onward(request.path)}")
            raise SignedOut
        enter(request, session, None, self._address_of(request))
        if request.method == "POST":
            await check_form(request, session)
        if page.access is Access.USER:
            enter(request, None, await self._people.whom(statement_of(session)), None)


async def check_form(request: web.Request, session: Session) -> None:
    """Raise ForeignForm unless the request's body is a form that a page of this session has shown."""
    if request.headers.get("Sec-Fetch-Site", "none") not in OWN_SITE:
        raise ForeignForm(f"sent by a page of another site: {request.headers['Sec-Fetch-Site'][:32]!r}")
    form = await read_form(request)
    if not session.is_meant_by(form.text(CSRF)):
        raise ForeignForm("no token, or that of another session")


def facts_of(said: Statement) -> dict[str, object]:
    """What a session keeps of what the provider has said."""
    return {"tenant_id": said.tenant_id, "roles": sorted(said.roles), "groups": sorted(said.groups)}


def statement_of(session: Session) -> Statement:
    """What the provider has said at the beginning of a session, which ends by itself."""
    if session.kind != USER:
        raise SignedOut
    facts = session.facts
    return Statement(
        user_id=session.subject,
        tenant_id=facts["tenant_id"],
        roles=frozenset(facts["roles"]),
        groups=frozenset(facts["groups"]),
        begins_at=-inf,
        ends_at=inf,
    )
