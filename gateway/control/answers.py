"""What the calls of the management API answer: one model an object. The handlers' dicts are held against them by tests.

Must not know: how an object is made.
"""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel
from pydantic.json_schema import SkipJsonSchema

Features = dict[str, bool | int | str]
Limits = dict[str, int]


class Answer(BaseModel):
    """A JSON object with these members and no other."""

    # Built once the document is asked for: no node needs them to serve.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Propagation(Answer):
    """How far a change has come; see docs/api.md."""

    state: Literal["confirmed", "unconfirmed"]
    revision: int
    nodes: int
    reported: int
    seconds: float


class Changed(Answer):
    """The answer to a change."""

    propagation: Propagation


Item = TypeVar("Item", bound=Answer)


class Page(Answer, Generic[Item]):
    """One page of a listing; `next_cursor` is null on the last one."""

    items: list[Item]
    next_cursor: str | None


class Tenant(Answer):
    """A tenant."""

    id: str
    name: str
    status: Literal["active", "suspended"]
    issuance: Literal["open", "closed"] | None
    created_at: datetime


class Tenants(Page[Tenant]):
    """Tenants."""


class TenantChanged(Tenant, Changed):
    """A tenant that was created or changed."""


class User(Answer):
    """A user."""

    id: str
    tenant_id: str
    display_name: str
    roles: list[str]
    groups: list[str]
    status: Literal["active", "suspended"]
    created_at: datetime


class Users(Page[User]):
    """Users."""


class UserChanged(User, Changed):
    """A user that was created or changed."""


class Entitlement(Answer):
    """What a user is entitled to."""

    user_id: str
    plan: str
    features: Features
    limits: Limits
    valid_until: datetime | None
    updated_at: datetime


class EntitlementChanged(Entitlement, Changed):
    """An entitlement that was given or changed."""


class EffectiveEntitlement(Answer):
    """What a user has, the plan included; `api_access`: whether their keys are admitted, and new ones made."""

    plan: str
    tier: int
    features: Features
    limits: Limits
    valid_until: datetime | None
    api_access: bool


class Me(Answer):
    """Who has signed in, and what the provider and the gateway make of them."""

    id: str
    tenant_id: str
    display_name: str
    roles: list[str]
    groups: list[str]
    admin_role: Literal["tenant-admin", "auditor"] | None
    entitlement: EffectiveEntitlement | None


class Plan(Answer):
    """A plan."""

    name: str
    tier: int
    features: Features
    limits: Limits


class Plans(Page[Plan]):
    """Plans."""


class PlanChanged(Plan, Changed):
    """A plan that was created or changed."""


class Key(Answer):
    """A key, masked: `prefix` is the part of its secret that may be shown."""

    id: str
    tenant_id: str
    user_id: str
    name: str
    prefix: str
    environment: str
    scopes: list[str]
    status: Literal["active", "revoked", "expired"]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class Keys(Page[Key]):
    """Keys."""


class KeyChanged(Key, Changed):
    """A key that was changed or revoked."""


class KeyCreated(KeyChanged):
    """A new key. `secret` is shown this once; it is missing where the client made it."""

    secret: str | SkipJsonSchema[None] = None


class Window(Answer):
    """Until when a retired secret works."""

    id: str
    expires_at: datetime


class KeyRotated(KeyChanged):
    """A key with a new secret, shown this once, and the window of the one before."""

    secret: str
    retired_secret: Window


class RetiredSecret(Answer):
    """A retired secret."""

    id: str
    key_id: str
    prefix: str
    retired_at: datetime
    expires_at: datetime


class RetiredSecrets(Page[RetiredSecret]):
    """Retired secrets."""


class WindowChanged(Changed):
    """A retired secret whose window was moved."""

    id: str
    key_id: str
    expires_at: datetime


class Node(Answer):
    """A node as it last reported, and what it has counted since its start.

    `is_fresh`: whether it may decide by what it remembers. `decisions`: how many credentials it has judged, by where
    it knew them from. `dependencies`: which of them answer it. `durations`: how many requests have taken so many
    seconds at most, and more than the bound before.
    """

    id: str
    version: str
    revision: int
    view_age_seconds: float | None
    started_at: datetime
    seen_at: datetime
    seen_seconds_ago: float
    is_fresh: bool
    decisions: dict[str, int]
    dependencies: dict[str, bool]
    durations: dict[str, int]


class Nodes(Page[Node]):
    """Nodes."""


class SigningKey(Answer):
    """A key that signs tokens, or did. `state`: `next` is published before it signs, `previous` only proves."""

    id: str
    state: Literal["next", "current", "previous", "retired"]
    created_at: datetime
    activated_at: datetime | None
    replaced_at: datetime | None
    retired_at: datetime | None


class SigningKeys(Page[SigningKey]):
    """Signing keys."""


class Verified(Answer):
    """What a secret is worth: `valid`, or the `code` that a request with it would be refused by."""

    valid: bool
    code: str | None
    key_id: str | None
    secret_state: Literal["current", "retired"] | None
    secret_expires_at: datetime | None
    key: Key | None


class ImportedRow(Answer):
    """What came of one row of an import."""

    row: int
    outcome: Literal["created", "unchanged", "refused"]
    key_id: str | None = None
    code: str | SkipJsonSchema[None] = None
    message: str | SkipJsonSchema[None] = None


class ImportSummaryLine(Answer):
    """The last line of an import."""

    summary: dict[str, Any]


class ImportProblemLine(Answer):
    """The last line of an import that could not go on."""

    problem: dict[str, Any]


class ImportLine(RootModel[ImportedRow | ImportSummaryLine | ImportProblemLine]):
    """A line of the answer to an import."""


class LeakLabel(Answer):
    """Whether a reported token was a key here; `token_hash` is the SHA-256 of it."""

    token_hash: str
    token_type: str
    label: Literal["true_positive", "false_positive"]


class LeakLabels(RootModel[list[LeakLabel]]):
    """What came of a report."""


class Decision(BaseModel):
    """What becomes of a request; the facts of a refusal stand beside these."""

    model_config = ConfigDict(extra="allow", frozen=True)

    outcome: Literal["forwarded", "refused", "outage", "answered"]
    status: int | None
    code: str | None
    title: str


class Step(Answer):
    """One step of a decision."""

    step: str
    outcome: Literal["passed", "failed", "noted"]
    text: str
    facts: dict[str, Any]


class Forwarded(Answer):
    """A request as its upstream would get it."""

    method: str
    path: str


class Explanation(Answer):
    """A decision, step by step. `headers` tells which are added and removed, and why."""

    decision: Decision
    steps: list[Step]
    forwarded: Forwarded | None
    headers: dict[str, Any] | None


class Actor(Answer):
    """Who did something."""

    kind: str
    id: str
    name: str


class Event(Answer):
    """One event of the audit trail."""

    id: int
    at: datetime
    actor: Actor
    address: str | None
    action: str
    target: str
    tenant_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    outcome: Literal["changed", "unchanged"]
    previous_hash: str
    hash: str


class Events(Page[Event]):
    """Events."""


class Usage(Answer):
    """What was used in one step of time, which begins `at`; of the other names those that were asked for in `by`."""

    at: datetime
    key_id: str | SkipJsonSchema[None] = None
    user_id: str | SkipJsonSchema[None] = None
    tenant_id: str | SkipJsonSchema[None] = None
    route: str | SkipJsonSchema[None] = None
    outcome: str | SkipJsonSchema[None] = None
    code: str | SkipJsonSchema[None] = None
    requests: int
    received_bytes: int
    sent_bytes: int


class UsagePage(Page[Usage]):
    """Usage."""


class UsageCsv(RootModel[str]):
    """Usage as CSV: a line of names, and one for each row."""


class Touched(Answer):
    """What a key was lately used and changed for. Tokens are not on record; nodes are told to whoever sees all."""

    last_used_at: datetime | None
    retired_secrets: list[RetiredSecret]
    tokens: None
    audit: list[Event]
    nodes: list[Node] | None


class Contained(Changed):
    """A key that has been ended, and what it touched."""

    key: Key
    was_revoked: bool
    touched: Touched


class Chain(Answer):
    """Whether the audit trail is whole."""

    events: int
    intact: bool
    first_broken: int | None


class Issue(Answer):
    """One mistake, and where it is."""

    place: str
    message: str


class ProblemAnswer(Answer):
    """A failure (RFC 9457). `code` is for programs, `title` for people."""

    type: Literal["about:blank"]
    code: str
    status: int
    title: str
    request_id: str


class ProblemWithIssues(ProblemAnswer):
    """A failure with every mistake of the request."""

    issues: list[Issue]


class DeniedProblem(ProblemAnswer):
    """A problem that names what is denied."""

    denied: list[str]


class KeyLimitProblem(ProblemAnswer):
    """The user has as many keys as allowed; `revoked` are those that were too many."""

    limit: int
    revoked: list[str]
    propagation: Propagation | SkipJsonSchema[None] = None
