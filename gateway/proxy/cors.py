"""Which pages of other origins may use a route (the fetch standard's CORS protocol). Pure.

A preflight is answered here, before anybody is asked for a key (R017): it carries none. An origin that is not on the
list is refused, and never told what would have been allowed (R344).
"""

from dataclasses import dataclass
from typing import Final

from gateway.proxy.errors import OriginNotAllowed
from gateway.proxy.fields import Fields

VARY: Final = b"Vary: Origin\r\n"  # also without an origin: a cache must not give that reply to a page
PREFIX: Final = b"access-control-"


@dataclass(frozen=True, slots=True)
class Cors:
    """A route's rule. `origins` as browsers send them, or `*` for any; `headers` that a page may send."""

    origins: frozenset[bytes]
    headers: tuple[bytes, ...]
    max_age_seconds: int
    exposed: bytes  # headers of replies that a page may read

    def lines_for(self, origin: bytes) -> bytes:
        """What a reply to a page of `origin` says, each line with its CRLF. Raises OriginNotAllowed."""
        if origin not in self.origins and b"*" not in self.origins:
            raise OriginNotAllowed("an origin that the route does not list")
        return b"%bAccess-Control-Allow-Origin: %b\r\nAccess-Control-Expose-Headers: %b\r\n" % (
            VARY,
            origin,
            self.exposed,
        )

    def preflight(self, fields: Fields, methods: frozenset[bytes]) -> bytes:
        """The whole reply to a preflight. `methods` are the route's, empty for any. Raises OriginNotAllowed."""
        return b"HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\n" + self.preflight_lines(fields, methods)

    def preflight_lines(self, fields: Fields, methods: frozenset[bytes]) -> bytes:
        """What the reply to a preflight says of it. Raises OriginNotAllowed."""
        allowed = methods or {fields.noted(b"access-control-request-method")}
        return b"".join(
            (
                self.lines_for(fields.noted(b"origin")),
                b"Access-Control-Allow-Methods: %b\r\n" % b", ".join(sorted(allowed)),
                b"Access-Control-Allow-Headers: %b\r\n" % b", ".join(self.headers),
                b"Access-Control-Max-Age: %d\r\n" % self.max_age_seconds,
            )
        )


def is_preflight(method: bytes, fields: Fields) -> bool:
    """Whether a browser asks for permission, and not a caller for the route's own OPTIONS."""
    return method == b"OPTIONS" and bool(fields.noted(b"origin") and fields.noted(b"access-control-request-method"))


def without_cors(start: bytes) -> bytes:
    """A reply's status line and lines without the upstream's own Access-Control fields: the route's rule stands."""
    first, *lines = start.split(b"\r\n")[:-1]
    kept = [line for line in lines if not line.lower().startswith(PREFIX)]
    return b"\r\n".join((first, *kept, b""))
