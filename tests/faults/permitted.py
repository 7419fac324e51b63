"""Words for what comes of a request, and what is permitted of them. Must not know how anything is hurt.

An outcome is "200", "401", or a status with its code ("503 auth_unavailable"); or one of those below, of a request
without a whole answer.
"""

from dataclasses import dataclass, fields
from typing import Final

ADMITTED: Final = "200"
REFUSED: Final = "401"
OUTAGE: Final = "503 auth_unavailable"

UNREACHABLE: Final = "unreachable"  # no connection was made
BROKEN: Final = "broken"  # the connection ended before the first byte of the answer
CUT: Final = "cut"  # the answer began, and did not come to its end
SILENT: Final = "silent"  # nothing came for as long as a caller waits
WITHOUT_ANSWER: Final = frozenset({UNREACHABLE, BROKEN, CUT, SILENT})

WORDS: Final = {
    UNREACHABLE: "no connection",
    BROKEN: "connection ended",
    CUT: "reply cut off",
    SILENT: "no answer",
}


def words(text: str) -> frozenset[str]:
    """The outcomes in a text like "200 | 503 auth_unavailable"."""
    return frozenset(part.strip() for part in text.split("|"))


@dataclass(frozen=True)
class Permitted:
    """What each kind of caller may get while a fault lasts, and until all is well again.

    `known`: good keys that the node has in memory, and tokens; `posts`: such a key and a body (the same, if it is not
    said); `cold`: good keys that it has to look up; `bad`: keys unknown, revoked or expired, where "401" is what
    is due; `live`: streams and sockets that are open, which may be "cut" or not. Opening one is as `known`.
    """

    known: frozenset[str] = frozenset({ADMITTED})
    posts: frozenset[str] = frozenset()
    cold: frozenset[str] = frozenset({ADMITTED})
    bad: frozenset[str] = frozenset({REFUSED})
    live: frozenset[str] = frozenset()

    def of(self, kind: str) -> frozenset[str]:
        """What callers of this kind may get."""
        return {
            "known": self.known,
            "token": self.known,
            "post": self.posts or self.known,
            "cold": self.cold,
            "made": self.cold,
            "bad": self.bad,
            "opening": self.known,
            "live": self.live,
        }[kind]


CALM: Final = Permitted()


def permitted(**given: str) -> Permitted:
    """What is permitted, in words: `permitted(cold="200 | 503 auth_unavailable")`."""
    names = {field.name for field in fields(Permitted)}
    assert given.keys() <= names, given.keys() - names
    return Permitted(**{name: words(text) for name, text in given.items()})
