"""The engine from end to end: whatever clients and upstreams do, no request is invented, moved, or let in unasked.

The client's bytes are read once more by h11: what reached the upstreams has to be some of those requests, in order.
"""

from dataclasses import dataclass
from math import inf

from gateway.proxy.errors import BadRequest
from gateway.proxy.router import Match
from gateway.proxy.tunnel import close_frame
from gateway.proxy.upstream_connection import UpstreamConnection
from tests.fixtures.strict import next_request
from tests.fuzz import answers, parts
from tests.fuzz.chunked_bodies import is_deliberate
from tests.fuzz.frames import ends_between_frames
from tests.fuzz.reference import Refused, Reply, Request, read_reply, read_request
from tests.fuzz.request_heads import (
    GONE,
    PROTOCOLS,
    asked_target,
    check_forwarded,
    folded,
    going_on,
    origin_form,
    presented,
)
from tests.fuzz.stage import Peer, Seen, perform
from tests.fuzz.transports import MemoryTransport, Network

SAFE = (b"GET", b"HEAD", b"OPTIONS")
ADDED = GONE - {folded(PROTOCOLS)}  # names that can only have come from the gateway
AFTER_ADMISSION = {404, 405, 413}  # statuses of replies of our own to somebody who has been let in


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request that an upstream got, and its place among all that was written to upstreams."""

    request: Request
    place: int
    transport: MemoryTransport


@dataclass(slots=True)
class Story:
    """What the clients at one address asked, as h11 reads it. `is_doubtful`: h11 gives up where we need not."""

    asked: list[Request]
    is_doubtful: bool = False


def check(data: bytes) -> None:
    """`data` is a play: see tests/fuzz/stage.py."""
    seen = perform(data)
    if seen.faults:
        raise seen.faults[0]
    arrived = arrivals(seen.network)
    own_replies, sent = 0, 0
    for address in {peer.address for peer in seen.clients}:
        story = Story([])
        for peer in (peer for peer in seen.clients if peer.address == address):
            begun = len(story.asked)
            most = read_story(peer.sent, story) + len(story.asked) - begun
            own_replies += check_replies(
                peer, story.asked[begun:], seen, arrived, most=inf if story.is_doubtful else most
            )
        sent += check_arrivals([each for each in arrived if came_from(each.request) == address], story)
    assert sent <= seen.witness.admitted, "more was sent than admitted"
    if seen.is_calm:
        assert sent >= seen.witness.admitted - own_replies, "admitted, and neither sent nor answered"


def came_from(request: Request) -> bytes | str:
    """The address of the client, as the upstream is told."""
    return request.all(b"x-forwarded-for")[0].split(b", ")[-1].decode()


# -- what the clients asked


def read_story(data: bytes, story: Story) -> bool:
    """Read a client's bytes as h11 does, but for empty lines in front; whether there is anything beside requests.

    One empty line is forgiven, and more where they arrive apart: both verdicts on them will do.
    """
    is_more = False
    while data:
        begun = data.lstrip(b"\r\n") if data.startswith(b"\r\n") else data
        is_more = is_more or len(data) - len(begun) > 2
        try:
            request = read_request(begun) if begun else None
        except Refused:
            request = None
        if request is None:
            return is_more or bool(begun)
        story.asked.append(request)
        if request.is_body_refused and is_deliberate(begun):
            story.is_doubtful = True
        data = request.rest if request.is_complete else b""
    return is_more


# -- what the upstreams got


def arrivals(network: Network) -> list[Arrived]:
    """Every request that was written to an upstream, in order; each connection holds nothing else."""
    found: list[Arrived] = []
    for transport in network.made:
        data = bytes(transport.written)
        while data:
            position = len(transport.written) - len(data)
            request = read_request(data)
            assert request is not None, "half a head was sent"
            assert not request.is_body_refused
            place, write = next(
                (index, write)
                for index, write in enumerate(network.journal)
                if write.transport is transport and write.size > position
            )
            check_reuse(transport, [each.request for each in found if each.transport is transport], write.received)
            found.append(Arrived(request, place, transport))
            if not request.all(b"upgrade"):
                check_strictly(data, request)
            elif not isinstance(transport.protocol, UpstreamConnection):
                reply = last_reply(transport, [each.request for each in found if each.transport is transport])
                if reply.status == 101:
                    check_switch(request, reply)
                    break  # what follows is a tunnel's
            if not request.is_complete:
                break
            data = request.rest
    return sorted(found, key=lambda arrived: arrived.place)


def check_reuse(transport: MemoryTransport, before: list[Request], received: int) -> None:
    """A connection serves one more request once every earlier one has its whole reply, and nothing has come behind."""
    data = bytes(transport.received[:received])
    for request in before:
        reply = final_reply(data, request)
        data = reply.rest
        assert request.is_complete
        assert reply.is_complete
        assert b"close" not in reply.all(b"connection")
    assert not data, "a connection with unread bytes is used again"


def check_switch(asked: Request, reply: Reply) -> None:
    """A connection becomes a tunnel where the upstream agrees to switch to what was asked for."""
    assert [protocol.lower() for protocol in reply.all(b"upgrade")] == asked.all(b"upgrade")
    if asked.all(b"upgrade") == [b"websocket"]:
        assert reply.all(b"sec-websocket-accept") == [answers.accept_of(asked)]


def last_reply(transport: MemoryTransport, requests: list[Request]) -> Reply:
    """The reply to the last of all requests on this connection."""
    data = bytes(transport.received)
    for request in requests[:-1]:
        data = final_reply(data, request).rest
    return final_reply(data, requests[-1])


def check_tunnel(peer: Peer, reply: Reply, arrived: list[Arrived]) -> None:
    """Both sides get each other's bytes, from the first on, and nothing else but a close frame between two frames."""
    ids = reply.all(b"x-request-id")
    requests = [each for each in arrived if each.request.all(b"x-request-id") == ids and each.request.all(b"upgrade")]
    transport = requests[-1].transport
    said = last_reply(transport, [each.request for each in arrived if each.transport is transport]).rest
    assert requests[-1].request.rest in peer.sent
    if not said.startswith(reply.rest):
        frames, end = reply.rest[:-4], reply.rest[-4:]
        assert said.startswith(frames)
        assert ends_between_frames(frames)
        assert end in (close_frame(1001), close_frame(1008))
        assert reply.all(b"upgrade") == [b"websocket"]


def final_reply(data: bytes, request: Request) -> Reply:
    """The reply to `request` behind the interim ones; one that switches protocols is final too."""
    while True:
        reply = read_reply(data, request.method, is_ended=False)
        assert reply is not None, "no reply has come"
        if reply.status >= 200 or reply.status == 101:
            return reply
        data = reply.rest


def check_strictly(data: bytes, request: Request) -> None:
    """A reader that forgives nothing ends the request where h11 does."""
    strict = next_request(data)
    assert (strict is not None) == request.is_complete
    if strict is not None:
        assert (strict[0].body, strict[1]) == (request.payload, request.rest)


def check_arrivals(arrived: list[Arrived], story: Story) -> int:
    """Each is one of those that were asked for, in order, or a repeat that may be made; how many are no repeats."""
    cursor, sent = 0, 0
    before: Request | None = None
    for each in arrived:
        request = each.request
        check_forwarded(request, str(came_from(request)))
        assert request.is_complete or each.transport.is_aborted or each.transport.is_broken_off, "an unfinished request"
        if before is not None and is_repeat(before, request):
            continue
        before = request
        sent += 1
        while cursor < len(story.asked) and not is_forwarded_as(story.asked[cursor], request):
            cursor += 1
        assert cursor < len(story.asked) or story.is_doubtful, f"nobody asked for {request}"
        cursor += 1
    return sent


def is_repeat(first: Request, second: Request) -> bool:
    """Whether `second` may be a second try of `first`."""
    same = all(first.all(name) == second.all(name) for name in (b"x-request-id", b"x-user-id"))
    return same and first.method in SAFE and (first.method, first.target) == (second.method, second.target)


def is_forwarded_as(asked: Request, sent: Request) -> bool:
    """Whether `sent` is what becomes of `asked`, for this caller, on its route."""
    target, authority = origin_form(asked.target, asked.method)
    target, _ = asked_target(target)
    match = match_of(asked.method, target, authority or b"".join(asked.all(b"host")))
    if match is None or (asked.method, match.target) != (sent.method, sent.target):
        return False
    if tuple(pair for pair in sent.fields if folded(pair[0]) not in GONE - {folded(PROTOCOLS)}) != going_on(
        asked.fields
    ):
        return False
    if sent.is_complete:
        is_same_body = asked.is_complete and asked.payload == sent.payload
    else:
        is_same_body = asked.payload.startswith(sent.payload)
    return is_same_body and is_let_in(asked, sent, match.route.access.mode)


def match_of(method: bytes, target: bytes, host: bytes) -> Match | None:
    """The route and its target; the target `paths` shows that these are right."""
    try:
        return parts.router().match(method, target, host)
    except BadRequest:
        return None


def is_let_in(asked: Request, sent: Request, mode: str) -> bool:
    """Whether this caller may use a route of this mode, and is told of as it is."""
    secrets = presented(asked)
    identity = sent.all(b"x-user-id")
    if mode == "none":
        return not identity
    if mode == "optional" and not secrets:
        return not identity
    return secrets == {parts.SECRET} and identity == [b"u"]


# -- what the clients got


def check_replies(peer: Peer, asked: list[Request], seen: Seen, arrived: list[Arrived], *, most: float) -> int:
    """Replies, whole and in order, and none that nobody asked for; how many of a late kind are our own."""
    data, own, answered = bytes(peer.transport.written), 0, 0
    while data:
        method = asked[answered].method if answered < len(asked) else b"GET"
        reply, data = next_reply(data, method)
        if reply.status == 101:
            check_tunnel(peer, reply, arrived)
            return own
        check_fields(reply, is_poisoned=seen.is_poisoned)
        if reply.status < 200:
            continue
        answered += 1
        own += reply.status in AFTER_ADMISSION
        assert answered <= most, "more replies than requests"
        if not reply.is_complete:
            assert peer.transport.is_aborted or peer.has_left, "a broken-off reply looks complete"
            assert not data
        if b"close" in reply.all(b"connection"):
            assert not data, "something follows the last reply"
    return own


def next_reply(data: bytes, method: bytes) -> tuple[Reply, bytes]:
    """The first reply and what follows it. A head that was refused may have looked like one of HEAD."""
    reply = read_reply(data, method, is_ended=True)
    assert reply is not None
    if method == b"HEAD" and reply.rest.startswith(b"{") and reply.all(b"connection") == [b"close"]:
        reply = read_reply(data, b"GET", is_ended=True)
        assert reply is not None
    return reply, reply.rest if reply.is_complete else b""


def check_fields(reply: Reply, *, is_poisoned: bool) -> None:
    """One request id, nothing that only the gateway may say or that belongs to one hop, and no other's reply."""
    names = [name.lower() for name, _ in reply.fields]
    assert not {b"x-user-id", b"x-plan", b"keep-alive", b"trailer", b"te", b"upgrade"} & set(names)
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    if reply.status >= 200:
        ids = reply.all(b"x-request-id")
        assert len(ids) == 1
        assert is_poisoned or reply.all(answers.ECHO.lower()) in ([], ids), "another's reply"
