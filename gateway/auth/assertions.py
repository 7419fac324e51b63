"""Identity assertions: what the identity headers say, signed for one upstream (R027).

An upstream that verifies one need trust neither the network nor whoever else can reach it (docs/upstreams.md). One is
signed per principal, upstream and minute, and kept with the principal. Must not know: HTTP beyond one header line.
"""

import math
from collections.abc import Callable
from typing import Any, Final

from gateway.auth.principal import Assertion, Principal
from gateway.auth.signing import signed
from gateway.auth.tokens import Signers
from gateway.errors import Outage

# Not that of access tokens: neither ever passes for the other, whatever audience a caller has chosen for a token.
TYPE: Final = "identity+jwt"
LIFETIME_SECONDS: Final = 60
REUSED_SECONDS: Final = 45.0  # the rest is for the way, and for an upstream whose clock is fast


class Asserter:
    """Signs for one upstream, its `audience`, under the header name `header`, by the current key of `signers`.

    `to_database` tells a monotonic moment in database time: like tokens, assertions go by that one clock.
    """

    def __init__(
        self,
        signers: Signers,
        *,
        header: str,
        issuer: str,
        audience: str,
        environment: str,
        to_database: Callable[[float], float],
    ) -> None:
        self.signers = signers
        self._start = f"{header}: ".encode()
        self._issuer = issuer
        self._audience = audience
        self._environment = environment
        self._to_database = to_database

    async def settled(self) -> None:
        """Return once there is a key to sign by. Raises Outage where there will be none soon."""
        await self.signers.settled()
        if self.signers.current is None:
            raise Outage("no signing key can be used")

    def line(self, principal: Principal, now: float) -> bytes:
        """The header line, with its CRLF, at `now` (monotonic). Raises Outage where there is no key to sign by. Hot.

        What a key has signed that is withdrawn is never sent again.
        """
        if principal.assertions is not None:
            made = principal.assertions.get(self._audience)
            if made is not None and now < made.until and made.signer is self.signers.current:
                return made.line
        return self._made(principal, now)

    def _made(self, principal: Principal, now: float) -> bytes:
        signer = self.signers.current
        if signer is None:
            raise Outage("the key that signs was withdrawn, and the next one is not known yet")
        text = signed(self._claims(principal, now), signer.id, signer.private, typ=TYPE)
        made = Assertion(self._start + text.encode("ascii") + b"\r\n", now + REUSED_SECONDS, signer)
        if principal.assertions is None:
            object.__setattr__(principal, "assertions", {})  # the one part of it that is no fact, but made of them
        assert principal.assertions is not None
        principal.assertions[self._audience] = made
        return made.line

    def _claims(self, principal: Principal, now: float) -> dict[str, Any]:
        issued_at = math.floor(self._to_database(now))
        return {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": principal.user_id,
            "tenant": principal.tenant_id,
            "key": principal.key_id,
            "env": self._environment,
            "kind": principal.kind.value,
            "scopes": sorted(principal.scopes),
            "plan": principal.plan,
            "iat": issued_at,
            "exp": issued_at + LIFETIME_SECONDS,
        }
