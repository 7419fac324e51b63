"""What the services for keys are built of, and the key as it may be shown."""

from dataclasses import dataclass
from typing import Any

from gateway.auth.secrets import Peppers, SecretFormat
from gateway.control import moments
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.mutations import Mutations
from gateway.control.problems import Forbidden, NotFound
from gateway.settings import KeySettings
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.keys import KeyRow
from gateway.stores.postgres.retired_secrets import RetiredSecretRow
from gateway.telemetry.metrics import Metrics

READ_SECONDS = 3.0


def secret_format_of(keys: KeySettings, environment: str) -> SecretFormat:
    """The shapes of secrets by the configuration."""
    bounds = keys.imported
    return SecretFormat(
        keys.prefix,
        environment,
        imported=None if bounds is None else (bounds.length_minimum, bounds.length_maximum),
    )


def peppers_of(keys: KeySettings) -> Peppers:
    """The peppers of the configuration, the one in use first."""
    return Peppers([pepper.secret.get_secret_value().encode() for pepper in keys.peppers])


@dataclass(frozen=True, slots=True)
class KeyParts:
    """The parts that the services for keys share. `secret_format` is that of this installation's environment."""

    postgres: Postgres
    mutations: Mutations
    secret_format: SecretFormat
    peppers: Peppers
    settings: KeySettings
    metrics: Metrics

    def format_of(self, environment: str) -> SecretFormat:
        """The shape of secrets in `environment`."""
        if environment == self.secret_format.environment:
            return self.secret_format
        return SecretFormat(self.secret_format.prefix, environment)


def check_kind(key: KeyRow, caller: Administrator) -> None:
    """Raise Forbidden where the caller may not widen or renew the key: an operator key skips entitlement (R013)."""
    if key.kind == "operator" and caller.role is not Role.OPERATOR:
        raise Forbidden("operator keys are renewed by operators")


def own(key: KeyRow | None, caller: Administrator, key_id: str) -> KeyRow:
    """The key that was found for the caller, who may be a user: then it must be theirs. Raises NotFound (R220)."""
    if key is None or caller.user_id not in (None, key.user_id):
        raise NotFound(f"no key {key_id!r} in sight")
    return key


def shown_key(key: KeyRow) -> dict[str, Any]:
    """The key object of every reply: never a digest or a secret (R219)."""
    return {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "user_id": key.user_id,
        "name": key.name,
        "prefix": key.prefix,
        "environment": key.environment,
        "scopes": list(key.scopes),
        "status": key.status,
        "created_at": moments.text(key.created_at),
        "last_used_at": moments.text(key.last_used_at),
        "expires_at": moments.text(key.expires_at),
        "revoked_at": moments.text(key.revoked_at),
    }


def shown_retired(secret: RetiredSecretRow) -> dict[str, Any]:
    """A retired secret as it may be shown: never its digest (R127)."""
    return {
        "id": secret.id,
        "key_id": secret.key_id,
        "prefix": secret.prefix,
        "retired_at": moments.text(secret.retired_at),
        "expires_at": moments.text(secret.expires_at),
    }
