"""Who and what there is, and the gates before each secret."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.auth.secrets import SecretFormat
from tests.chaos.gates import Gate

ENVIRONMENT = "chaos"
FORMAT = SecretFormat("ost", ENVIRONMENT)
PLAIN, REPORTS, EXPORTS, PREMIUM = "/orders", "/reports", "/exports", "/premium"
PATHS = (PLAIN, REPORTS, EXPORTS, PREMIUM)
REPORTS_SCOPE = "reports:read"
RECOVERY = f"{PLAIN}/recovery"
ROUTES = [
    {"name": path.strip("/"), "paths": [path], "upstream": "orders", "tokens": True, "require": required}
    for path, required in (
        (PLAIN, {}),
        (REPORTS, {"scopes": [REPORTS_SCOPE]}),
        (EXPORTS, {"features": ["export"]}),
        (PREMIUM, {"tier": 2}),
    )
]


@dataclass(eq=False)
class Part:
    """What writers change, one at a time: `is_busy` while one is at it. `is_gone` once it has been taken away."""

    name: str
    is_busy: bool = False
    is_gone: bool = False

    def gate(self, what: str) -> Gate:
        """A new gate, about `what` of this."""
        return Gate(f"{what} of {self.name}")


@dataclass(eq=False)
class Plan(Part):
    """`access`: it has api_access; `premium`: its tier is high enough."""

    def __post_init__(self) -> None:
        self.access, self.premium = self.gate("api_access"), self.gate("tier")


@dataclass(eq=False)
class Tenant(Part):
    """`active`: it is not suspended."""

    def __post_init__(self) -> None:
        self.active = self.gate("status")


@dataclass(eq=False)
class User(Part):
    """`active`: it is there and not suspended; `entitled`: to its plan; `export`: with that feature."""

    tenant: Tenant = field(kw_only=True)
    plan: Plan = field(kw_only=True)
    keys: list["Key"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.active, self.entitled, self.export = self.gate("user"), self.gate("entitlement"), self.gate("feature")


@dataclass(eq=False)
class Key(Part):
    """`valid`: neither revoked nor expired; `reports`: it has that scope. `id` is empty until it is known."""

    user: User = field(kw_only=True)
    id: str = ""
    secrets: list["Secret"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.valid, self.reports = self.gate("key"), self.gate("scope")


@dataclass(eq=False)
class Secret:
    """One secret of a key, current or retired. `valid`: it is current, or its window has not ended."""

    text: str = field(repr=False)
    key: Key
    number: int = field(default_factory=itertools.count(1).__next__)
    tokens: list["Token"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.valid = Gate(f"secret {self.number} of {self.key.name}")

    def gates(self, path: str) -> tuple[Gate, ...]:
        """All that a request with it to this path has to pass."""
        key, user = self.key, self.key.user
        plain = (self.valid, key.valid, user.active, user.entitled, user.tenant.active, user.plan.access)
        further = {PLAIN: (), REPORTS: (key.reports,), EXPORTS: (user.export,), PREMIUM: (user.plan.premium,)}
        return (*plain, *further[path])


@dataclass(eq=False)
class Signer(Part):
    """A signing key of access tokens. `valid`: it is not withdrawn."""

    def __post_init__(self) -> None:
        self.valid = self.gate("signing key")


@dataclass(eq=False)
class Token(Secret):
    """An access token: sent like a secret, and worth what `bound` is worth while its signing key stands."""

    bound: Secret = field(kw_only=True)
    signer: Signer = field(kw_only=True)

    def __post_init__(self) -> None:
        self.valid = self.signer.valid

    def gates(self, path: str) -> tuple[Gate, ...]:
        """Those of its secret, and its own."""
        return (self.valid, *self.bound.gates(path))


@dataclass(eq=False)
class AdminToken(Part):
    """A token of the management API. `valid`: it is not revoked."""

    id: str = field(kw_only=True)
    text: str = field(repr=False, kw_only=True)

    def __post_init__(self) -> None:
        self.valid = self.gate("admin token")


class Cast:
    """All of them. What is `gone` will never be good again."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.tenants: list[Tenant] = []
        self.users: list[User] = []
        self.keys: list[Key] = []
        self.secrets: list[Secret] = []
        self.gone: list[Secret] = []
        self.signers: dict[str, Signer] = {}
        self.signing = Part("signing keys")
        self.admin_tokens: list[AdminToken] = []
        self.admin_tokens_gone: list[AdminToken] = []
        self._numbers = itertools.count(1)

    def name(self, kind: str) -> str:
        """A name that nobody had before."""
        return f"{kind}-{next(self._numbers)}"

    def secrets_of(self, part: Part) -> Iterator[Secret]:
        """Those that live behind this part."""
        return (
            secret
            for secret in self.secrets
            if part in (secret.key, secret.key.user, secret.key.user.tenant, secret.key.user.plan)
        )

    def tokens_of(self, signer: Signer) -> list[Token]:
        """What it has signed."""
        return [secret for secret in self.secrets if isinstance(secret, Token) and secret.signer is signer]

    def retire(self, secret: Secret) -> None:
        """It will never be good again, nor will its tokens."""
        for each in (secret, *secret.tokens):
            if each in self.secrets:
                self.secrets.remove(each)
                self.gone.append(each)

    def remove_key(self, key: Key) -> None:
        """The key and all its secrets will never be good again."""
        key.is_gone = True
        if key in self.keys:
            self.keys.remove(key)
            key.user.keys.remove(key)
        for secret in list(key.secrets):
            self.retire(secret)

    def remove_signer(self, signer: Signer) -> None:
        """The signing key and its tokens will never be good again."""
        signer.is_gone = True
        for token in self.tokens_of(signer):
            self.retire(token)

    def remove_user(self, user: User) -> None:
        """The user and all keys will never be good again."""
        user.is_gone = True
        self.users.remove(user)
        for key in list(user.keys):
            self.remove_key(key)
