"""`explain`: what would become of a request, step by step (R218, R340).

The request goes through the code of every request: a real reader, router, admission and exchange, which stand here
between an onlooker for a client and an upstream whose connections lead nowhere. What comes out at either end is the
decision. Nothing is remembered by that, counted or sent; and whatever looks like a secret is masked in what is told.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final
from urllib.parse import quote

from gateway.auth.admission import Admission
from gateway.auth.credentials import Credential, CredentialReader
from gateway.auth.explanation import Hearing, Hearings, KeyGivenTwice, UnknownKey
from gateway.auth.last_used import LastUsed
from gateway.auth.refusal import Refusal
from gateway.auth.verdict import Access
from gateway.clock import Clock
from gateway.errors import GatewayError, Outage
from gateway.limits.metering import Meter
from gateway.proxy.edge import Edge, TrustedProxies, address_in
from gateway.proxy.errors import AddressRefused, UpstreamUnavailable
from gateway.proxy.exchange import ANY_KEY, Exchange
from gateway.proxy.explained_limits import LimitTerms, NotedLimiting, tell_guard, tell_limits
from gateway.proxy.headers import Action, HeaderTable
from gateway.proxy.places import Places
from gateway.proxy.replies import Replies
from gateway.proxy.request_head import UNMATCHED, RequestHead, RequestReader
from gateway.proxy.router import Match, Route, Router
from gateway.proxy.services import Services
from gateway.proxy.stand_ins import NotedReplies, Nowhere, Onlooker, Unwritten
from gateway.proxy.tally import Tally
from gateway.proxy.target import Target
from gateway.proxy.told import Told, cache_text, code_of, shown_target, tell_address, tell_route
from gateway.proxy.upstream import Upstream
from gateway.proxy.watch import Watch
from gateway.telemetry.metrics import Metrics

LONGEST_SECONDS: Final = 10.0
REQUEST_ID: Final = b"explained"


@dataclass(frozen=True, slots=True)
class Question:
    """The request that is asked about. Its key is named by `key_id`, or given by `secret`, or stands in the request."""

    method: str
    path: str
    host: str
    headers: Sequence[tuple[str, str]] = ()
    address: str | None = None
    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """How heads are read here: the parts that all connections share."""

    table: HeaderTable
    response_table: HeaderTable
    credentials: CredentialReader
    places: Places
    headers: tuple[str, ...]  # of credentials
    line_limit_bytes: int
    header_count_limit: int

    def reader(self) -> RequestReader:
        """A reader for one request."""
        return RequestReader(
            self.table,
            self.credentials,
            self.places,
            line_limit_bytes=self.line_limit_bytes,
            header_count_limit=self.header_count_limit,
        )


class Explainer:
    """Explains decisions. `upstreams` are the real ones: how their targets fare is copied."""

    def __init__(
        self,
        hearings: Hearings,
        reading: Reading,
        router: Router,
        upstreams: Callable[[], Mapping[str, Upstream]],
        proxies: TrustedProxies,
        terms: LimitTerms,
        *,
        scheme: str,
        request_id_header: str,
        assertion_header: str,
        clock: Clock,
    ) -> None:
        self._hearings = hearings
        self._reading = reading
        self._router = router
        self._upstreams = upstreams
        self._proxies = proxies
        self._terms = terms
        self._scheme = scheme
        self._request_id_header = request_id_header
        self._assertion_header = assertion_header
        self._clock = clock

    async def explain(self, question: Question) -> dict[str, Any]:
        """The decision and its steps, as JSON. Raises UnknownKey, KeyGivenTwice, StoreUnavailable."""
        lines, target = self._placed(question)
        told = Told(self._hidden(question))
        try:
            request = self._reading.reader().read(_head(question.method, target, lines))
        except GatewayError as error:
            told.step("request", False, f"refused as it is read: {error}")
            return told.answer(error, None)
        told.step(
            "request", True, f"{question.method} {shown_target(request.target)} for {request.host.decode('latin-1')}"
        )
        hearing = await self._hearing(question, request)
        run = Run(self, hearing, question.address)
        await run.through(request)
        self._tell(told, run, request, hearing, lines, target)
        return told.answer(run.replies.said, run.sent_head)

    def _placed(self, question: Question) -> tuple[list[tuple[str, str]], str]:
        """Header lines and target, with the secret in the first configured place."""
        lines = list(question.headers)
        if not any(name.lower() == "host" for name, _ in lines):
            lines.insert(0, ("Host", question.host))
        target = question.path
        if question.secret is None:
            return lines, target
        places = self._reading
        if places.headers:
            name = places.headers[0]
            return [
                *lines,
                (name, f"Bearer {question.secret}" if name.lower() == "authorization" else question.secret),
            ], target
        if places.places.queries:
            name = min(places.places.queries).decode()
            return lines, f"{target}{'&' if '?' in target else '?'}{quote(name)}={quote(question.secret)}"
        name = min(places.places.protocols).decode()
        return [*lines, ("Sec-WebSocket-Protocol", f"{name}, {question.secret}")], target

    def _hidden(self, question: Question) -> list[str]:
        """Texts that are never told: what was given as a secret, and what stands in a place for one."""
        hidden = [question.secret or ""]
        names = {name.lower() for name in self._reading.headers} | {"cookie", "sec-websocket-protocol"}
        hidden += [word for name, value in question.headers if name.lower() in names for word in value.split()]
        return [text for text in hidden if len(text) >= 8]

    async def _hearing(self, question: Question, request: RequestHead) -> Hearing:
        if question.key_id is None:
            return await self._hearings.of(request.credential)
        if request.credential is not None:
            raise KeyGivenTwice("a key_id beside a credential")
        found = await self._hearings.of_key(question.key_id)
        if found is None:
            raise UnknownKey(question.key_id)
        request.credential, hearing = found
        return hearing

    # -- what an exchange works with, here

    def services(self, admission: Admission, replies: Replies, limiting: NotedLimiting, connector: Any) -> Services:
        """The parts of one exchange: the real ones, or real ones that nobody else has."""
        metrics, unwritten = Metrics(), Unwritten()
        return Services(
            router=self._router,
            admission=admission,
            upstreams={name: self._copied(upstream, connector) for name, upstream in self._upstreams().items()},
            tally=Tally(metrics),
            monotonic=self._clock.monotonic,
            body_seconds=LONGEST_SECONDS,
            replies=replies,
            new_request_id=lambda: REQUEST_ID,
            last_used=LastUsed(unwritten, self._clock),
            limiting=limiting,
            meter=Meter(unwritten, self._clock, metrics, interval_seconds=LONGEST_SECONDS, to_database=lambda now: now),
            watch=Watch(metrics),
            watched_from_seconds=inf,
        )

    def edge(self, address: str | None) -> Edge:
        """The peer of the request."""
        return Edge(None if address is None else address_in(address.encode()), self._scheme, self._proxies)

    def replies(self) -> NotedReplies:
        """The replies of one exchange."""
        return NotedReplies(self._request_id_header)

    def _copied(self, upstream: Upstream, connector: Any) -> Upstream:
        """One that is as well as this one, and leads nowhere."""
        targets = []
        for real in upstream.targets:
            target = Target(real.authority, connector, self._reading.response_table)
            target.is_healthy, target.ejected_until = real.is_healthy, real.ejected_until
            targets.append(target)
        copied = Upstream(
            upstream.name,
            targets,
            balance="round_robin",
            attempts=1,
            connect_seconds=LONGEST_SECONDS,
            idle_seconds=LONGEST_SECONDS,
            observe=lambda seconds: None,
            monotonic=self._clock.monotonic,
            asserter=upstream.asserter,
        )
        copied.review()
        return copied

    # -- telling

    def _tell(
        self,
        told: Told,
        run: "Run",
        request: RequestHead,
        hearing: Hearing,
        lines: Sequence[tuple[str, str]],
        target: str,
    ) -> None:
        said = run.replies.said
        match: Match | None = None if request.route is UNMATCHED else request.route
        tell_route(told, match, said, is_matched=request.route is not UNMATCHED)
        if request.route is UNMATCHED:
            return
        if match is not None and match.route.addresses is not None:
            tell_address(told, match.route.addresses, run.edge, said)
        if isinstance(said, AddressRefused) or run.is_answered:
            return
        access = ANY_KEY if match is None else match.route.access
        self._tell_credential(told, request, self._found_places(lines, target, request), access)
        if isinstance(request.credential, Credential) and access.mode != "none":
            told.step("cache", None, cache_text(hearing.tier), hearing.cache() | {"decided_by": hearing.tier})
            for rule in hearing.rules(access):
                told.step(f"rule {rule.code}", rule.is_kept, rule.asked, rule.facts)
        is_admitted = hearing.is_admitted or not (isinstance(said, Refusal | Outage))
        told.step("admission", is_admitted, "admitted" if is_admitted else code_of(said), hearing.subject() or {})
        tell_guard(told, self._terms, said, run.edge.client_name(request.fields.forwarded))
        if is_admitted and match is not None and not match.allowed:
            tell_limits(told, self._terms, run.limiting, self._upstreams()[match.route.upstream], said)
            self._tell_upstream(told, match.route, said)
        if run.sent_head:
            told.headers = self._headers(run.sent_head, lines)

    def _tell_credential(self, told: Told, request: RequestHead, places: list[str], access: Access) -> None:
        credential = request.credential
        if access.mode == "none":
            told.step("credential", None, "not looked at: the route is open to all", {"places": places})
        elif credential is None:
            told.step("credential", access.mode != "required", "there is none", {"places": places})
        elif isinstance(credential, Refusal):
            told.step("credential", False, credential.reason.value, {"places": places})
        else:
            told.step("credential", True, f"a {credential.kind}", {"places": places or ["key_id"]})

    def _found_places(self, lines: Sequence[tuple[str, str]], target: str, request: RequestHead) -> list[str]:
        """Where a credential stands."""
        names = {name.lower(): name for name in self._reading.headers}
        found = [f"header {names[name.lower()]}" for name, _ in lines if name.lower() in names]
        if request.fields.key_protocol:
            found.append(f"websocket_protocol {request.fields.key_protocol.decode('latin-1')}")
        if self._reading.places.take_from_query(target.encode())[1]:
            found.append("query")
        return found

    def _tell_upstream(self, told: Told, route: Route, said: Refusal | GatewayError | None) -> None:
        upstream = self._upstreams()[route.upstream]
        now = self._clock.monotonic()
        targets = [{"target": target.authority, "is_fit": target.is_fit(now)} for target in upstream.targets]
        is_asked = upstream.asserter is not None
        facts = {"upstream": upstream.name, "targets": targets, "assertion": is_asked}
        is_failed = isinstance(said, UpstreamUnavailable | Outage)
        text = f"forwarded to {upstream.name}"
        if isinstance(said, UpstreamUnavailable):
            text = f"every target of {upstream.name} is out"
        elif isinstance(said, Outage):
            text = "there is no key to sign the identity assertion by"
        elif said is not None:
            text = f"not forwarded to {upstream.name}"
        told.step("upstream", False if is_failed else None if said is not None else True, text, facts)

    def _headers(self, head: bytes, lines: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """What the upstream gets that the client has not sent, and the other way round."""
        sent = [line.decode("latin-1").partition(": ") for line in head.split(b"\r\n")[1:] if line]
        forwarded = [(name.lower(), value) for name, _, value in sent]
        given = [(name.lower(), value.strip(" \t").encode().decode("latin-1")) for name, value in lines]
        added = [
            {"name": name, "value": "(signed)" if name == self._assertion_header else value}
            for name, _, value in sent
            if (name.lower(), value) not in given
        ]
        removed = [
            {"name": name, "why": self._why(name)}
            for (name, _), line in zip(lines, given, strict=True)
            if line not in forwarded
        ]
        return {"added": added, "removed": removed}

    def _why(self, name: str) -> str:
        match self._reading.table.classify(name.encode()):
            case Action.CREDENTIAL | Action.PROTOCOLS | Action.COOKIES:
                return "the credential does not travel on"
            case Action.RESERVED | Action.REQUEST_ID:
                return "only the gateway says this"
            case Action.HOST | Action.FORWARDED:
                return "replaced by the gateway's own"
            case Action.KEEP:
                return "named by Connection"
            case _:
                return "meant for this hop alone"


class Run:
    """One request on its way through a real exchange."""

    def __init__(self, explainer: Explainer, hearing: Hearing, address: str | None) -> None:
        self.edge = explainer.edge(address)
        self.replies = explainer.replies()
        self.limiting = NotedLimiting()
        self._client = Onlooker(self.edge)
        self._transport = Nowhere(self._client.is_over)
        self._hearing = hearing
        self._services = explainer.services(hearing.admission, self.replies, self.limiting, self._connect)

    async def _connect(self, factory: Callable[[], Any]) -> tuple[Nowhere, Any]:
        connection = factory()
        connection.connection_made(self._transport)
        return self._transport, connection

    async def through(self, request: RequestHead) -> None:
        """Let it go as far as it goes."""
        exchange = Exchange(self._client, request, self._services)
        exchange.begin()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await self._client.is_over.wait()
        finally:
            exchange.client_left()
            await self._hearing.admission.close()

    @property
    def sent_head(self) -> bytes:
        """What went upstream; empty where nothing did."""
        return self._transport.head

    @property
    def is_answered(self) -> bool:
        """Whether the gateway answered by itself, as it does preflights."""
        return self.replies.said is None and not self._transport.head


def _head(method: str, target: str, lines: Sequence[tuple[str, str]]) -> bytes:
    fields = "".join(f"\r\n{name}: {value}" for name, value in lines)
    return f"{method} {target} HTTP/1.1{fields}".encode()
