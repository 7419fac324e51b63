"""The parts for access tokens, put together: who signs them, who believes them, who mints them.

The keys that sign them sign what upstreams are told of callers as well.
"""

import contextlib
from collections.abc import Callable
from typing import Self

from gateway.auth.assertions import Asserter
from gateway.auth.signing import Sealer
from gateway.auth.tokens import Signers, TokenVerifier
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.deeds import Origin
from gateway.control.mutations import Mutations
from gateway.control.signing_keys import SignerKeeper, SigningKeys
from gateway.control.tokens import Mint
from gateway.settings import Settings, TokenSettings
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics


class Tokens:
    """What a node has for access tokens. Its signing keys are there once `keep` has found them."""

    def __init__(self, settings: Settings, configured: TokenSettings) -> None:
        self._settings = settings
        self._configured = configured
        self._sealer = Sealer(configured.sealing_key.get_secret_value())
        self.signers = Signers()
        self.verifier = TokenVerifier(
            self.signers,
            issuer=configured.issuer,
            audience=configured.audience,
            environment=settings.environment,
            leeway_seconds=configured.leeway_seconds,
        )

    @classmethod
    def configured(cls, settings: Settings) -> Self | None:
        """None where they are not configured."""
        return None if settings.tokens is None else cls(settings, settings.tokens)

    async def keep(
        self, postgres: Postgres, mutations: Mutations, node_id: str, stack: contextlib.AsyncExitStack
    ) -> None:
        """Read the signing keys, now and when they change, and rotate them. What ends that goes onto `stack`."""
        signing_keys = SigningKeys(
            postgres,
            mutations,
            self._sealer,
            caller=Administrator(node_id, Role.OPERATOR, None, Origin("node", node_id, "gateway")),
            environment=self._settings.environment,
            rotate_after_seconds=self._configured.rotate_after_seconds,
        )
        keeper = SignerKeeper(signing_keys, self.signers)
        stack.push_async_callback(keeper.close)
        await keeper.start()

    def mint(self, postgres: Postgres, metrics: Metrics) -> Mint:
        """Where callers get them."""
        return Mint(
            postgres,
            self._sealer,
            self.signers,
            self._configured,
            environment=self._settings.environment,
            key_id_header=self._settings.identity_headers.key_id,
            metrics=metrics,
        )

    def asserters(self, to_database: Callable[[float], float]) -> dict[str, Asserter]:
        """What signs for the upstreams that ask for it, by their names."""
        settings = self._settings
        return {
            name: Asserter(
                self.signers,
                header=settings.identity_headers.assertion,
                issuer=self._configured.issuer,
                audience=name,
                environment=settings.environment,
                to_database=to_database,
            )
            for name, upstream in settings.upstreams.items()
            if upstream.assertion
        }
