"""The second door, `/.ostiary/auth`: a proxy in front asks whether a request may pass, and forwards it by itself.

The decision is that of an exchange, to the letter: the same route, credential, admission and limits, on the same warm
path, counted by the same meters. Only its end is another: what an upstream would be told is told to the proxy.

Whoever asks is told nothing that he would not find out by sending the named request itself. What the word of a proxy
is needed for, the address of its client, is believed of trusted ones alone, as everywhere; and they alone are given
the signed assertion, which would be worth something to others.
"""

from functools import partial

from gateway.auth.admission import Admitted
from gateway.errors import GatewayError
from gateway.proxy.cors import Cors, is_preflight
from gateway.proxy.errors import BadRequest
from gateway.proxy.exchange import Exchange
from gateway.proxy.recorded import FORWARDED
from gateway.proxy.router import Match
from gateway.proxy.tally import Outcome


class Inquiry(Exchange):
    """One question of a proxy, and its answer. `method` is that of the question, until it is counted."""

    def begin(self) -> None:
        """As Exchange, of the request that is named. Hot."""
        try:
            naming = self._services.naming
            assert naming is not None, "there is no door without it"
            self._request = naming.named(self._request)
            if self._request.fields.twins_removed:
                # An upstream may take it for one of ours, and few proxies would take it out.
                raise BadRequest("a header that could pass for one that only the gateway sets")
        except GatewayError as error:
            self._answer_error(error)
        except Exception:
            self._answer_unforeseen()
        else:
            super().begin()

    def _find_route(self) -> Match | None:
        """None where no request is named, too. The gateway's own endpoints are none of the proxy's."""
        request, services = self._request, self._services
        match = super()._find_route() if request.target else None
        if match is None or match.route.upstream.startswith("."):
            return None
        method = request.method
        if is_preflight(method, request.fields):
            method = request.fields.noted(b"access-control-request-method")
        services.router.check_as_sent(method, request.target, request.host, match)
        return match

    def _is_settled_by_cors(self, cors: Cors) -> bool:
        """A preflight of an origin that is listed may pass; nobody is known by it, and no limit is touched."""
        request = self._request
        if not is_preflight(request.method, request.fields):
            return super()._is_settled_by_cors(cors)
        assert self._match is not None
        self._cors_lines = cors.preflight_lines(request.fields, self._match.route.methods)
        self._let_pass(b"", Outcome.PREFLIGHT)
        return True

    def _forward(self, decision: Admitted) -> None:
        """Tell the proxy who is calling. Hot."""
        upstream, principal, services = self._upstream, decision.principal, self._services
        assert upstream is not None
        if principal is None:
            self._let_pass(b"", FORWARDED)
            return
        identity = principal.identity
        now = services.monotonic()
        asserter = upstream.asserter
        if asserter is not None and self._client.edge.is_trusted:
            if asserter.signers.current is None:
                self._later(partial(self._wait_for_signer, asserter, decision))
                return
            identity += asserter.line(principal, now)
        if now >= services.last_used.due_at.get(principal.use, 0.0):
            services.last_used.note(principal.use, now)
        self._let_pass(identity, FORWARDED)

    def _let_pass(self, identity: bytes, outcome: Outcome) -> None:
        closes = self._closes()
        reply = self._services.replies.pass_on(
            identity, self._request_id_line + self._limit_lines + self._cors_lines, closes=closes
        )
        self._answer(200, reply, outcome, closes, 200)

    def _answer(self, status: int, reply: bytes, outcome: Outcome, closes: bool, code: int | str) -> None:
        if status != 200:
            reply = self._services.replies.with_problem_line(reply)
        self._client.write(reply)
        self.method = self._request.method  # which is the one to count
        self._finish(status, outcome, code=code)
        self._client.finished(not closes)
