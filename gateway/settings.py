"""The configuration's schema, in one place: every setting, its type, unit, default and meaning.

The text under a setting is its description in the exported JSON Schema. Reading a file into a `Settings`, and telling
its mistakes, is the work of `gateway.configuration`. Must not know: YAML, files, the process environment.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gateway import setting_values as values
from gateway.setting_rules import broken_rules
from gateway.setting_values import Address, Target

__all__ = ["Address", "Settings", "Target"]

AdminRole = Literal["tenant-admin", "auditor"]
SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class ListenTls(_Model):
    """The certificate that the public listener shows. Replaced files are taken up without a restart."""

    cert: values.FilePath
    """The certificate and its chain, a PEM file."""
    key: values.FilePath
    """Its private key, a PEM file."""


class Listen(_Model):
    """Where the three listeners stand."""

    proxy: values.AddressText = Address("0.0.0.0", 8080)  # noqa: S104
    """The public listener: routes, and the gateway's own endpoints."""
    admin: values.AddressText = Address("127.0.0.1", 8081)
    """The management API. Keep it off the public network."""
    status: values.AddressText = Address("127.0.0.1", 8082)
    """Metrics and health."""
    tls: ListenTls | None = None
    """For the public listener. Null means plain HTTP, as behind a proxy that ends TLS."""
    proxy_protocol: values.Flag = False
    """Whether every public connection begins with a PROXY protocol header (version 1 or 2) of a trusted proxy."""
    handover: values.SocketPath | None = None
    """The Unix socket by which `serve --take-over` gets the listeners' sockets. Null means that nobody does."""


class DrainSettings(_Model):
    """How a gateway ends, and how it is replaced, without losing a request."""

    delay_seconds: values.NoSeconds = 3
    """From SIGTERM, when it says that it is not ready, for how long it goes on as before: until balancers know."""
    finish_seconds: values.Seconds = 30
    """For how long requests under way may take then. Sockets are told to go at once."""
    replaced_seconds: values.NoSeconds = 3600
    """For how long streams and sockets go on after a reload or a take-over, with the settings that they began with."""


class PostgresSettings(_Model):
    """The truth: tenants, users, keys, revisions."""

    dsn: values.Dsn
    """A `postgresql://` URL of the primary. A secret: it is never printed."""
    replicas: tuple[values.Dsn, ...] = ()
    """URLs of read replicas, asked for keys before the primary. What one does not know yet, the primary is asked."""


class RedisSettings(_Model):
    """The shared cache and push channel."""

    url: values.RedisUrl
    """The URL of a Redis. A secret: it is never printed. Empty means that there is none."""


class Pepper(_Model):
    """A secret of the installation that goes into the stored form of every key."""

    id: values.Name
    """Its name. Never reuse one for another secret."""
    secret: values.PepperSecret
    """At least 32 characters. A secret: it is never printed."""


class ImportedSecrets(_Model):
    """Secrets that were imported from elsewhere, in shapes of their own: visible ASCII, no shorter and no longer."""

    length_minimum: values.SecretLength = 20
    """Characters of the shortest one; at least 16. What is shorter is refused without a lookup."""
    length_maximum: values.SecretLength = 128
    """Characters of the longest one; at most 1024. What is longer is refused without a lookup."""


class KeySettings(_Model):
    """What keys look like, and how many a user may own."""

    prefix: values.KeyPrefix = "ost"
    """The first part of every secret; scanners for leaked secrets know it by this."""
    max_per_user: values.Positive = 5
    """Live keys that one user may own at a time."""
    issuance: Literal["open", "closed"] = "open"
    """Whether new keys are made at all, by whomever; what is set for a tenant counts before it."""
    grace_seconds: values.GraceSeconds = 86400
    """How long a rotated secret still works, unless the rotation says otherwise; at most 30 days."""
    imported: ImportedSecrets | None = None
    """Secrets from elsewhere. Null means none: what has not the gateway's own shape is never looked up."""
    verify_per_minute: values.Positive = 60
    """How many secrets an administrator may have verified in a minute, on each node."""
    peppers: tuple[Pepper, ...] = ()
    """The first is used for new digests; the others are still accepted, so that a pepper can be replaced."""


class CacheSettings(_Model):
    """How long answers about keys are kept, and for how long a node may trust them unseen."""

    local_entries: values.Positive = 100_000
    """Known keys that one node keeps in memory; unknown ones are kept apart."""
    ttl_seconds: values.Seconds = 60
    """How long an answer about a known key is kept before it is asked again."""
    negative_ttl_seconds: values.Seconds = 10
    """How long the answer that a key is unknown is kept."""
    bound_seconds: values.Seconds = 2.0
    """How old a node's knowledge of revocations may be; older, it trusts no cached answer."""
    without_postgres: Literal["serve", "refuse"] = "serve"
    """Whether a node that hears of changes through Redis alone serves on. `refuse` closes the one known gap."""
    serve_isolated_seconds: values.NoSeconds = 0
    """How long known keys are served beyond the bound with neither Postgres nor Redis. Above 0 breaks the promise."""


class MeteringSettings(_Model):
    """What callers use is counted by key, route, outcome and minute."""

    interval_seconds: values.Seconds = 15
    """How often a node writes what it has counted. One that is killed loses that much at most."""
    retention_months: values.RetentionMonths = 13
    """Whole months for which usage is kept, beside the present one; at most 1200."""


class TokenSettings(_Model):
    """Short-lived access tokens that callers mint from their keys: `POST /.ostiary/tokens`."""

    issuer: values.Party
    """Who issues them (`iss`); mostly this gateway's public URL."""
    audience: values.Party
    """For whom they are (`aud`), unless the caller names somebody else. Others are not accepted here."""
    sealing_key: values.SealingKey
    """Seals the signing keys in the database. At least 32 characters. A secret: it is never printed."""
    default_seconds: values.TokenSeconds = 900
    """How long a token lives whose caller does not say; at most 30 days."""
    rotate_after_seconds: values.Seconds = 2_592_000
    """How long a signing key signs before the next one does."""
    leeway_seconds: values.NoSeconds = 0
    """How long beyond its end a token is still accepted."""


class OidcClaims(_Model):
    """Where an access token says what. A name, or the way to it with dots: `realm_access.roles`."""

    user_id: values.ClaimName = "sub"
    """The id of the user, as `PUT /v1/users/{id}` has it."""
    tenant_id: values.ClaimName | None = None
    """The id of the tenant, which must be that of the user. Null: the token names none."""
    roles: values.ClaimName = "roles"
    """A list of roles."""
    groups: values.ClaimName = "groups"
    """A list of groups."""


class OidcAdminRoles(_Model):
    """Whom the management API takes for an administrator of their own tenant: by role or by group, one is enough."""

    roles: dict[values.ProviderName, AdminRole] = {}
    """`tenant-admin` or `auditor`, by the name of a role."""
    groups: dict[values.ProviderName, AdminRole] = {}
    """`tenant-admin` or `auditor`, by the name of a group."""


class OidcSettings(_Model):
    """Users who sign in at an OpenID provider, and call the management API with its access tokens."""

    issuer: values.ProviderUrl
    """The provider: `iss` of its tokens, to the letter."""
    audience: values.Party
    """What the provider calls this API (`aud` of its access tokens); not a client's id, which ID tokens have."""
    jwks_url: values.ProviderUrl | None = None
    """Where its public keys are. Null means where its `/.well-known/openid-configuration` says."""
    algorithms: tuple[SigningAlgorithm, ...] = Field(default=("RS256", "ES256"), min_length=1)
    """The signatures that are accepted: RS, PS and ES with 256, 384 and 512, and EdDSA."""
    claims: OidcClaims = OidcClaims()
    """Where a token says what."""
    admin_roles: OidcAdminRoles = OidcAdminRoles()
    """Who administrates their tenant."""
    key_scopes: tuple[values.KeyScope, ...] = ()
    """The scopes that users may give to keys that they make themselves."""
    leeway_seconds: values.NoSeconds = 30
    """How far the provider's clock may be off."""
    refresh_seconds: values.Seconds = values.REFRESH_SECONDS
    """How often its public keys are read again. One that it withdraws is believed for as long, if it can be asked."""
    outage_seconds: values.Seconds = values.OUTAGE_SECONDS
    """For how long they are believed while they cannot be read again. Then users get 503."""


class PortalSettings(_Model):
    """Pages on which users look after their own keys, at `/portal`. They sign in at the provider of `oidc`."""

    url: values.PortalUrl
    """Where browsers find it: `https://keys.example.com`. The provider sends them to `/portal/callback` there."""
    client_id: values.Party
    """What the provider calls the portal, which is a client of it (`aud` of its ID tokens)."""
    client_secret: SecretStr | None = None
    """The secret of that client. Null, or an empty one, means a public client, by PKCE alone. It is never printed."""
    scopes: tuple[values.KeyScope, ...] = ("openid", "profile")
    """What the provider is asked for at sign-in; `openid` is always among it."""
    api_url: values.PublicUrl | None = None
    """Where callers reach the gateway, for lines to copy. Null means the address of `listen.proxy`."""
    idle_seconds: values.Seconds = 3600
    """A session ends when nobody was seen in it for so long."""
    session_seconds: values.Seconds = 43_200
    """A session ends so long after the sign-in, however busy it is."""

    @field_validator("client_secret", mode="after")
    @classmethod
    def _empty_means_none(cls, secret: SecretStr | None) -> SecretStr | None:
        return secret if secret is not None and secret.get_secret_value() else None


class GithubSecretScanning(_Model):
    """Reports of leaked keys by GitHub's partner programme: `POST /v1/secret-scanning/github`."""

    action: Literal["revoke", "report"] = "revoke"
    """What is done with a key that is found: `revoke` ends it, `report` only puts the leak on record."""
    public_keys_url: values.KeysUrl = "https://api.github.com/meta/public_keys/secret_scanning"
    """Where GitHub's public keys are: `https`, or `http` on a loopback address."""


class CredentialPlace(_Model):
    """A place of a request where a key may stand: exactly one of these. It is removed before forwarding."""

    header: values.HeaderName | None = None
    """A header. `Authorization` means the Bearer scheme; any other holds the bare key."""
    query: values.QueryName | None = None
    """A parameter of the query: a last resort, since URLs end up in histories and in the logs of what is in front."""
    websocket_protocol: values.Subprotocol | None = None
    """For browsers, which can set no header: the key follows this name in `Sec-WebSocket-Protocol`."""

    @property
    def name(self) -> str:
        """The header, parameter or protocol."""
        return self.header or self.query or self.websocket_protocol or ""


class IdentityHeaders(_Model):
    """The headers that tell the upstream who is calling. Removed from every request of a client."""

    user_id: values.HeaderName = "X-User-Id"
    """The owner of the key."""
    tenant_id: values.HeaderName = "X-Tenant-Id"
    """The tenant of that user."""
    key_id: values.HeaderName = "X-Key-Id"
    """The key; rotation does not change it."""
    environment: values.HeaderName = "X-Key-Environment"
    """The environment of the key."""
    auth_kind: values.HeaderName = "X-Auth-Kind"
    """`key`, `operator` or `token`."""
    scopes: values.HeaderName = "X-Scopes"
    """The scopes of the key or the token, separated by spaces."""
    plan: values.HeaderName = "X-Plan"
    """The plan of the user."""
    request_id: values.HeaderName = "X-Request-Id"
    """The name of this request in logs and replies."""
    assertion: values.HeaderName = "X-Identity-Assertion"
    """The same facts, signed, for upstreams that ask for it. Nobody else's is ever passed on."""


class Addresses(_Model):
    """From where a route may be used: addresses or networks. Behind trusted proxies it is their client that counts."""

    allow: tuple[values.Network, ...] = ()
    """Only from these. Empty means from anywhere."""
    deny: tuple[values.Network, ...] = ()
    """Never from these, allowed or not."""


class ClientSettings(_Model):
    """Bounds on what a client may send, on how slowly, and from where."""

    head_limit_bytes: values.Positive = 32_768
    """Request line and headers together; more is answered 431."""
    line_limit_bytes: values.Positive = 8192
    """The request line, more is answered 414; and each header line, more is answered 431."""
    header_count_limit: values.Positive = 100
    """Headers of a request; more is answered 431."""
    body_limit_bytes: values.Whole | None = None
    """The body of a request, where its route sets no limit; more is answered 413. Null means no limit."""
    head_timeout_seconds: values.Seconds = 10
    """From a request's first byte to the end of its headers, later is 408; before it, for TLS, and for silence."""
    body_timeout_seconds: values.Seconds = 30
    """Between two pieces of a request's body; later is answered 408."""
    idle_timeout_seconds: values.Seconds = 75
    """How long a connection may wait for its next request."""
    connection_limit: values.Positive | None = None
    """Open connections in all; one more is closed at once. Null means no limit."""
    address_connection_limit: values.Positive | None = None
    """Open connections of one client address (IPv6: one /64), trusted proxies apart. Null means no limit."""
    addresses: Addresses = Addresses()
    """From where the gateway may be used, where a route does not say otherwise; others are answered 403."""


class Health(_Model):
    """Active checks of an upstream's servers."""

    path: values.UrlPath
    """The path that is asked; a status of 200 to 399 is a good answer."""
    interval_seconds: values.Seconds = 5
    """Between two checks of a target."""
    timeout_seconds: values.Seconds = 2
    """An answer that takes longer is a bad one."""
    unhealthy_after: values.Positive = 2
    """Bad answers in a row after which a target is left out."""
    healthy_after: values.Positive = 1
    """Good answers in a row after which it is asked again."""


class Timeouts(_Model):
    """How long an upstream may take, in seconds."""

    connect: values.Seconds = 2
    """To accept a connection, in seconds."""
    response: values.Seconds = 30
    """From the end of the request to the head of the response, in seconds."""
    idle: values.Seconds = 60
    """Between two pieces of a response, in seconds. The length of a response in all is not limited."""


class Retries(_Model):
    """Second tries of requests that may be repeated."""

    attempts: values.Positive
    """Tries in all, the first one included. Repeated is what was not sent, or may be sent twice without harm."""


class UpstreamTls(_Model):
    """How the gateway and an `https` upstream know each other. Paths of PEM files."""

    ca: values.FilePath | None = None
    """Whose certificates are believed. Null means those that the system believes."""
    cert: values.FilePath | None = None
    """The gateway's own certificate."""
    key: values.FilePath | None = None
    """The private key of that certificate."""


class Upstream(_Model):
    """An HTTP API behind the gateway: one or more servers that are alike."""

    targets: tuple[values.TargetText, ...] = Field(min_length=1)
    """The servers, as URLs without a path."""
    balance: Literal["round_robin", "least_connections", "power_of_two", "user_hash"] = "round_robin"
    """How requests are spread over the targets: in turn, to the least busy, to the less busy of two, or by user."""
    health: Health | None = None
    """Active health checks. Null means none."""
    timeouts: Timeouts = Timeouts()
    """How long this upstream may take."""
    retries: Retries | None = None
    """Second tries. Null means none."""
    tls: UpstreamTls | None = None
    """For `https` targets. Null means the system's defaults."""
    concurrency: values.Positive | None = None
    """Requests that may be under way to it at once, from each node; more are answered 503. Null means no limit."""
    assertion: values.Flag = False
    """Whether it is sent who is calling in a signed form as well, so that it needs not trust the network."""


class Requirement(_Model):
    """What a caller must have, beside a valid key."""

    scopes: tuple[values.Scope, ...] = ()
    """All of these."""
    features: tuple[values.Name, ...] = ()
    """All of these features of the entitlement must be true."""
    tier: values.Tier = 0
    """At least this tier."""


class Cors(_Model):
    """Pages of which other origins may use a route. The upstream's own Access-Control headers are replaced."""

    origins: tuple[values.Origin, ...] = Field(min_length=1)
    """Origins as browsers send them, such as `https://app.example.com`, or `*` for any."""
    headers: tuple[values.HeaderName, ...] = ("Authorization", "X-Api-Key", "Content-Type", "X-Request-Id")
    """Headers that such a page may send."""
    max_age_seconds: values.Whole = 600
    """How long a browser may remember the answer to a preflight."""


class RouteTimeouts(_Model):
    """How long a route's requests may take, in seconds. Null means as its upstream says."""

    response: values.Seconds | None = None
    """From the end of the request to the head of the response, in seconds."""
    idle: values.Seconds | None = None
    """Between two pieces of a response, in seconds."""


class RouteLimit(_Model):
    """How many requests a route takes. At least one window; all of them hold."""

    name: values.Name | None = None
    """What callers see it called. Null means as `by` says."""
    by: Literal["key", "user", "tenant", "route", "address"] = "user"
    """Whose requests are counted together. Callers without a key count by their address."""
    per_second: values.Positive | None = None
    """Requests in a second."""
    per_minute: values.Positive | None = None
    """Requests in a minute."""
    per_hour: values.Positive | None = None
    """Requests in an hour."""
    per_day: values.Positive | None = None
    """Requests in a day, from 00:00 UTC."""
    per_month: values.Positive | None = None
    """Requests in a month, from 00:00 UTC of its first day."""
    burst: values.Positive | None = None
    """How many of a second's, minute's or hour's requests may come at once. Null means all."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow` counts what it would refuse, and refuses nothing."""
    without_redis: Literal["serve", "refuse"] = "serve"
    """Where Redis is to count and does not answer: go on by the node's own counts, or refuse (503)."""


class Route(_Model):
    """Requests that are answered by one upstream. The longest path that matches wins."""

    name: values.Name
    """Its name in metrics and logs."""
    paths: tuple[values.RoutePath, ...] = Field(min_length=1)
    """Each matches itself and everything under it."""
    upstream: str
    """The name of an upstream; `.portal` stands for the gateway's own pages, at `/portal`."""
    auth: Literal["required", "optional", "none"] = "required"
    """Whether a caller needs a key, may have one, or is not asked."""
    strip_prefix: values.Flag = False
    """Whether the matched path is taken off before the request goes upstream."""
    require: Requirement = Requirement()
    """What a caller must have, beside a valid key."""
    methods: tuple[values.Method, ...] = ()
    """The methods that match. Empty means any."""
    hosts: tuple[values.HostName, ...] = ()
    """The hosts that match, in lower case and without a port. Empty means any."""
    limits: tuple[RouteLimit, ...] = ()
    """Limits of this route, beside those of the caller's plan."""
    cost: values.Positive = 1
    """How many requests one of this route counts as."""
    tokens: values.Flag = False
    """Whether short-lived tokens are accepted beside keys. Needs `tokens` to be set up."""
    body_limit_bytes: values.Whole | None = None
    """The body of a request; more is answered 413. Null means the limit of `client`."""
    timeouts: RouteTimeouts = RouteTimeouts()
    """Where this route is slower, or must be quicker, than its upstream otherwise."""
    addresses: Addresses | None = None
    """From where this route may be used. Null means as `client` says."""
    upgrades: tuple[values.Protocol, ...] = ("websocket",)
    """Protocols, in lower case, that a client and the upstream may switch to."""
    cors: Cors | None = None
    """Null means that the upstream answers for itself."""
    close_revoked_streams: values.Flag = True
    """Whether an open stream, upload or socket ends when its key is no longer admitted."""


class Plan(_Model):
    """What a user has bought. Entitlements name a plan and may override its features and limits."""

    tier: values.Tier = 0
    """Its rank; routes can ask for at least one."""
    features: dict[values.Name, values.Feature] = {}
    """By name. Without `api_access: true` no key of the user is admitted."""
    limits: dict[values.LimitWindow, values.Allowance] = {}
    """Requests by window: `per_second`, `per_minute`, `per_hour`, `per_day`, `per_month`. -1 and 0 limit nothing."""


class PlanLimits(_Model):
    """How the limits of plans are counted."""

    by: Literal["user", "key", "tenant"] = "user"
    """Who shares what a plan allows: all keys of a user, each key alone, or all keys of a tenant."""


class LogSettings(_Model):
    """What is written to standard output, a line for each event."""

    format: Literal["text", "json"] = "text"
    """`json`: an object in each line. `text`: for people."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is less than this is not written."""
    access: Literal["off", "sampled", "full"] = "off"
    """Whether requests are logged: none, some and those that failed, or all."""
    access_share: values.Share = 0.01
    """How many of the requests that went well `sampled` logs; 0.01 is one of a hundred."""


class TracingSettings(_Model):
    """Traces of requests, sent to a collector of OpenTelemetry. Needs the extra `otel`."""

    endpoint: values.CollectorUrl
    """The collector, which takes OTLP over HTTP, such as `http://collector:4318`."""
    share: values.Share = 0.01
    """How many of the requests that come without a trace get one. Those that come with one go by what it says."""


class LimitSettings(_Model):
    """How limits of plans and routes are counted."""

    mode: Literal["local", "shared"] | None = None
    """`local`: each node for itself. `shared`: all nodes together, by Redis. Null means shared where there is Redis."""
    shared: Literal["approximate", "exact"] = "approximate"
    """`exact`: a call of Redis for each request. `approximate`: nodes take a little ahead, warm requests ask nobody."""
    patience_seconds: values.Seconds = 0.025
    """How long a request waits for Redis before its node counts alone; ten times as long where it may not go on so."""
    plan: PlanLimits = PlanLimits()
    """How the limits of plans are counted."""
    key_concurrency: values.Positive | None = None
    """Requests of one key that may be under way at once, on each node. Null means no limit."""
    unknown_keys_per_minute: values.Positive | None = None
    """Unknown keys of one client address that are looked up in a minute. Null means no limit."""


class Settings(_Model):
    """The whole configuration. Immutable; secrets in it are masked when printed."""

    environment: values.EnvironmentName
    """The name of this installation's environment; it stands in every key and in every name in Redis."""
    listen: Listen = Listen()
    """Where the three listeners stand."""
    drain: DrainSettings = DrainSettings()
    """How a gateway ends, and how it is replaced."""
    postgres: PostgresSettings
    """The truth: tenants, users, keys, revisions."""
    redis: RedisSettings | None = None
    """The shared cache and push channel. Null, or an empty URL, means none: correct, and slower."""
    keys: KeySettings = KeySettings()
    """What keys look like, and how many a user may own."""
    cache: CacheSettings = CacheSettings()
    """How long answers about keys are kept."""
    metering: MeteringSettings = MeteringSettings()
    """What callers use is counted by key, route, outcome and minute."""
    tokens: TokenSettings | None = None
    """Short-lived access tokens. Null means that there are none."""
    oidc: OidcSettings | None = None
    """Users who sign in at an OpenID provider. Null means that nobody does."""
    portal: PortalSettings | None = None
    """Pages for users, at `/portal`. Null means that there are none."""
    github_secret_scanning: GithubSecretScanning | None = None
    """Reports of leaked keys by GitHub. Null means that none are taken."""
    credentials: tuple[CredentialPlace, ...] = Field(
        default=(CredentialPlace(header="Authorization"), CredentialPlace(header="X-Api-Key")), min_length=1
    )
    """The places of a request where a key may stand."""
    trusted_proxies: tuple[values.Network, ...] = ()
    """Whose word on their own clients is believed: addresses or networks."""
    trusted_header: Literal["X-Forwarded-For", "Forwarded"] = "X-Forwarded-For"
    """In which headers they give it: X-Forwarded-For, -Proto and -Host, or Forwarded (RFC 7239). Not both."""
    identity_headers: IdentityHeaders = IdentityHeaders()
    """The headers that tell the upstream who is calling."""
    client: ClientSettings = ClientSettings()
    """Bounds on what a client may send."""
    upstreams: dict[values.Name, Upstream] = {}
    """The HTTP APIs behind the gateway, by name."""
    routes: tuple[Route, ...] = ()
    """Which requests go to which upstream, and who may send them."""
    plans: dict[values.Name, Plan] = {}
    """What users can buy, by name."""
    limits: LimitSettings = LimitSettings()
    """How limits of plans and routes are counted."""
    log: LogSettings = LogSettings()
    """What is written to standard output."""
    tracing: TracingSettings | None = None
    """Traces of requests. Null means that the gateway makes none, and passes on what comes."""

    @field_validator("redis", mode="after")
    @classmethod
    def _empty_url_means_no_redis(cls, redis: RedisSettings | None) -> RedisSettings | None:
        return redis if redis is not None and redis.url.get_secret_value() else None

    @model_validator(mode="after")
    def _keep_the_rules(self) -> Self:
        for broken in broken_rules(self):
            what = f"{broken.what} (at {'.'.join(map(str, broken.place))})"
            # With the settings: whoever knows the lines of the file tells every broken rule at its own.
            told = {"what": what, "cure": broken.cure, "settings": self}
            raise PydanticCustomError("mistake", "{what}. {cure}", told)
        return self
