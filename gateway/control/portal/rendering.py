"""Templates, and what all of them know. Everything that is put into one is escaped (R365)."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gateway.control.portal.attempt import onward
from gateway.control.portal.visits import has_administrator, has_person, has_session
from gateway.control.portal.words import FAILURES, Words, spread
from gateway.control.problems import Problem, request_id_of
from gateway.errors import Fault, GatewayError
from gateway.setting_values import PORTAL_PATH

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
CONTENT_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"))

# Nothing from anywhere but here, and nothing at all that stands in a page itself: what somebody has managed to write
# into one does nothing.
SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def protect(request: web.Request, response: web.StreamResponse) -> None:
    """Add to every reply what every reply of the portal has (R343). A file that never changes may be kept."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.popall("Server", None)


class Renderer:
    """Makes pages of templates."""

    def __init__(self) -> None:
        self.files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir())}
        self._version = hashlib.sha256(b"".join(self.files.values())).hexdigest()[:12]
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(portal=PORTAL_PATH, static=self._static_url, now=lambda: datetime.now(UTC))
        self._environment.filters.update(
            moment=moment, ago=ago, until=until, count=count, bytes=of_bytes, masked=masked, spread=spread
        )

    def page(self, request: web.Request, template: str, *, status: int = 200, **context: Any) -> web.Response:
        """A page. The template sees the context, and `session`, `person` and `administrator` where there are any."""
        text = self._environment.get_template(template).render(
            session=has_session(request),
            person=has_person(request),
            administrator=has_administrator(request),
            path=request.path,
            **context,
        )
        return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")

    def failure(self, request: web.Request, error: GatewayError) -> web.Response:
        """The page for what went wrong: in words, and with what to do."""
        words = FAILURES.get(error.code) or Words("That did not work", error.public)
        response = self.page(
            request,
            "failure.html",
            status=error.status,
            words=words,
            code=error.code,
            again=onward(request.path) if error.fault is not Fault.CLIENT else None,
            request_id=request_id_of(request),
        )
        if isinstance(error, Problem):
            response.headers.update(error.headers)
        if error.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        return response

    async def static(self, request: web.Request) -> web.Response:
        """`GET /portal/static/{version}/{name}`: styles, a script and an icon."""
        name = request.match_info["name"]
        body = self.files.get(name)
        if body is None or request.match_info["version"] != self._version:
            raise web.HTTPNotFound
        kind = CONTENT_TYPES[Path(name).suffix]
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=kept)

    def _static_url(self, name: str) -> str:
        assert name in self.files, name
        return f"{PORTAL_PATH}/static/{self._version}/{name}"


def moment(at: datetime | None, none: str = "Never") -> Markup:
    """A moment as people read it, in UTC, and for programs to the second."""
    if at is None:
        return Markup('<span class="quiet">{}</span>').format(none)
    at = at.astimezone(UTC)
    text = f"{at.day} {at:%b %Y, %H:%M}"
    return Markup('<time datetime="{}">{} <abbr title="Coordinated Universal Time">UTC</abbr></time>').format(
        at.isoformat(timespec="seconds"), text
    )


def ago(at: datetime | None, none: str = "Never") -> Markup:
    """How long ago a moment was."""
    if at is None:
        return Markup('<span class="quiet">{}</span>').format(none)
    span = _span((datetime.now(UTC) - at).total_seconds())
    text = f"{span} ago" if span else "just now"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(at.isoformat(timespec="seconds"), text)


def until(at: datetime | None, none: str = "Never") -> Markup:
    """How long it is until a moment."""
    if at is None:
        return Markup('<span class="quiet">{}</span>').format(none)
    seconds = (at - datetime.now(UTC)).total_seconds()
    text = ago(at) if seconds <= 0 else f"in {_span(seconds) or 'less than a minute'}"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(at.isoformat(timespec="seconds"), text)


def _span(seconds: float) -> str:
    for size, unit in UNITS:
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return ""


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def of_bytes(number: float) -> str:
    """A number of bytes, in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def masked(prefix: str) -> Markup:
    """What may be shown of a secret, and stars for the rest (R362)."""
    return Markup('<code class="masked">{}<span aria-hidden="true">••••••••</span></code>').format(prefix)
