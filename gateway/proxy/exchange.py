"""The story of a request.

    begin      match the route, take the credential, admit
    _send      build the head, send it on a connection of the upstream
    on_*       stream the body up and the reply back
    _finish    record, and tell the client's connection what may follow

The warm path is plain calls from `begin` to `transport.write`. What waits (`_resolve`, `_connect`) is a task of its
own, and the client's bytes wait meanwhile. Once a reply has begun, an error can only cut the connection.
"""

import asyncio
from collections.abc import Sequence
from enum import Enum
from functools import partial
from math import inf
from typing import Final

import structlog

from gateway.auth.admission import Admitted
from gateway.auth.assertions import Asserter
from gateway.auth.credentials import Credential
from gateway.auth.refusal import Refusal
from gateway.auth.verdict import Access
from gateway.errors import Fault, GatewayError, Outage
from gateway.limits.metering import NOBODY, Owner
from gateway.limits.rules import RouteLimits
from gateway.proxy.cors import VARY, Cors, is_preflight
from gateway.proxy.door import Door
from gateway.proxy.errors import (
    AddressRefused,
    BadRequest,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    UpstreamError,
    UpstreamHungUp,
    UpstreamTimeout,
    UpstreamUnavailable,
    WrongMethod,
)
from gateway.proxy.framing import LAST_CHUNK, NO_BODY, Body, ChunkedBody, UntilClose, chunk
from gateway.proxy.heads import last_chunk, reply_head, request_head, switch_head
from gateway.proxy.limiting import Limiting, Slots, guarded, leave
from gateway.proxy.replies import CONTINUE, CRLF
from gateway.proxy.request_head import UNMATCHED, RequestHead
from gateway.proxy.response_head import ResponseFields
from gateway.proxy.router import Match
from gateway.proxy.services import Client, Services
from gateway.proxy.stream_permit import StreamPermit
from gateway.proxy.tally import Outcome
from gateway.proxy.target import Target
from gateway.proxy.tunnel import GOING_AWAY, POLICY_VIOLATION, Handshake, Tunnel, handshake
from gateway.proxy.upstream import Upstream
from gateway.proxy.upstream_connection import UpstreamConnection
from gateway.proxy.watch import Ended
from gateway.telemetry.stages import WANTED
from gateway.telemetry.tracing import Span

log = structlog.get_logger()

SAFE_TO_REPEAT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})  # RFC 9110 9.2.1; a repeat changes nothing
# What a caller needs who asks for a path that no route has: any credential, so that routes cannot be told by trying
# (R340).
ANY_KEY: Final = Access("required", tokens=True, admits_narrowed=True)
HALF_CLOSED_SECONDS: Final = 1.0  # how long a client that closed its side may wait for the next byte of its reply
SLOWEST_BODY: Final = 256  # bytes per second, on the whole, of a body whose reply has not begun: a trickle is an attack
CLIENT_CLOSED_REQUEST: Final = 499
UNSENT: Final = "unsent"  # what the meter says of a request whose client left before the upstream had it
UNANSWERED: Final = "unanswered"  # or before a reply had begun
METERED_SECONDS: Final = 5.0  # between two looks at the bytes of a stream or a socket


class Stage(Enum):
    """Where an exchange stands; it moves down this list, but for a second try, which connects again."""

    DECIDING = 1  # a lookup is under way
    CONNECTING = 2
    WAITING = 3  # sent; no byte of the reply yet
    RELAYING = 4
    TUNNEL = 5
    DONE = 6


# The hot ones by name: to read an enum's member costs as much as to call a small function.
DECIDING: Final = Stage.DECIDING
WAITING, RELAYING, DONE, FORWARDED = (
    Stage.WAITING,
    Stage.RELAYING,
    Stage.DONE,
    Outcome.FORWARDED,
)


class Exchange:
    """One request and its reply."""

    # Defaults on the class: most exchanges never touch most of these, and setting them costs the warm path.
    deadline = inf  # monotonic; looked at by the sweep
    _stage = DECIDING
    _match: Match | None = None
    _admitted: Admitted | None = None
    _upstream: Upstream | None = None
    _target: Target | None = None
    _connection: UpstreamConnection | None = None
    _status = 0  # of the upstream's reply, once it has begun
    _task: asyncio.Task[None] | None = None
    _body: Body | None = None  # of the reply, where it did not come whole
    _handshake: Handshake | None = None
    _tunnel: Tunnel | None = None
    _permit: StreamPermit | None = None
    _has_repeated = False  # on a kept connection that died at once: free, and no fault of the target
    _limit_lines = b""  # what the reply tells of the caller's limits
    _slots: Slots = ()  # what is counted in until it ends
    _user = ""  # whom consistent hashing goes by
    _tried: tuple[Target, ...] = ()
    _pending_head = b""  # of the reply, between `on_response` and `on_payload`
    _cors_lines = b""  # what the reply to a page of another origin says
    _is_chunked_reply = False
    _is_reply_paused = False  # the client takes no more, so the upstream's connection is not read
    _is_upstream_blocked = False  # it takes no more of the body
    _body_bytes = 0
    _body_bytes_metered = 0  # those of them that the meter knows already
    _reply_bytes = 0  # those that the meter does not know yet; of the reply's body, or to a tunnel's client
    _reply_bytes_metered = 0
    _meters_at = 0.0  # when the bytes of a long exchange are counted next (monotonic)
    _refused: Owner | None = None  # who was refused, where that is known
    _client_left_at = inf
    _sent_at = 0.0
    _replied_at = 0.0  # when the reply began, where it did not come whole
    _span: Span | None = None  # where it is traced
    _is_trace_begun = False

    def __init__(self, client: Client, request: RequestHead, services: Services) -> None:
        self._client = client
        self._request = request
        self._services = services
        self.method = request.method
        self._request_id = request_id = request.request_id or services.new_request_id()
        self._request_id_line = services.replies.request_id_start + request_id + CRLF
        self._started_at = services.monotonic()

    # -- deciding

    def begin(self) -> None:
        """From the head to the upstream, or to a reply of our own. Hot."""
        request, services = self._request, self._services
        try:
            fields = request.fields
            if fields.reserved_removed:
                services.tally.spoofed(fields.reserved_removed)
            if request.route is UNMATCHED:
                request.route = self._find_route()
            match: Match | None = request.route
            self._match = match
            access = ANY_KEY
            if match is not None:
                access = match.route.access
                if match.route.early is not None and self._is_settled_by(match.route.early):
                    return
                addresses = match.route.addresses
                if addresses is not None and not self._client.edge.is_admitted(addresses, fields.forwarded):
                    raise AddressRefused("the client's address")
            credential = request.credential
            decision = services.admission.admit(credential, access)
            if decision is None:
                assert isinstance(credential, Credential), "only a credential is worth a lookup"
                self._task = asyncio.create_task(self._resolve(credential, access))
            else:
                self._decided(decision)
        except GatewayError as error:
            self._answer_error(error)
        except Exception:
            self._answer_unforeseen()

    def _find_route(self) -> Match | None:
        request = self._request
        method = request.method
        if request.fields.notes and is_preflight(method, request.fields):
            method = request.fields.noted(b"access-control-request-method")  # what is asked for, not OPTIONS itself
        return self._services.router.match(method, request.target, request.host)

    def _is_settled_by(self, early: Cors | Door) -> bool:
        """Whether nobody need be asked for a key: not for preflights (R017), nor for the question of a proxy."""
        if isinstance(early, Door):
            self._client.ask(self._request)
            return True
        return self._is_settled_by_cors(early)

    def _is_settled_by_cors(self, cors: Cors) -> bool:
        """Apply the route's rule for pages of other origins; a preflight is answered at once."""
        request, origin = self._request, self._request.fields.noted(b"origin")
        if not origin:
            self._cors_lines = VARY
            return False
        if not is_preflight(request.method, request.fields):
            self._cors_lines = cors.lines_for(origin)
            return False
        assert self._match is not None
        head = cors.preflight(request.fields, self._match.route.methods) + self._request_id_line
        closes = self._closes()
        self._answer(204, head + (b"Connection: close\r\n\r\n" if closes else CRLF), Outcome.PREFLIGHT, closes, 204)
        return True

    async def _resolve(self, credential: Credential, access: Access) -> None:
        try:
            services = self._services
            if services.tracing is not None:
                self._begin_trace()
            look_up = partial(services.admission.resolve, credential, access)
            guard = None if services.limiting is None else services.limiting.guard
            if guard is None or services.admission.remembers(credential.digest):
                decision = await look_up()
            else:
                address = self._client.edge.client_name(self._request.fields.forwarded)
                decision = await guarded(guard, look_up, address)
            if self._span is not None:
                self._span.admitted()
            self._decided(decision)
        except GatewayError as error:
            self._answer_error(error)
        except Exception:
            self._answer_unforeseen()

    def _decided(self, decision: Admitted | Refusal) -> None:
        if isinstance(decision, Refusal):
            self._answer_refusal(decision)
            return
        self._admitted = decision
        match = self._match
        if match is None:
            raise NotFound("no route")
        if match.allowed:
            raise WrongMethod("the route is for other methods")
        limit = match.route.body_limit_bytes
        if limit is not None and (self._request.content_length or 0) > limit:
            raise PayloadTooLarge("Content-Length is over the route's limit")
        self._upstream = self._services.upstreams[match.route.upstream]
        limits, principal = match.route.limits, decision.principal
        if limits is not None and (
            limits.is_bounded or limits.rules or (principal is not None and principal.allowance is not None)
        ):
            self._limit(limits, decision)
        else:
            self._forward(decision)

    def _limit(self, limits: RouteLimits, decision: Admitted) -> None:
        """Forward what is within its limits, now or once that is known. Hot."""
        limiting, upstream, edge = self._services.limiting, self._upstream, self._client.edge
        if limiting is not None:
            assert upstream is not None
            if limits.is_bounded:
                self._slots = limiting.occupied(upstream, decision.principal)
            lines = limiting.check(limits, decision, edge, self._request.fields.forwarded)
            if lines is None:
                self._task = asyncio.create_task(self._wait_for_limits(limiting, limits, decision))
                return
            self._limit_lines = lines
        self._forward(decision)

    async def _wait_for_limits(self, limiting: Limiting, limits: RouteLimits, decision: Admitted) -> None:
        said = self._request.fields.forwarded
        try:
            self._limit_lines = await limiting.resolve(limits, decision, self._client.edge, said)
            self._forward(decision)
        except GatewayError as error:
            self._answer_error(error)
        except Exception:
            self._answer_unforeseen()

    def _forward(self, decision: Admitted) -> None:
        """Send the request on, on a connection that is kept or on a new one. Hot."""
        upstream = self._upstream
        assert upstream is not None
        asserter = upstream.asserter
        if asserter is not None and asserter.signers.current is None and decision.principal is not None:
            self._task = asyncio.create_task(self._wait_for_signer(asserter, decision))
            return
        if upstream.has_retries:
            upstream.earn_retry()
        target = upstream.only
        if target is None or upstream.is_troubled:
            self._user = "" if decision.principal is None else decision.principal.user_id
            target = upstream.pick(self._user)
        self._target = target
        # The first request of a client that must not be sent twice gets a connection of its own: a kept one may be
        # closing already, and nobody could tell that client whether it was served.
        is_reuse_safe = self._client.has_served or self._is_repeatable
        connection = target.take() if is_reuse_safe else None
        if connection is None:
            self._stage = Stage.CONNECTING
            self._task = asyncio.create_task(self._connect(target))
        else:
            self._send(connection)

    async def _wait_for_signer(self, asserter: Asserter, decision: Admitted) -> None:
        """Go on once the key is known by which the upstream can be told who calls; for want of it, with a 503."""
        try:
            await asserter.settled()
            self._forward(decision)
        except GatewayError as error:
            self._answer_error(error)
        except Exception:
            self._answer_unforeseen()

    # -- forwarding

    async def _connect(self, target: Target) -> None:
        """Send the request on a new connection; where none can be made, nothing was sent: another target will do."""
        upstream = self._upstream
        assert upstream is not None
        try:
            while True:
                self._target = target
                try:
                    connection = await target.connect(upstream.connect_seconds)
                    break
                except UpstreamError as failure:
                    upstream.failed(target, failure)
                    if self._stage is DONE or not self._try_again():
                        raise
                    target = upstream.pick_other(self._user, self._tried)
            if self._stage is DONE:  # the client has left meanwhile
                target.give_back(connection, self._services.monotonic())
            else:
                self._send(connection)
        except GatewayError as error:
            self._answer_error(error)
        except Exception:
            self._answer_unforeseen()

    def _try_again(self) -> bool:
        """Whether one more try is allowed; notes the target that has been tried."""
        assert self._upstream is not None
        assert self._target is not None
        self._tried = (*self._tried, self._target)
        return self._upstream.may_retry(len(self._tried))

    def _send(self, connection: UpstreamConnection) -> None:
        """Write the head upstream; the body follows as it comes. Takes what admission gave, and nothing less."""
        admitted = self._admitted
        assert admitted is not None, "nothing is forwarded without permission"
        match = self._match
        assert match is not None
        target = self._target
        assert target is not None
        upstream = self._upstream
        assert upstream is not None
        request = self._request
        services = self._services
        upgrade = b""
        if request.fields.upgrade:
            self._handshake = asked = handshake(request, match.route.upgrades)
            upgrade = b"" if asked is None else asked.upgrade
        self._sent_at = now = services.monotonic()
        asserter = upstream.asserter
        principal = admitted.principal
        assertion = b""
        if asserter is not None and principal is not None:
            try:
                assertion = asserter.line(principal, now)
            except Outage:  # the key that signs was withdrawn while a connection was made
                target.give_back(connection, now)
                raise
        head = request_head(
            request,
            match.target,
            target.host_line,
            admitted,
            self._client.edge,
            self._request_id_line,
            upgrade,
            assertion,
        )
        if services.tracing is not None:
            head = self._traced(head, upstream)
        self._connection = connection
        self._stage = WAITING
        if principal is not None and now >= services.last_used.due_at.get(principal.use, 0.0):
            services.last_used.note(principal.use, now)
        connection.start(self, head)
        if request.body.is_complete:
            self.deadline = now + match.route.response_seconds
        else:
            self.deadline = now + services.body_seconds
            if request.fields.expects_continue:
                self._client.write(CONTINUE)
            self._client.resume_body()

    @property
    def wants_body(self) -> bool:
        """Whether body bytes of the client can be taken now."""
        return self._connection is not None and not self._request.body.is_complete

    def feed_body(self, data: bytes) -> bytes:
        """Send on what belongs to the body; returns what does not. Raises BadFraming, after which `fail` is due."""
        request = self._request
        payload, rest = request.body.feed(data)
        connection = self._connection
        assert connection is not None
        self._body_bytes += len(payload)
        assert self._match is not None
        limit = self._match.route.body_limit_bytes
        if limit is not None and self._body_bytes > limit:
            request.keeps_alive = False  # what lies behind the body is not read any more
            self.fail(PayloadTooLarge("the body is over the route's limit"))
            return b""
        is_chunked = request.fields.is_chunked
        if payload:
            connection.transport.write(chunk(payload) if is_chunked else payload)
        now = self._services.monotonic()
        if request.body.is_complete:
            if is_chunked:
                connection.transport.write(LAST_CHUNK)
            if self._stage is WAITING:
                self.deadline = now + self._match.route.response_seconds
        elif self._stage is WAITING:
            seconds = self._services.body_seconds
            self.deadline = min(now + seconds, self._sent_at + seconds + self._body_bytes / SLOWEST_BODY)
        return rest

    def on_upstream_writable(self, is_writable: bool) -> None:
        """As ReplyReceiver: the client waits while the upstream does not take more."""
        self._is_upstream_blocked = not is_writable
        self._client.pause_body(not is_writable)
        match = self._match
        assert match is not None
        if not is_writable or self._stage is RELAYING:
            seconds = match.route.idle_seconds
        else:
            seconds = match.route.response_seconds if self._request.body.is_complete else self._services.body_seconds
        self.deadline = self._services.monotonic() + seconds

    # -- relaying the reply

    def on_interim(self, response: ResponseFields) -> None:
        """As ReplyReceiver: 103 and its kind are for the client (RFC 9110 15.2); HTTP/1.0 knows none."""
        if self._request.is_http_11:
            self._client.write(response.start + CRLF)

    def on_switch(self, response: ResponseFields, rest: bytes) -> bool:
        """As ReplyReceiver: from here on the two connections are a tunnel."""
        match, connection = self._match, self._connection
        assert match is not None
        assert connection is not None
        if self._handshake is None or not self._handshake.is_answered_by(response):
            return False
        self._replied_at = self._begin_reply(response)
        self._stage = Stage.TUNNEL
        self.deadline = inf
        self._connection = None
        self._client.write(
            switch_head(response, self._request_id_line + self._limit_lines, self._request.fields.key_protocol)
        )
        self._tunnel = Tunnel(
            self._client.transport,
            connection.transport,
            is_websocket=self._handshake.is_websocket,
            idle_seconds=match.route.idle_seconds,
            monotonic=self._services.monotonic,
            on_closed=lambda: self._tunnel_closed(connection),
        )
        early, is_client_done = self._client.switch()
        self._tunnel.start(to_client=rest, to_upstream=early, is_client_done=is_client_done)
        return True

    def _tunnel_closed(self, connection: UpstreamConnection) -> None:
        connection.target.forget(connection)
        self._client.gone()

    def on_whole(self, response: ResponseFields, payload: bytes) -> None:
        """As ReplyReceiver. Hot."""
        now = self._begin_reply(response)
        request = self._request
        if not request.body.is_complete:
            request.keeps_alive = False
        head = reply_head(
            response,
            self._request_id_line + self._limit_lines,
            False,
            not request.keeps_alive,
            not request.is_http_11,
            self._cors_lines,
        )
        self._client.write(head + payload)
        self._reply_bytes = len(payload)
        self._complete(now)

    def on_response(self, response: ResponseFields, body: Body) -> None:
        """As ReplyReceiver. `on_payload` follows in the same call, so that head and first bytes are one write."""
        self._replied_at = self._begin_reply(response)
        self._body = body
        request = self._request
        is_streamed = isinstance(body, ChunkedBody | UntilClose)
        self._is_chunked_reply = is_streamed and request.is_http_11
        if (is_streamed and not request.is_http_11) or not request.body.is_complete:
            request.keeps_alive = False
        self._pending_head = reply_head(
            response,
            self._request_id_line + self._limit_lines,
            self._is_chunked_reply,
            not request.keeps_alive,
            not request.is_http_11,
            self._cors_lines,
        )

    def _begin_reply(self, response: ResponseFields) -> float:
        """Note that the reply has begun; answers when."""
        upstream, match = self._upstream, self._match
        assert upstream is not None
        assert match is not None
        self._stage = RELAYING
        self._status = response.status
        now = self._services.monotonic()
        upstream.observe(now - self._sent_at)
        self.deadline = now + match.route.idle_seconds
        if upstream.is_troubled:
            assert self._target is not None
            upstream.answered(self._target)
        return now

    def on_payload(self, payload: bytes, is_complete: bool) -> None:
        """As ReplyReceiver. Hot."""
        head, self._pending_head = self._pending_head, b""
        self._reply_bytes += len(payload)
        if self._is_chunked_reply:
            if payload:
                payload = chunk(payload)
            if is_complete:
                payload += last_chunk(self._body.trailers) if isinstance(self._body, ChunkedBody) else LAST_CHUNK
        if head or payload:
            self._client.write(head + payload if head else payload)
        if is_complete:
            self._complete(self._services.monotonic())
        else:
            assert self._match is not None
            self.deadline = self._services.monotonic() + self._match.route.idle_seconds
            self._client_left_at = inf  # bytes went out: were nobody there, the socket would soon say so

    def _complete(self, now: float) -> None:
        connection = self._connection
        assert connection is not None
        self._connection = None
        if not self._request.body.is_complete:
            connection.abandon()  # the upstream answered early and must not take the rest for a request
        else:
            if self._is_reply_paused and not connection.transport.is_closing():
                connection.transport.resume_reading()  # else nobody would: its next exchange would wait in vain
            connection.target.give_back(connection, now)
        self._finish(self._status, FORWARDED, now)
        self._client.finished(self._request.keeps_alive)

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """As ReplyReceiver: before the reply began it becomes a 502, after that the client sees a cut."""
        connection, self._connection = self._connection, None
        upstream, target = self._upstream, self._target
        assert upstream is not None
        assert target is not None
        assert connection is not None
        if self._stage is WAITING and self._is_repeatable:
            if connection.is_reused and not self._has_repeated and isinstance(error, UpstreamHungUp):
                # A kept connection that dies under a request was most likely closing already: no fault of the target.
                self._has_repeated = True
                self._repeat(target)
                return
            upstream.failed(target, error)
            if self._try_again():
                self._repeat_elsewhere()
                return
        else:
            upstream.failed(target, error)
        self.fail(error)

    @property
    def _is_repeatable(self) -> bool:
        """Whether a second try can do no harm (RFC 9110 9.2.2): an idempotent method, and no body that has begun."""
        return self.method in SAFE_TO_REPEAT and self._request.body is NO_BODY

    def _repeat(self, target: Target) -> None:
        self._stage = Stage.CONNECTING
        self.deadline = inf
        self._task = asyncio.create_task(self._connect(target))

    def _repeat_elsewhere(self) -> None:
        assert self._upstream is not None
        try:
            self._repeat(self._upstream.pick_other(self._user, self._tried))
        except UpstreamUnavailable as error:
            self.fail(error)

    def pause_reply(self, is_paused: bool) -> None:
        """The client does not take more, or does again: the upstream waits with it."""
        connection = self._connection
        if connection is None or connection.transport.is_closing():
            return
        self._is_reply_paused = is_paused
        if is_paused:
            connection.transport.pause_reading()
        else:
            connection.transport.resume_reading()
        assert self._match is not None
        self.deadline = self._services.monotonic() + self._match.route.idle_seconds

    # -- ending otherwise

    def client_left(self) -> None:
        """The client's connection is gone: nobody is owed a reply, and the upstream must not get a whole request."""
        if self._stage is Stage.TUNNEL:
            self._take_tunnel_bytes()
            self._finish(self._status, FORWARDED)
        elif self._stage is not DONE:
            self._drop_upstream()
            began = UNANSWERED if self._sent_at else UNSENT
            self._finish(CLIENT_CLOSED_REQUEST, Outcome.CLIENT_GONE, code=self._status or began)

    def end_soon(self, *, is_told: bool) -> None:
        """The gateway stops: let the connection end with this exchange. With `is_told`, tell a socket to go.

        Where the reply's head is out, the client may have been promised one more exchange.
        """
        if self._stage is not RELAYING:
            self._request.keeps_alive = False
        if is_told and self._tunnel is not None:
            self._tunnel.end(GOING_AWAY)

    def client_half_closed(self) -> bool:
        """The client will send no more. True if the exchange can still end well."""
        if not self._request.body.is_complete:
            return False
        self._client_left_at = self._services.monotonic() + HALF_CLOSED_SECONDS
        return True

    @property
    def next_deadline(self) -> float:
        """When a sweep will have something to do here, unless something happens before (monotonic)."""
        return min(self.deadline, self._client_left_at)

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed, and on a key that has been revoked meanwhile."""
        if self._stage in (RELAYING, Stage.TUNNEL):
            self._check_permit(now)
        if now >= self._meters_at and self._stage is not DONE:
            self._meter_so_far(now)
        if self._tunnel is not None:
            self._tunnel.sweep(now)
            return
        if self._stage is DONE or (now < self.deadline and now < self._client_left_at):
            return
        if now >= self._client_left_at:
            self.client_left()
            self._client.cut()
        elif self._stage is RELAYING:
            self.fail(UpstreamError("the reply stood still for too long"))
        elif not self._request.body.is_complete and not self._is_upstream_blocked:
            self.fail(RequestTimeout("the body stood still for too long"))
        else:
            error = UpstreamTimeout("no reply in time")
            assert self._upstream is not None
            assert self._target is not None
            self._upstream.failed(self._target, error)
            self.fail(error)

    def _check_permit(self, now: float) -> None:
        if self._permit is None:
            match, credential = self._match, self._request.credential
            assert match is not None
            route = match.route
            if not route.closes_revoked or not isinstance(credential, Credential) or route.access.mode == "none":
                return
            self._permit = StreamPermit(self._services.admission, credential, route.access, self._revoked)
        self._permit.check(now)

    def _revoked(self, refusal: Refusal) -> None:
        """The caller's key is no longer admitted: a socket is told so, a reply is cut (R197)."""
        if self._stage is DONE:
            return
        self._services.tally.stream_closed(refusal.reason)
        if self._tunnel is not None:
            self._tunnel.end(POLICY_VIOLATION)
        else:
            self._drop_upstream()
            self._finish(self._status, Outcome.CUT)
            self._client.cut()

    def fail(self, error: GatewayError) -> None:
        """End the exchange with an error: a reply if none has begun, else a cut."""
        self._drop_upstream()
        if self._stage is RELAYING and not self._pending_head:
            self._finish(self._status, Outcome.CUT)
            self._client.cut()
        elif self._stage is not DONE:
            self._pending_head = b""
            self._answer_error(error)

    def _drop_upstream(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        if self._task is not None and self._task is not asyncio.current_task() and self._stage is DECIDING:
            self._task.cancel()

    # -- replies of our own

    def _answer_refusal(self, refusal: Refusal) -> None:
        closes = self._closes()
        is_head = self.method == b"HEAD"
        status, reply = self._services.replies.refusal(
            refusal, self._request_id, closes=closes, is_head=is_head, cors_lines=self._cors_lines
        )
        self._refused = refusal.owner
        self._answer(status, reply, Outcome.REFUSED, closes, refusal.reason)

    def _answer_error(self, error: GatewayError) -> None:
        if self._stage is DONE:
            return
        closes = self._closes() or isinstance(error, BadRequest)
        outcome = Outcome.OUTAGE if isinstance(error, Outage) else _OUTCOMES[error.fault]
        if isinstance(error, RateLimited):
            outcome, self._limit_lines = Outcome.LIMITED, error.lines
        allowed: Sequence[bytes] = self._match.allowed if self._match is not None else ()
        status, reply = self._services.replies.error(
            error,
            self._request_id,
            closes=closes,
            is_head=self.method == b"HEAD",
            allowed=allowed,
            cors_lines=self._cors_lines + self._limit_lines,
        )
        self._answer(status, reply, outcome, closes, error.code)

    def _answer_unforeseen(self) -> None:
        """An exception that nobody foresaw is a 500, never a pass (R075)."""
        log.exception("unforeseen error in an exchange", request_id=self._request_id.decode())
        self.fail(GatewayError("unforeseen"))

    def _closes(self) -> bool:
        """A body that was not read to its end is never taken for the next request: the connection ends."""
        return not self._request.keeps_alive or not self._request.body.is_complete

    def _answer(self, status: int, reply: bytes, outcome: Outcome, closes: bool, code: int | str) -> None:
        self._client.write(reply)
        self._finish(status, outcome, code=code)
        self._client.finished(not closes)

    def _finish(self, status: int, outcome: Outcome, now: float | None = None, code: int | str = "") -> None:
        """Record, exactly once (R320). `code`: what the meter calls it, where that is not the status."""
        if self._slots:
            leave(self._slots)
        if self._target is not None and self._target.is_on_trial:
            self._target.trial_ended()
        self._stage = DONE
        self.deadline = inf
        route = "none" if self._match is None else self._match.route.name
        if now is None:
            now = self._services.monotonic()
        services = self._services
        seconds = now - self._started_at
        services.tally.finished(route, self.method, status, outcome, seconds)
        if seconds >= services.watched_from_seconds:
            self._tell(status, outcome, str(code), now)
        admitted = self._admitted
        owner: Owner | None = self._refused if admitted is None else admitted.principal
        services.meter.ended(
            NOBODY if owner is None else owner,
            route,
            outcome,
            code or status,
            self._body_bytes - self._body_bytes_metered,
            self._reply_bytes,
        )

    # -- looking on

    def _tell(self, status: int, outcome: Outcome, code: str, now: float) -> None:
        """Tell whoever looks on how it ended. Needed only where that is wanted, or it took long."""
        match, upstream, admitted = self._match, self._upstream, self._admitted
        principal = None if admitted is None else admitted.principal
        if self._services.tracing is not None:
            self._begin_trace()
        self._services.watch.ended(
            Ended(
                self._request,
                self._request_id,
                self._client.edge.client_name(self._request.fields.forwarded),
                "none" if match is None else match.route.name,
                status,
                outcome,
                code,
                now - self._started_at,
                upstream="" if upstream is None else upstream.name,
                upstream_seconds=(self._replied_at or now) - self._sent_at if self._status else None,
                received_bytes=self._body_bytes,
                sent_bytes=self._reply_bytes + self._reply_bytes_metered,
                auth="" if principal is None else principal.kind.value,
                owner=self._refused if principal is None else principal,
                span=self._span,
            )
        )

    def _begin_trace(self) -> None:
        """Decide once whether it is traced; what a lookup learns from here on is noted for the trace."""
        tracing = self._services.tracing
        if tracing is None or self._is_trace_begun:
            return
        self._is_trace_begun = True
        self._span = tracing.begin(self._request.kept, self._started_at)
        if self._span is not None:
            WANTED.set(self._span.stages)

    def _traced(self, head: bytes, upstream: Upstream) -> bytes:
        """The head with the trace that it belongs to; as it was where it is not traced."""
        self._begin_trace()
        return head if self._span is None else self._span.carried_by(head, upstream.name)

    def _meter_so_far(self, now: float) -> None:
        """Count the bytes that have passed, so that a stream is seen while it lasts, and not lost with a node."""
        self._meters_at = now + METERED_SECONDS
        self._take_tunnel_bytes()
        received_bytes = self._body_bytes - self._body_bytes_metered
        admitted, match = self._admitted, self._match
        if admitted is not None and match is not None and (received_bytes or self._reply_bytes):
            owner, code = admitted.principal or NOBODY, self._status or UNANSWERED
            self._services.meter.passed(owner, match.route.name, FORWARDED, code, received_bytes, self._reply_bytes)
            self._body_bytes_metered = self._body_bytes
            self._reply_bytes_metered += self._reply_bytes
            self._reply_bytes = 0

    def _take_tunnel_bytes(self) -> None:
        if self._tunnel is not None:
            received_bytes, sent_bytes = self._tunnel.take_bytes()
            self._body_bytes += received_bytes
            self._reply_bytes += sent_bytes


_OUTCOMES: Final = {
    Fault.CLIENT: Outcome.CLIENT_ERROR,
    Fault.GATEWAY: Outcome.GATEWAY_ERROR,
    Fault.UPSTREAM: Outcome.UPSTREAM_ERROR,
}
