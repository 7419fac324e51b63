"""Signing in by an admin token. The session holds the token's id alone: what the token may is asked anew for each page.

A token that is revoked, expires or whose tenant is suspended takes its sessions with it. It is sent once, in a form, on
the admin listener alone: whoever reaches the portal by the public one is never asked for it.
"""

from aiohttp import web

from gateway.control.admin_tokens import AdminTokens
from gateway.control.portal.attempt import onward
from gateway.control.portal.cookies import Cookies
from gateway.control.portal.forms import read_form
from gateway.control.portal.gate import ForeignForm, check_site
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.sessions import ADMIN_TOKEN, Sessions
from gateway.control.portal.visits import Access, Page, takes_tokens
from gateway.control.problems import NotFound
from gateway.setting_values import PORTAL_PATH

FIRST = f"{PORTAL_PATH}/admin"


class TokenSignIn:
    """The page with one field."""

    def __init__(self, tokens: AdminTokens, sessions: Sessions, cookies: Cookies, renderer: Renderer) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._cookies = cookies
        self._renderer = renderer

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [
            Page("GET", "/admin/sign-in", self.ask, Access.ANYBODY),
            Page("POST", "/admin/sign-in", self.begin, Access.ANYBODY),
        ]

    async def ask(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/sign-in`."""
        return self._form(request, request.query.get("next", ""))

    def _form(self, request: web.Request, after: str, *, status: int = 200) -> web.Response:
        if not takes_tokens(request):
            raise NotFound("no tokens are taken here")
        response = self._renderer.page(
            request, "admin/sign_in.html", status=status, after=_onward(after), is_wrong=status != 200
        )
        if status != 200:
            response.headers["WWW-Authenticate"] = 'Bearer realm="ostiary"'
        return response

    async def begin(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/sign-in`: a session, for whoever holds a token that is good now."""
        _check_origin(request)
        form = await read_form(request)
        after = form.text("next")
        if not takes_tokens(request):
            raise NotFound("no tokens are taken here")
        caller = await self._tokens.recognise(form.text("token").strip())
        if caller is None:
            return self._form(request, after, status=401)
        held = self._cookies.session(request)
        session = await self._sessions.begin(ADMIN_TOKEN, caller.token_id, {}, instead_of=held)
        response = web.Response(status=303, headers={"Location": _onward(after)})
        self._cookies.keep_session(response, session)
        return response


def _check_origin(request: web.Request) -> None:
    """Raise ForeignForm for a form of another site: there is no session yet whose token it could carry.

    Browsers say so over https; over plain http they say of which page it is.
    """
    check_site(request)
    origin = request.headers.get("Origin")
    if "Sec-Fetch-Site" not in request.headers and origin is not None and origin.partition("://")[2] != request.host:
        raise ForeignForm(f"sent by a page of {origin[:100]!r}")


def _onward(after: str) -> str:
    """The page that somebody was after, if administrators see it; else their first one."""
    page = onward(after)
    return page if page.startswith(f"{FIRST}/") and page != f"{FIRST}/sign-in" else FIRST
