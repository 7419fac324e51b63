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
from gateway.control.admin_tokens import Administrator, AdminTokens
from gateway.control.authorization import has_role
from gateway.control.people import People
from gateway.control.portal.attempt import onward
from gateway.control.portal.cookies import Cookies
from gateway.control.portal.forms import read_form
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.sessions import ADMIN_TOKEN, USER, Session, Sessions
from gateway.control.portal.visits import Access, Page, enter, enter_administrator, open_to_tokens
from gateway.control.problems import Forbidden, Problem, heard, name_request
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
    """Lets requests through to their pages. `address_of` tells from where a request comes.

    Where there are no `tokens`, sessions of who has signed in by an admin token are none.
    """

    def __init__(
        self,
        sessions: Sessions,
        people: People,
        tokens: AdminTokens | None,
        cookies: Cookies,
        renderer: Renderer,
        address_of: AddressOf,
    ) -> None:
        self._sessions = sessions
        self._people = people
        self._tokens = tokens
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
            if self._tokens is not None:
                open_to_tokens(request)
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
        if session is None or (session.kind == ADMIN_TOKEN and self._tokens is None):
            if page.access is Access.ANYBODY:
                return
            raise signed_out(request)
        enter(request, session, None, self._address_of(request))
        if request.method == "POST":
            await check_form(request, session)
        if page.access in (Access.USER, Access.ADMINISTRATOR):
            await self._judge(request, session, page)

    async def _judge(self, request: web.Request, session: Session, page: Page) -> None:
        """Find out what who has signed in may do now, and whether the page is among it (R274)."""
        if session.kind == ADMIN_TOKEN:
            caller = await self._bearer(request, session)
            if page.access is Access.USER:
                raise web.HTTPSeeOther(f"{PORTAL_PATH}/admin")  # a token has no keys of its own
        else:
            person = await self._people.whom(statement_of(session))
            enter(request, None, person, None)
            caller = person.as_administrator
        if caller.role is not None:
            enter_administrator(request, caller)
        if page.access is Access.ADMINISTRATOR and not has_role(caller, page.roles):
            raise Forbidden(f"{caller.token_id} is {caller.role}")

    async def _bearer(self, request: web.Request, session: Session) -> Administrator:
        """Whose token has begun the session. A token that has ended takes its sessions with it."""
        assert self._tokens is not None
        caller = await self._tokens.find(session.subject)
        if caller is None:
            await self._sessions.end(session)
            raise signed_out(request)
        return caller


def signed_out(request: web.Request) -> Exception:
    """What becomes of a request without a session: on to signing in, where nothing is lost by that."""
    if request.method == "GET":
        return web.HTTPSeeOther(f"{PORTAL_PATH}?next={onward(request.path)}")
    return SignedOut()


def check_site(request: web.Request) -> None:
    """Raise ForeignForm where the browser says that a page of another site sends this."""
    if request.headers.get("Sec-Fetch-Site", "none") not in OWN_SITE:
        raise ForeignForm(f"sent by a page of another site: {request.headers['Sec-Fetch-Site'][:32]!r}")


async def check_form(request: web.Request, session: Session) -> None:
    """Raise ForeignForm unless the request's body is a form that a page of this session has shown."""
    check_site(request)
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
