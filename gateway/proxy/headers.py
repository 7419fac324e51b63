"""What each header name means to a proxy: tables, and the one function that reads them.

A name is classified once per spelling and remembered, so the cost of strictness is paid on first sight. Names that
*fold* to one that matters (case, and all signs taken out) are treated as attempts to smuggle it past us: upstreams
behind WSGI, CGI or PHP cannot tell `X_User_Id` from `X-User-Id`, and some that speak CGI take every sign for `_`.
"""

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
SIGNS: Final = b"!#$%&'*+-.^_`|~"  # of a token: what is neither a letter nor a digit
REMEMBERED_SPELLINGS: Final = 4096
LONGEST_REMEMBERED_NAME: Final = 64


class Action(IntEnum):
    """What happens to a header line."""

    __hash__ = int.__hash__  # Enum's own is a Python call, and lines are sorted into dictionaries

    KEEP = 0
    DROP = 1  # hop-by-hop, or a twin of a framing field
    INVALID = 2  # not a token: the message is refused
    RESERVED = 3  # a name that only the gateway may set: dropped and counted
    HOST = 4
    CONNECTION = 5
    CONTENT_LENGTH = 6
    TRANSFER_ENCODING = 7
    CREDENTIAL = 8
    FORWARDED = 9  # what proxies say of their clients: believed only of trusted ones
    REQUEST_ID = 10
    EXPECT = 11
    UPGRADE = 12
    NOTED = 13  # kept, and looked at too
    PROTOCOLS = 14  # Sec-WebSocket-Protocol, where a key may stand in it
    COOKIES = 15  # Cookie, where a session of the portal may stand in it


# RFC 9110 7.6.1, and the names that only ever meant something on one hop.
HOP_BY_HOP: Final = (
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"http2-settings",
)
FORWARDED: Final = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-ssl",
    b"x-real-ip",
)
TIMEOUT: Final = b"timeout-seconds"  # how long a caller would wait: for the upstream to heed
NOTED: Final = (b"origin", b"access-control-request-method", TIMEOUT)
REQUEST_FIELDS: Final = {
    b"host": Action.HOST,
    b"connection": Action.CONNECTION,
    b"content-length": Action.CONTENT_LENGTH,
    b"transfer-encoding": Action.TRANSFER_ENCODING,
    b"expect": Action.EXPECT,
    b"upgrade": Action.UPGRADE,
    **dict.fromkeys(NOTED, Action.NOTED),
    **dict.fromkeys(HOP_BY_HOP, Action.DROP),
    **dict.fromkeys(FORWARDED, Action.FORWARDED),
}
RESPONSE_FIELDS: Final = {
    b"connection": Action.CONNECTION,
    b"content-length": Action.CONTENT_LENGTH,
    b"transfer-encoding": Action.TRANSFER_ENCODING,
    b"upgrade": Action.UPGRADE,
    **dict.fromkeys(HOP_BY_HOP, Action.DROP),
}


def fold(name: bytes) -> bytes:
    """A name as the most forgiving reader sees it."""
    return name.lower().translate(None, SIGNS)


class HeaderTable:
    """`table[name]` is the action for a header name, spelled as received. Bounded; safe to share by all connections."""

    def __init__(self, exact: dict[bytes, Action], *, reserved: Iterable[bytes] = ()) -> None:
        self._exact = dict(exact)
        self._folded: dict[bytes, Action] = {}
        for name, action in exact.items():
            # A twin of something we act on is never itself acted on: it goes.
            if action is Action.NOTED:
                continue
            self._folded[fold(name)] = Action.RESERVED if action is Action.REQUEST_ID else Action.DROP
        for name in reserved:
            self._exact[name.lower()] = self._folded[fold(name)] = Action.RESERVED
        self._known: dict[bytes, Action] = {}
        self.get = self._known.get  # hot: most spellings have been seen before

    def classify(self, name: bytes) -> Action:
        """The action for a spelling, also for one that `get` does not know yet."""
        known = self._known.get(name)
        if known is not None:
            return known
        if TOKEN.fullmatch(name) is None:
            return Action.INVALID
        lowered = name.lower()
        action = self._exact.get(lowered)
        if action is None:
            action = self._folded.get(fold(lowered), Action.KEEP)
        if len(self._known) < REMEMBERED_SPELLINGS and len(name) <= LONGEST_REMEMBERED_NAME:
            self._known[name] = action
        return action

    def is_twin(self, name: bytes) -> bool:
        """Whether a spelling only folds to a name that is known here, and is not that name."""
        return name.lower() not in self._exact


# What no trailer may say, since it has been decided by then (RFC 9110 6.5.1).
NEVER_IN_TRAILERS: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"set-cookie",
        b"cache-control",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"location",
        b"retry-after",
        b"www-authenticate",
    }
)


def nominated(connection_values: Iterable[bytes]) -> frozenset[bytes]:
    """The lower-cased options of the Connection fields (RFC 9110 7.6.1)."""
    return frozenset(option.strip(b" \t").lower() for value in connection_values for option in value.split(b",")) - {
        b""
    }


def without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """The header lines whose names are not among `names` (lower case)."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
