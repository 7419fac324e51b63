"""The closed set of words in the table, and what earns them."""

import re
from collections.abc import Sequence
from enum import StrEnum

from bench.behaviours.reading import Message


class Word(StrEnum):
    """What can stand in a cell beside a status, alone or joined. `MEANINGS` says it at length."""

    CLOSE = "close"
    WAITS = "waits"
    BARE = "no head"
    FORWARDED = "forwarded"
    UNSEEN = "unseen"
    BEGUN = "begun"
    CLEAN = "forwarded clean"
    AS_IS = "forwarded as is"
    ALTERED = "forwarded altered"
    TWO = "two requests"
    CLEANED = "cleaned"
    SPOOFED = "spoofed"
    LOST = "identity lost"
    RELAYED = "relayed"
    RELAYED_AS_IS = "relayed as is"
    RELAYED_ALTERED = "relayed altered"
    DROPPED = "dropped"
    CUT = "cut"
    LOOKS_WHOLE = "looks whole"
    MISLED = "next reply wrong"
    TUNNEL = "tunnel"
    REPEATED = "repeated"
    HELD_BACK = "held back"
    TAKEN = "taken in"
    NOT_TOLD = "goes on"


MEANINGS: dict[Word, str] = {
    Word.CLOSE: "the proxy ends the connection, behind its answer or without one",
    Word.WAITS: "neither answer nor end in time",
    Word.BARE: "an answer without a status line",
    Word.FORWARDED: "reached the upstream",
    Word.CLEAN: "reached the upstream, without what is doubtful in it",
    Word.AS_IS: "reached the upstream with it",
    Word.ALTERED: "reached the upstream with another body",
    Word.UNSEEN: "the upstream saw nothing of it",
    Word.BEGUN: "the upstream saw the beginning of the request, and waits for the rest",
    Word.TWO: "the upstream was sent one request more",
    Word.CUT: "an unfinished request or reply ends in a way that the other side can tell",
    Word.LOOKS_WHOLE: "it ends, and the other side cannot tell",
    Word.CLEANED: "the request or reply passes without what is doubtful in it",
    Word.SPOOFED: "the upstream reads a user whom the client made up (or one under a name that folds to the same)",
    Word.LOST: "the upstream is not told who calls",
    Word.RELAYED: "the client gets what the upstream said",
    Word.RELAYED_AS_IS: "what is doubtful in it included",
    Word.RELAYED_ALTERED: "with another body",
    Word.DROPPED: "this part of it does not reach the client",
    Word.MISLED: "the next request on the upstream's connection gets a wrong answer",
    Word.TUNNEL: "bytes go both ways, unread",
    Word.REPEATED: "sent again on another connection; the client gets its 200",
    Word.HELD_BACK: "reading stops until the other side reads",
    Word.TAKEN: "64 MB are taken into memory or onto disk",
    Word.NOT_TOLD: "the upstream is not told that the client has left",
}

_FOLDED_USER = re.compile(rb"x[^a-z0-9]user[^a-z0-9]id")


def is_final(reply: Message) -> bool:
    """Whether it is the reply itself, or something that cannot be read as one; not an interim one."""
    return not 0 < reply.status < 200


def answer(replies: Sequence[Message], *, is_ended: bool, position: int = 0) -> str:
    """What the client was told: the final reply at `position`, or what came in its place."""
    finals = [reply for reply in replies if is_final(reply)]
    if len(finals) <= position:
        return Word.CLOSE if is_ended else Word.WAITS
    reply = finals[position]
    is_last = len(finals) == position + 1
    told = str(reply.status or Word.BARE)
    return f"{told} {Word.CLOSE}" if reply.closes or (is_ended and is_last) else told


def forwarding(requests: Sequence[Message], received: bytes, *, doubt: bytes | None, body: bytes | None) -> str | None:
    """How the one request reached the upstream; `None` where it did not.

    `doubt` is a pattern of what must not stand in `received`, the bytes that arrived.
    """
    whole = [request for request in requests if request.is_whole]
    if not whole:
        return None
    if len(whole) > 1:
        return Word.TWO
    if doubt is not None and re.search(doubt, received, re.IGNORECASE):
        return Word.AS_IS
    if body is not None and whole[-1].body != body:
        return Word.ALTERED
    return Word.FORWARDED if doubt is None else Word.CLEAN


def identity(request: Message, user: bytes) -> str:
    """Whether `request` names `user`, and nobody else under any name that folds to the same."""
    named = [value for name, value in request.fields if _FOLDED_USER.fullmatch(name)]
    if any(value != user for value in named):
        return Word.SPOOFED
    return Word.CLEANED if named else Word.LOST
