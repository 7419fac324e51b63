"""What the calls of the management API take: one model a body, and how a body is read. Must not know: what is done."""

import re
import unicodedata
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from gateway.control.moments import Moment
from gateway.control.problems import InvalidBody
from gateway.setting_values import (
    GRACE_SECONDS_MAXIMUM,
    SCOPE_SHAPE,
    TOKEN_SECONDS_MAXIMUM,
    EnvironmentName,
    Feature,
    LimitWindow,
    Name,
    Party,
)

ID_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
LARGEST_INTEGER = 2**31 - 1  # a column of type integer

# Fields whose mistakes have a code of their own.
CODES = {
    "id": "invalid_id",
    "tenant_id": "invalid_tenant_id",
    "user_id": "invalid_user_id",
    "name": "invalid_name",
    "scopes": "invalid_scopes",
    "environment": "invalid_environment",
    "expires_at": "invalid_expires_at",
    "prefix": "invalid_prefix",
    "secret_sha256": "invalid_digest",
    "grace_seconds": "invalid_grace_seconds",
    "valid_until": "invalid_valid_until",
    "plan": "invalid_plan",
    "features": "invalid_features",
    "limits": "invalid_limits",
    "status": "invalid_status",
    "tier": "invalid_tier",
    "expires_in": "invalid_expires_in",
    "audience": "invalid_audience",
}


def _plain(text: str) -> str:
    """`text`, without control characters (they forge log lines, and Postgres takes no NUL) and lone surrogates."""
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise PydanticCustomError("text", "Leave out control characters")
    return text


def _trimmed_name(text: str) -> str:
    text = text.strip()
    if not 1 <= len(text) <= 64:
        raise PydanticCustomError("name", "Write 1 to 64 characters that are not all blank")
    return text


def _id(text: str) -> str:
    if ID_SHAPE.fullmatch(text) is None:
        raise PydanticCustomError(
            "id", "Use a letter or a digit and then up to 127 letters, digits or the signs . _ : @ -"
        )
    return text


def _scope(text: str) -> str:
    if re.fullmatch(SCOPE_SHAPE, text) is None:
        raise PydanticCustomError("scope", "Use 1 to 64 letters, digits or the signs : . _ * -")
    return text


def _unique(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(texts)) != len(texts):
        raise PydanticCustomError("unique", "Name each one once")
    return texts


def _digest(text: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text) is None:
        raise PydanticCustomError("digest", "Write the SHA-256 of the secret as 64 hexadecimal digits")
    return text


def _feature_text(value: Any) -> Any:
    return _plain(value) if isinstance(value, str) else value


def _spelled(pattern: str, **more: Any) -> WithJsonSchema:
    """What the document of the API says about a text that a function of ours validates."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", **more})


_PLAIN = r"[^\u0000-\u001f\u007f-\u009f]"
_NAME = rf"{_PLAIN}*[^\s\u0000-\u001f\u007f-\u009f]{_PLAIN}*"

Text = Annotated[str, AfterValidator(_plain), _spelled(f"{_PLAIN}*")]
KeyName = Annotated[Text, AfterValidator(_trimmed_name), _spelled(_NAME, minLength=1, maxLength=64)]
Id = Annotated[str, AfterValidator(_id), _spelled(ID_SHAPE.pattern)]
ScopeText = Annotated[str, AfterValidator(_scope), _spelled(SCOPE_SHAPE)]
Scopes = Annotated[
    tuple[ScopeText, ...], Field(max_length=64, json_schema_extra={"uniqueItems": True}), AfterValidator(_unique)
]
Features = Annotated[dict[Name, Annotated[Feature, AfterValidator(_feature_text)]], Field(max_length=200)]
Limits = dict[LimitWindow, Annotated[int, Field(ge=-1, le=2**53)]]
Digest = Annotated[str, AfterValidator(_digest), _spelled("[0-9A-Fa-f]{64}")]
Status = Literal["active", "suspended"]


class Body(BaseModel):
    """A JSON object: no field that is not listed, no value that is nearly of the type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class NewTenant(Body):
    """`POST /v1/tenants`."""

    id: Id
    name: KeyName


class TenantChange(Body):
    """`PATCH /v1/tenants/{id}`. What is left out stays; `issuance` null means: as configured."""

    name: KeyName | None = None
    status: Status | None = None
    issuance: Literal["open", "closed"] | None = None


class UserBody(Body):
    """`PUT /v1/users/{id}`. `status` left out stays as it is (a new user is active)."""

    tenant_id: Id
    display_name: Annotated[Text, Field(max_length=200)] = ""
    roles: Scopes = ()
    groups: Scopes = ()
    status: Status | None = None


class EntitlementBody(Body):
    """`PUT /v1/users/{id}/entitlement`. Without `valid_until` it does not end."""

    plan: Name
    features: Features = {}
    valid_until: Moment | None = None
    limits: Limits = {}


class PlanBody(Body):
    """`PUT /v1/plans/{name}`."""

    tier: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] = 0
    features: Features = {}
    limits: Limits = {}


class NewKeyBody(Body):
    """`POST /v1/keys`. With `secret_sha256` and `prefix` the secret is the client's; they come together."""

    user_id: Id
    name: KeyName
    scopes: Scopes = ()
    environment: EnvironmentName | None = None
    expires_at: Moment | None = None
    kind: Literal["user", "operator"] = "user"
    secret_sha256: Digest | None = None
    prefix: Annotated[str, Field(max_length=64)] | None = None


class KeyChange(Body):
    """`PATCH /v1/keys/{id}`. What is left out stays; `expires_at: null` means no end."""

    name: KeyName | None = None
    scopes: Scopes | None = None
    expires_at: Moment | None = None


class RotateBody(Body):
    """`POST /v1/keys/{id}/rotate`. How long the present secret still works; 0 ends it at once (R108)."""

    grace_seconds: Annotated[int, Field(ge=0, le=GRACE_SECONDS_MAXIMUM)] | None = None


class RevokeBody(Body):
    """`POST /v1/keys/{id}/revoke`."""

    reason: Annotated[Text, Field(max_length=200)] | None = None


class VerifyBody(Body):
    """`POST /v1/keys/verify`."""

    secret: SecretStr


class NewAdminToken(Body):
    """What a new admin token is made of; for the command, since no call makes one."""

    name: KeyName
    role: str
    tenant_id: Id | None = None
    expires_at: Moment | None = None


class WindowBody(Body):
    """`PATCH /v1/retired-secrets/{id}`: the new end of the window."""

    expires_at: Moment


class TokenBody(Body):
    """`POST /.ostiary/tokens`. Left out: all scopes of the key, the configured life, the gateway itself."""

    scopes: Scopes | None = None
    expires_in: Annotated[int, Field(ge=1, le=TOKEN_SECONDS_MAXIMUM)] | None = None
    audience: Party | None = None
    once: bool = False


class InvalidateBody(Body):
    """`POST /v1/cache/invalidate`."""

    secret_sha256: Digest


B = TypeVar("B", bound=Body)


async def read_body(request: web.Request, model: type[B], *, is_optional: bool = False) -> B:
    """The request's body as `model`; an empty one is `{}` where it `is_optional`. Raises InvalidBody."""
    raw = await request.read()
    return parse_body(raw or b"{}" if is_optional else raw, model)


async def read_raw(request: web.Request, limit_bytes: int) -> bytes:
    """The whole body, if it is no larger than that; the application's own limit is for small ones."""
    try:
        larger = request.clone(client_max_size=limit_bytes)
    except RuntimeError:  # read before, for its Idempotency-Key
        return await request.read()
    return await larger.read()


def parse_body(raw: bytes, model: type[B]) -> B:
    """Validate JSON text. Raises InvalidBody with every issue; its code is that of the first field at fault."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        issues = [_issue(details) for details in error.errors(include_url=False, include_input=False)]
        field = issues[0]["place"].partition(".")[0].partition("[")[0]
        is_extra = error.errors(include_url=False, include_input=False)[0]["type"] == "extra_forbidden"
        code = "invalid_body" if is_extra else CODES.get(field, "invalid_body")
        raise InvalidBody(issues, code=code) from None


def _issue(details: ErrorDetails) -> dict[str, str]:
    place = ""
    for part in details["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{_plain_place(part)}" if place else _plain_place(part)
    message = "Write a JSON object" if details["type"] == "json_invalid" else details["msg"]
    return {"place": place, "message": message}


def _plain_place(name: str) -> str:
    """A field's name as sent, fit for a log line."""
    return name[:64].encode("ascii", "backslashreplace").decode() if name.isprintable() else "(unprintable)"
