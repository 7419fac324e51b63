"""Signing in by OpenID Connect (authorization code with PKCE), and signing out, here or everywhere."""

from aiohttp import web

from gateway.control.people import People
from gateway.control.portal.attempt import Attempt, onward
from gateway.control.portal.cookies import Cookies
from gateway.control.portal.gate import facts_of
from gateway.control.portal.provider import Provider, SignInFailed
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.sessions import USER, Sessions
from gateway.control.portal.visits import Access, Page, has_session, session_of, takes_tokens
from gateway.setting_values import PORTAL_PATH


class SignInPages:
    """The pages before and after everything else. `url` is where the portal is, for whoever has come another way."""

    def __init__(
        self, provider: Provider, people: People, sessions: Sessions, cookies: Cookies, renderer: Renderer, url: str
    ) -> None:
        self._provider = provider
        self._people = people
        self._sessions = sessions
        self._cookies = cookies
        self._renderer = renderer
        self._url = url

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [
            Page("GET", "", self.welcome, Access.ANYBODY),
            Page("GET", "/sign-in", self.begin, Access.ANYBODY),
            Page("GET", "/callback", self.conclude, Access.ANYBODY),
            Page("POST", "/sign-out", self.end, Access.SESSION),
            Page("POST", "/sign-out-everywhere", self.end_all, Access.SESSION),
        ]

    async def welcome(self, request: web.Request) -> web.Response:
        """`GET /portal`: the first page, for whoever is signed out."""
        session = has_session(request)
        if session is not None:
            raise web.HTTPSeeOther(f"{PORTAL_PATH}/{'keys' if session.kind == USER else 'admin'}")
        after = onward(request.query.get("next", ""))
        sign_in = f"{self._url}{PORTAL_PATH}/sign-in?next={after}"
        state = request.query.get("state", "")
        by_token = f"{PORTAL_PATH}/admin/sign-in?next={after}" if takes_tokens(request) else None
        return self._renderer.page(request, "welcome.html", sign_in=sign_in, by_token=by_token, state=state)

    async def begin(self, request: web.Request) -> web.Response:
        """`GET /portal/sign-in`: on to the provider."""
        attempt = Attempt.new(request.query.get("next", ""))
        response = _see_other(await self._provider.address_of(attempt))
        self._cookies.keep_attempt(response, attempt)
        return response

    async def conclude(self, request: web.Request) -> web.Response:
        """`GET /portal/callback`: back from the provider, with a code that only this sign-in can redeem."""
        attempt = self._cookies.attempt(request)
        if attempt is None:
            raise SignInFailed("no sign-in is under way in this browser")
        said = await self._provider.concluded(attempt, request.query)
        person = await self._people.whom(said)
        token = await self._sessions.begin(
            USER, person.user.id, facts_of(said), instead_of=self._cookies.session(request)
        )
        response = _see_other(attempt.onward)
        self._cookies.drop_attempt(response)
        self._cookies.keep_session(response, token)
        return response

    async def end(self, request: web.Request) -> web.Response:
        """`POST /portal/sign-out`: this session ends."""
        await self._sessions.end(session_of(request))
        return self._signed_out("out")

    async def end_all(self, request: web.Request) -> web.Response:
        """`POST /portal/sign-out-everywhere`: all sessions of the same person end."""
        await self._sessions.end_all(session_of(request))
        return self._signed_out("everywhere")

    def _signed_out(self, state: str) -> web.Response:
        response = _see_other(f"{PORTAL_PATH}?state={state}")
        self._cookies.drop_session(response)
        return response


def _see_other(address: str) -> web.Response:
    return web.Response(status=303, headers={"Location": address})
