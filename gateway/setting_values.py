"""The shapes of single settings: how one value of the file is read, and what is said when it is wrong.

Must not know: which setting uses a shape, and the other settings of the file (`setting_rules.py`).
A value is never quoted in what is said about it: it may have come from a variable that holds a secret.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, SecretStr, WithJsonSchema
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

# 256 bits in hexadecimal are twice this; a shorter pepper is a password that somebody made up.
PEPPER_LENGTH_MINIMUM = 32

# What JSON and Postgres keep exactly; far above any sensible setting.
NUMBER_MAXIMUM = 2**53 - 1

# 68 years. Intervals of Postgres, expiries of Redis and timers take that; far more, and they fail one by one.
SECONDS_MAXIMUM = 2**31 - 1

# How long a rotated secret may still work.
GRACE_SECONDS_MAXIMUM = 30 * 86400

# The longest life of a token. Signing keys are believed for as long after they have signed for the last time.
TOKEN_SECONDS_MAXIMUM = 30 * 86400

# How often a provider's keys are read, and for how long they are believed while they cannot be.
REFRESH_SECONDS = 300
OUTAGE_SECONDS = 3600

# The gateway's own endpoints on the public listener; a route below this path could never be reached.
OWN_PATH = "/.ostiary"

# Hosts that plain HTTP reaches without a network between.
THIS_MACHINE = frozenset({"127.0.0.1", "[::1]", "localhost"})

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])"
_ADDRESS = re.compile(rf"(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})")
_TARGET = re.compile(rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?/?")
_PROVIDER_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?(?:/[A-Za-z0-9/._~!$&'()*+,;=:%-]*)?"
)
_STORE_HOST = re.compile(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def wrong(what: str, cure: str) -> PydanticCustomError:
    """Return the error that a validator raises: `what` is wrong (a verb phrase), and its `cure` (a sentence)."""
    return PydanticCustomError("mistake", "{what}. {cure}", {"what": what, "cure": cure})


@dataclass(frozen=True)
class Shape:
    """A text that matches `pattern` as a whole. `noun` and `cure` say what it should have been."""

    pattern: str
    noun: str
    cure: str

    def check(self, value: str) -> str:
        """Return `value` if it has this shape; raise a mistake otherwise."""
        if re.fullmatch(self.pattern, value) is None:
            raise wrong(f"is not {self.noun}", self.cure)
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener stands. `host` is a name or an address without brackets; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """One server of an upstream. `host` is a name or an address without brackets."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def read_address(value: object) -> Address:
    """Return the address that `value` ("host:port") means; raise a mistake if it is none."""
    if isinstance(value, Address):
        return value
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None or not _is_host(found["host"]) or int(found["port"]) > 65535:
        raise wrong("is not an address", 'Write "host:port", with a port from 0 to 65535.')
    return Address(found["host"].strip("[]"), int(found["port"]))


def read_target(value: object) -> Target:
    """Return the server that `value` ("http://host:port") means; raise a mistake if it is none."""
    if isinstance(value, Target):
        return value
    if isinstance(value, str) and "@" in value:
        raise wrong("carries a user name or a password", "Leave out what stands before the @.")
    found = _TARGET.fullmatch(value) if isinstance(value, str) else None
    if found is None or not _is_host(found["host"]):
        raise wrong("is not the URL of a server", 'Write "http://host:port", without a path or a query.')
    scheme: Literal["http", "https"] = "https" if found["scheme"] == "https" else "http"
    port = int(found["port"] or _DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65535:
        raise wrong("has a port that does not exist", "Use a port from 1 to 65535.")
    return Target(scheme, found["host"].strip("[]"), port)


def _is_host(host: str) -> bool:
    """Whether a text that looks like a host is one: bracketed and all-numeric hosts must be IP addresses."""
    bare = host.strip("[]")
    if host == bare and re.search(r"[^0-9.]", bare):
        return True
    try:
        network = ip_network(bare)
    except ValueError:
        return False
    return (network.version == 6) == (host != bare)


def _read_network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise wrong("is not a network", 'Write an address or a network as text, such as "10.0.0.0/8".')
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        whole = ip_network(value, strict=False)
    except ValueError:
        raise wrong("is not a network", 'Write an address or a network, such as "10.0.0.0/8".') from None
    raise wrong("has bits set behind the prefix of the network", f'Write "{whole}" to mean all of it.')


def _read_feature(value: object) -> bool | int | str:
    if isinstance(value, bool | int | str):
        return value
    raise wrong("is not a feature's value", "Write true, false, a whole number or a text.")


def _check_path(path: str) -> str:
    for is_bad, what, cure in (
        (not path.startswith("/"), "does not start with '/'", "Write the path from its root."),
        ("%" in path, "is percent-encoded", "Write a path that needs no encoding."),
        ("?" in path or "#" in path, "holds a query or a fragment", "Write the path alone."),
        ("//" in path, "holds an empty segment", "Write one '/' where there are two."),
        (
            any(part in {".", ".."} for part in path.split("/")),
            "holds a dot segment",
            "Write the path that it leads to.",
        ),
        (
            re.fullmatch(r"[A-Za-z0-9/._~!$&'()*+,;=:@-]*", path) is None,
            "holds a character that no path may hold",
            "Use letters, digits and the signs that RFC 3986 allows in a path.",
        ),
    ):
        if is_bad:
            raise wrong(what, cure)
    return path


def _check_route_path(path: str) -> str:
    if len(path) > 1 and path.endswith("/"):
        raise wrong("ends with '/'", "Leave it out: a path matches itself and everything under it.")
    if path == OWN_PATH or path.startswith(OWN_PATH + "/"):
        raise wrong("belongs to the gateway's own endpoints", f"Choose a path outside {OWN_PATH}.")
    return path


def check_provider_url(url: str) -> str:
    """Return `url` if a provider's keys may be fetched by it; raise a mistake otherwise."""
    if "@" in url:
        raise wrong("carries a user name or a password", "Leave out what stands before the @.")
    found = _PROVIDER_URL.fullmatch(url)
    if found is None or not _is_host(found["host"]) or int(found["port"] or 1) not in range(1, 65536):
        raise wrong("is not the URL of a provider", 'Write "https://host/path", without a query or a fragment.')
    if found["scheme"] == "http" and found["host"] not in THIS_MACHINE:
        raise wrong("is plain HTTP, by which anybody between can give keys of their own", "Use https.")
    return url


def _refuse_flag(value: object) -> object:
    """A YAML `true` would otherwise count as 1."""
    if isinstance(value, bool):
        raise wrong("is true or false, not a number", "Write a number.")
    return value


def _check_seconds(value: float) -> float:
    if not math.isfinite(value):
        raise wrong("is not a finite number", "Write a number of seconds.")
    if value <= 0:
        raise wrong("is not above zero", "Write a number of seconds above 0.")
    if value > SECONDS_MAXIMUM:
        raise wrong("is too large", f"Write a number of seconds up to {SECONDS_MAXIMUM}.")
    return value


def _check_no_seconds(value: float) -> float:
    return value if value == 0 else _check_seconds(value)


def _check_share(value: float) -> float:
    if not 0 <= value <= 1:  # nor is NaN
        raise wrong("is not a share", "Write a number from 0 (none) to 1 (all).")
    return value


def _refuse_number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise wrong("is a number, not true or false", "Write true or false.")
    return value


def _check_long_secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < PEPPER_LENGTH_MINIMUM:
        raise wrong(f"is shorter than {PEPPER_LENGTH_MINIMUM} characters", "Make one with `openssl rand -hex 32`.")
    return value


def _store_url(pattern: str, what: str, cure: str) -> Callable[[SecretStr], SecretStr]:
    def check(value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if re.match(pattern, url) is None:
            raise wrong(what, cure)
        if not _has_hosts(url):
            raise wrong(
                "has a host or a port that is none",
                "Write host:port, several with commas between; percent-encode / ? # @ : in user and password.",
            )
        return value

    return check


def _has_hosts(url: str) -> bool:
    """Whether what stands where hosts and ports do are some; a store may be on a socket and have none."""
    try:
        hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    except ValueError:  # a bracket without the other
        return False
    found = [_STORE_HOST.fullmatch(host) for host in hosts]
    return all(one is not None and int(one["port"] or 1) in range(1, 65536) for one in found)


Whole = Annotated[int, Field(ge=0, le=NUMBER_MAXIMUM), BeforeValidator(_refuse_flag)]
Allowance = Annotated[int, Field(ge=-1, le=NUMBER_MAXIMUM), BeforeValidator(_refuse_flag)]
SecretLength = Annotated[int, Field(ge=16, le=1024), BeforeValidator(_refuse_flag)]
Tier = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_refuse_flag)]
Positive = Annotated[int, Field(ge=1, le=NUMBER_MAXIMUM), BeforeValidator(_refuse_flag)]
RetentionMonths = Annotated[int, Field(ge=1, le=1200), BeforeValidator(_refuse_flag)]
GraceSeconds = Annotated[int, Field(ge=0, le=GRACE_SECONDS_MAXIMUM), BeforeValidator(_refuse_flag)]
TokenSeconds = Annotated[int, Field(ge=1, le=TOKEN_SECONDS_MAXIMUM), BeforeValidator(_refuse_flag)]
Seconds = Annotated[
    float,
    AfterValidator(_check_seconds),
    BeforeValidator(_refuse_flag),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": SECONDS_MAXIMUM}),
]
NoSeconds = Annotated[
    float,
    AfterValidator(_check_no_seconds),
    BeforeValidator(_refuse_flag),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": SECONDS_MAXIMUM}),
]
Share = Annotated[
    float,
    AfterValidator(_check_share),
    BeforeValidator(_refuse_flag),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
Flag = Annotated[bool, BeforeValidator(_refuse_number)]

AddressText = Annotated[
    Address,
    PlainValidator(read_address),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^.+:[0-9]{1,5}$"}),
]
TargetText = Annotated[
    Target,
    PlainValidator(read_target),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^https?://[^/?#@]+/?$"}),
]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_read_network), WithJsonSchema({"type": "string"})]
Feature = Annotated[
    bool | int | str,
    PlainValidator(_read_feature),
    WithJsonSchema({"type": ["boolean", "integer", "string"]}),
]
Dsn = Annotated[
    SecretStr,
    AfterValidator(_store_url(r"postgres(ql)?://.", "is not the URL of a Postgres", 'Write "postgresql://..."')),
]
RedisUrl = Annotated[
    SecretStr,
    AfterValidator(
        _store_url(
            r"$|(rediss?(\+(sentinel|cluster))?|unix)://.",
            "is not the URL of a Redis",
            'Write "redis://...", or leave it empty to do without.',
        )
    ),
]
PepperSecret = Annotated[SecretStr, AfterValidator(_check_long_secret)]
SealingKey = Annotated[SecretStr, AfterValidator(_check_long_secret)]
UrlPath = Annotated[str, AfterValidator(_check_path)]
RoutePath = Annotated[UrlPath, AfterValidator(_check_route_path)]

EnvironmentName = Annotated[
    str,
    Shape(
        r"[a-z][a-z0-9-]{0,15}",
        "an environment",
        "Use a lower-case letter and then up to 15 lower-case letters, digits or '-' ('_' separates it in keys).",
    ),
]
KeyPrefix = Annotated[
    str,
    Shape(
        r"[a-z][a-z0-9]{0,15}",
        "a prefix of keys",
        "Use a lower-case letter and then up to 15 lower-case letters or digits.",
    ),
]
Name = Annotated[
    str,
    Shape(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "a name",
        "Use a letter or a digit and then up to 63 letters, digits, '.', '_' or '-'.",
    ),
]
HeaderName = Annotated[
    str,
    Shape(
        r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
        "the name of a header",
        "Use a letter or a digit and then up to 63 letters, digits, '-' or '_'.",
    ),
]
QueryName = Annotated[
    str,
    Shape(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "the name of a query parameter",
        "Use a letter or a digit and then up to 63 letters, digits, '.', '_' or '-'.",
    ),
]
Subprotocol = Annotated[
    str,
    Shape(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "the name of a WebSocket subprotocol",
        "Use a letter or a digit and then up to 63 letters, digits, '.', '_' or '-'.",
    ),
]
SCOPE_SHAPE = r"[A-Za-z0-9:._*-]{1,64}"  # of those that keys have
Scope = Annotated[str, Shape(r"[A-Za-z0-9:._*-]+", "a scope", "Use letters, digits and the signs : . _ * - alone.")]
Party = Annotated[
    str,
    Shape(
        r"[\x21-\x7e]{1,256}",
        "the name of an issuer or an audience",
        "Write a URL or a name of up to 256 visible ASCII characters.",
    ),
]
ProviderUrl = Annotated[str, AfterValidator(check_provider_url)]
ClaimName = Annotated[
    str,
    Shape(
        r"[\x21-\x7e]{1,256}",
        "the name of a claim",
        "Write its name, or the way to it with dots, such as realm_access.roles.",
    ),
]
ProviderName = Annotated[
    str,
    Shape(
        r"[^\x00-\x1f\x7f]{1,256}",
        "the name of a role or a group",
        "Write it as the provider does, in up to 256 characters.",
    ),
]
KeyScope = Annotated[str, Shape(SCOPE_SHAPE, "a scope", "Use 1 to 64 letters, digits and the signs : . _ * - alone.")]
KeysUrl = Annotated[
    str,
    Shape(
        rf"(?:https://{_HOST}|http://(?:localhost|127\.0\.0\.1|\[::1\]))(?::[0-9]{{1,5}})?/[!-~]*",
        "the URL of public keys",
        "Write an https URL with a path; http is for loopback addresses alone.",
    ),
]
CollectorUrl = Annotated[
    str,
    Shape(
        rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:/[A-Za-z0-9/._~-]*)?",
        "the URL of a collector",
        'Write "http://host:4318", without a user name or a query.',
    ),
]
PORTAL_PATH: Final = "/portal"
# Its cookies, which over https are called __Host-...; the proxy keeps them from everybody else.
SESSION_COOKIE: Final = "ostiary_session"
SIGN_IN_COOKIE: Final = "ostiary_sign_in"
PORTAL_UPSTREAM: Final = ".portal"  # where a route names it; a configured upstream cannot begin with a dot
PortalUrl = Annotated[
    str,
    Shape(
        rf"https://{_HOST}(?::[0-9]{{1,5}})?|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{{1,5}})?",
        "the URL of the portal",
        "Write scheme, host and port alone, such as https://keys.example.com; http is for loopback addresses alone.",
    ),
]
PublicUrl = Annotated[
    str,
    Shape(
        rf"https?://{_HOST}(?::[0-9]{{1,5}})?",
        "the URL of the gateway",
        "Write scheme, host and port alone, such as https://api.example.com.",
    ),
]
Method = Annotated[
    str,
    Shape(r"[A-Z][A-Z-]{0,31}", "a method", "Write it in capitals, such as GET."),
]
Origin = Annotated[
    str,
    Shape(
        rf"\*|https?://{_HOST}(?::[0-9]{{1,5}})?",
        "an origin",
        "Write scheme, host and port alone, such as https://app.example.com, or * for any.",
    ),
]
Protocol = Annotated[
    str,
    Shape(r"[a-z][a-z0-9._/-]{0,31}", "a protocol", "Write its name in lower case, such as websocket."),
]
HostName = Annotated[
    str,
    Shape(_HOST, "a host", "Write a host name without a scheme, a port or a wildcard."),
    AfterValidator(str.lower),
]
LimitWindow = Annotated[
    str,
    Shape(
        r"per_(second|minute|hour|day|month)",
        "the window of a limit",
        "Use per_second, per_minute, per_hour, per_day or per_month.",
    ),
]
SocketPath = Annotated[
    str,
    Shape(
        r"/[!-~]{1,99}",  # the system allows little more, and a name beside it is needed to begin with
        "the path of a socket",
        "Write a path from the root, of up to 100 visible ASCII characters, in a folder of the gateway's own.",
    ),
]
FilePath = Annotated[str, Shape(r"[^\0]+", "the path of a file", "Write the path of a PEM file.")]
