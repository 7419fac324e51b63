"""The two cookies of the portal: a session, and a sign-in that is under way. No script can read either.

Over https their names begin with `__Host-`: browsers take such a cookie from this very host alone, by https alone. They
send it with every request to that host, though; the proxy keeps it from upstreams (`gateway.proxy.request_head`).
"""

from aiohttp import web

from gateway.control.portal import attempt as attempts
from gateway.setting_values import SESSION_COOKIE as SESSION
from gateway.setting_values import SIGN_IN_COOKIE as ATTEMPT
from gateway.settings import PortalSettings


class Cookies:
    """Reads and writes them."""

    def __init__(self, portal: PortalSettings) -> None:
        self._is_secure = portal.url.startswith("https:")
        self._prefix = "__Host-" if self._is_secure else ""
        self._session_seconds = int(portal.session_seconds)

    def session(self, request: web.Request) -> str:
        """What the browser holds of a session, or an empty text."""
        return request.cookies.get(self._prefix + SESSION, "")

    def keep_session(self, response: web.StreamResponse, token: str) -> None:
        """Have the browser hold a session."""
        self._set(response, SESSION, token, self._session_seconds)

    def drop_session(self, response: web.StreamResponse) -> None:
        """Have the browser forget it."""
        self._set(response, SESSION, "", 0)

    def attempt(self, request: web.Request) -> attempts.Attempt | None:
        """The sign-in that the browser has begun."""
        return attempts.Attempt.of_cookie(request.cookies.get(self._prefix + ATTEMPT, ""))

    def keep_attempt(self, response: web.StreamResponse, begun: attempts.Attempt) -> None:
        """Have the browser hold what its sign-in will end by."""
        self._set(response, ATTEMPT, begun.cookie, attempts.SECONDS)

    def drop_attempt(self, response: web.StreamResponse) -> None:
        """Have the browser forget it: no answer ends a sign-in twice."""
        self._set(response, ATTEMPT, "", 0)

    def _set(self, response: web.StreamResponse, name: str, value: str, seconds: int) -> None:
        # Lax, since the provider sends the browser back here, from another site.
        response.set_cookie(
            self._prefix + name,
            value,
            max_age=seconds,
            path="/",
            secure=self._is_secure,
            httponly=True,
            samesite="Lax",
        )
