"""The story of a request.

    begin      match the route, take the credential, admit
    _send      build the head, send it on a connection of the upstream
    on_*       stream the body up and the reply back
    _complete  record, and tell the client's connection what may follow

What it is told by, and to whom, is in `Recorded`; each way to end otherwise (a reply of our own, a deadline, a cut) in
`Ending`; the tries beyond the first in `Tries`.

The warm path is plain calls from `begin` to `transport.write`. What waits (`_resolve`, `_connect`) is a task of its
own, and the client's bytes wait meanwhile. Once a reply has begun, an error can only cut the connection.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Final

from gateway.auth.admission import Admitted
from gateway.auth.assertions import Asserter
from gateway.auth.credentials import Credential
from gateway.auth.refusal import Refusal
from gateway.auth.verdict import Access
from gateway.errors import GatewayError, Outage
from gateway.limits.rules import RouteLimits
from gateway.proxy.cors import VARY, Cors, is_preflight
from gateway.proxy.door import Door, Pages
from gateway.proxy.ending import Ending
from gateway.proxy.errors import (
    AddressRefused,
    NotFound,
    PayloadTooLarge,
    UpstreamError,
    UpstreamUnavailable,
    WrongMethod,
)
from gateway.proxy.framing import LAST_CHUNK, Body, ChunkedBody, UntilClose, chunk
from gateway.proxy.heads import last_chunk, reply_head, request_head, switch_head
from gateway.proxy.limiting import Limiting, guarded
from gateway.proxy.recorded import CONNECTING, DONE, FORWARDED, RELAYING, WAITING, Stage
from gateway.proxy.replies import CONTINUE, CRLF
from gateway.proxy.request_head import UNMATCHED
from gateway.proxy.response_head import ResponseFields
from gateway.proxy.router import Match
from gateway.proxy.tally import Outcome
from gateway.proxy.target import Target
from gateway.proxy.tries import Tries, is_repeatable
from gateway.proxy.tunnel import Handshake, Tunnel, handshake
from gateway.proxy.upstream import Upstream
from gateway.proxy.upstream_connection import UpstreamConnection

# What a caller needs who asks for a path that no route has: any credential, so that routes cannot be told by trying
# (R340).
ANY_KEY: Final = Access("required", tokens=True, admits_narrowed=True)
SLOWEST_BODY: Final = 256  # bytes per second, on the whole, of a body whose reply has not begun: a trickle is an attack


class Exchange(Ending):
    """One request and its reply."""

    # As in `Recorded`: defaults on the class, since most exchanges never touch most of these.
    _body: Body | None = None  # of the reply, where it did not come whole
    _handshake: Handshake | None = None
    _user = ""  # whom consistent hashing goes by
    _tries: Tries | None = None  # once one has failed
    _is_chunked_reply = False
    _is_reply_paused = False  # the client takes no more, so the upstream's connection is not read

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
                self._later(partial(self._resolve, credential, access))
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

    def _is_settled_by(self, early: Cors | Door | Pages) -> bool:
        """Whether nobody need be asked for a key: not for preflights (R017), nor for the question of a proxy."""
        if isinstance(early, Door):
            self._client.ask(self._request)
            return True
        if isinstance(early, Pages):
            self._request.keep_session()
            return False
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

    def _later(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step that waits for something, in a task of its own."""
        self._task = asyncio.create_task(self._taken(step))

    async def _taken(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except GatewayError as error:
            self._answer_error(error)
        except Exception:
            self._answer_unforeseen()

    async def _resolve(self, credential: Credential, access: Access) -> None:
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
                self._later(partial(self._wait_for_limits, limiting, limits, decision))
                return
            self._limit_lines = lines
        self._forward(decision)

    async def _wait_for_limits(self, limiting: Limiting, limits: RouteLimits, decision: Admitted) -> None:
        said = self._request.fields.forwarded
        self._limit_lines = await limiting.resolve(limits, decision, self._client.edge, said)
        self._forward(decision)

    def _forward(self, decision: Admitted) -> None:
        """Send the request on, on a connection that is kept or on a new one. Hot."""
        upstream = self._upstream
        assert upstream is not None
        asserter = upstream.asserter
        if asserter is not None and asserter.signers.current is None and decision.principal is not None:
            self._later(partial(self._wait_for_signer, asserter, decision))
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
        is_reuse_safe = self._client.has_served or is_repeatable(self._request)
        connection = target.take() if is_reuse_safe else None
        if connection is None:
            self._stage = CONNECTING
            self._later(partial(self._connect, target))
        else:
            self._send(connection)

    async def _wait_for_signer(self, asserter: Asserter, decision: Admitted) -> None:
        """Go on once the key is known by which the upstream can be told who calls; for want of it, with a 503."""
        await asserter.settled()
        self._forward(decision)

    # -- forwarding

    async def _connect(self, target: Target) -> None:
        """Send the request on a new connection; where none can be made, nothing was sent: another target will do."""
        upstream = self._upstream
        assert upstream is not None
        while True:
            self._target = target
            try:
                connection = await target.connect(upstream.connect_seconds)
                break
            except UpstreamError as failure:
                upstream.failed(target, failure)
                other = None if self._stage is DONE else self._further_tries(upstream).after_failure(target)
                if other is None:
                    raise
                target = other
        if self._stage is DONE:  # the client has left meanwhile
            target.give_back(connection, self._services.monotonic())
        else:
            self._send(connection)

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
        if self._stage is not WAITING or not is_repeatable(self._request):
            upstream.failed(target, error)
            self.fail(error)
            return
        try:
            other = self._further_tries(upstream).after_loss(target, connection, error)
        except UpstreamUnavailable as nobody:
            self.fail(nobody)
            return
        if other is None:
            self.fail(error)
        else:
            self._repeat(other)

    def _repeat(self, target: Target) -> None:
        self._target = target  # at once: it may be on trial, and the client gone before the next step
        self._stage = CONNECTING
        self.deadline = inf
        self._later(partial(self._connect, target))

    def _further_tries(self, upstream: Upstream) -> Tries:
        if self._tries is None:
            self._tries = Tries(upstream, self._user)
        return self._tries

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
