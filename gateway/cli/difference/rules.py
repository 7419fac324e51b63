"""How each setting is told: a table. A setting that is not in it is told as one that changed from a to b."""

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from gateway.cli.difference.change import ABSENT, Change, Context, Difference, Place, shown, worded
from gateway.cli.difference.tellers import (
    CLOSES,
    EVERYBODY,
    LESS,
    MORE,
    OPENS,
    OTHER,
    Teller,
    flag,
    items,
    networks,
    number,
    presence,
    ranked,
    replaced,
    worded_as,
)
from gateway.setting_rules import LIMIT_WINDOWS
from gateway.setting_values import Address

WIDTHS: Final = ("this machine alone", "one address of this machine", "every address of this machine")
SHARERS: Final = ("route", "tenant", "user", "key")  # each has more budgets than the one before it


def _listener(what: str) -> Teller:
    """A listener moves; one that more can reach opens."""

    def tell(difference: Difference, context: Context) -> Iterator[Change]:
        old, new = _width(difference.old), _width(difference.new)
        danger = OPENS if new > old else CLOSES if new < old else OTHER
        reach = "" if new == old else f": reachable at {WIDTHS[new]}"
        text = f"{what} listens at {difference.new} and not at {difference.old} any more{reach}"
        whom = EVERYBODY if difference.place[-1] == "proxy" else "operators"
        place = ".".join(difference.place)
        yield Change(danger, place, whom, text, str(difference.old), str(difference.new))

    return tell


def _width(address: Address) -> int:
    """How much of the network reaches a listener there."""
    if address.host == "localhost":
        return 0
    try:
        found = ip_address(address.host)
    except ValueError:
        return 1
    return 0 if found.is_loopback else 2 if found.is_unspecified else 1


def _database(dsn: SecretStr) -> tuple[list[str], str]:
    """The servers that a DSN names, and the database there."""
    parts = urlsplit(dsn.get_secret_value())
    hosts = parts.netloc.rpartition("@")[2].lower().split(",")
    return [host if host.rpartition("]")[2].count(":") else f"{host}:5432" for host in hosts], parts.path


def _dsn(difference: Difference, context: Context) -> Iterator[Change]:
    """The truth moves, or is only spoken to otherwise. Nothing of the address is shown."""
    if _database(difference.old) == _database(difference.new):
        text = "PostgreSQL is spoken to in another way (user, password or options); it is the same database"
        yield Change(OTHER, "postgres.dsn", "operators", text, shown(difference.old), shown(difference.new))
        return
    text = "keys, users and tenants are those of another database, or of the same at another address"
    yield Change(OPENS, "postgres.dsn", EVERYBODY, text, shown(difference.old), shown(difference.new))


def _pepper(difference: Difference, context: Context) -> Iterator[Change]:
    name, place = difference.place[-1], f"keys.peppers.{difference.place[-1]}"
    if difference.old is ABSENT:
        text, danger = f"pepper {name} is new: keys that were digested with it are accepted", OPENS
    else:
        how = "is gone" if difference.new is ABSENT else "is another secret"
        text, danger = f"pepper {name} {how}: keys that were last digested with it are no longer accepted", CLOSES
    yield Change(danger, place, "owners of keys", text, shown(difference.old), shown(difference.new))


def _plan_limit(difference: Difference, context: Context) -> Iterator[Change]:
    """`plan free drops from 60 to 10 per minute`."""
    _, name, _, window = difference.place
    words = window.replace("_", " ")
    old, new = (None if value is ABSENT else value for value in (difference.old, difference.new))
    whom = f"users of plan {name}, unless their entitlement says otherwise"
    place = f"plans.{name}.limits.{window}"
    if old is None:
        yield Change(CLOSES, place, whom, f"plan {name} is limited to {new} {words}", None, new)
    elif new is None:
        yield Change(OPENS, place, whom, f"plan {name} has no limit {words} any more (was {old})", old, None)
    else:
        verb, danger = ("rises", OPENS) if new > old else ("drops", CLOSES)
        yield Change(danger, place, whom, f"plan {name} {verb} from {old} to {new} {words}", old, new)


def _feature(difference: Difference, context: Context) -> Iterator[Change]:
    _, name, _, feature = difference.place
    old, new = (None if value is ABSENT else value for value in (difference.old, difference.new))
    whom = f"users of plan {name}, unless their entitlement says otherwise"
    place = f"plans.{name}.features.{feature}"
    if feature == "api_access" and (old is True) != (new is True):
        danger, said = (OPENS, "admitted from now on") if new is True else (CLOSES, "no longer admitted")
        yield Change(danger, place, whom, f"keys of users of plan {name} are {said} (api_access)", old, new)
        return
    danger = OPENS if new is True else CLOSES if old is True else OTHER
    text = f"plan {name}: feature {feature} is {worded(new)} (was {worded(old)})"
    yield Change(danger, place, whom, text, old, new)


def _admin_role(difference: Difference, context: Context) -> Iterator[Change]:
    """Roles and groups that make administrators."""
    kind, name = difference.place[-2].removesuffix("s"), difference.place[-1]
    place = f"oidc.admin_roles.{difference.place[-2]}.{name}"
    old, new = (None if value is ABSENT else value for value in (difference.old, difference.new))
    if new is None:
        text, danger = f"{kind} {name} makes no {old} any more", CLOSES
    else:
        text, danger = f"{kind} {name} makes a {new}" + ("" if old is None else f" and no {old}"), OPENS
        danger = CLOSES if (old, new) == ("tenant-admin", "auditor") else OPENS
    yield Change(danger, place, f"users who sign in with {kind} {name}", text, old, new)


def _credential(difference: Difference, context: Context) -> Iterator[Change]:
    name = difference.place[-1]
    is_new = difference.old is ABSENT
    text = f"keys are {'accepted' if is_new else 'no longer accepted'} in {name}"
    values = shown(difference.old), shown(difference.new)
    yield Change(OPENS if is_new else CLOSES, f"credentials[{name}]", EVERYBODY, text, *values)


def _targets(difference: Difference, context: Context) -> Iterator[Change]:
    """Servers come and go; requests that go without TLS now are worse."""
    name = difference.place[1]
    old, new = {str(one) for one in difference.old}, {str(one) for one in difference.new}
    whom, place = f"callers of routes to upstream {name}", f"upstreams.{name}.targets"
    is_plain = any(one.startswith("http:") for one in new) and not any(one.startswith("http:") for one in old)
    for verb, some in (("go to", new - old), ("no longer go to", old - new)):
        if some:
            text = f"requests to upstream {name} {verb} {', '.join(sorted(some))}"
            is_worse = verb == "go to" and is_plain
            text += ", without TLS" if is_worse else ""
            yield Change(OPENS if is_worse else OTHER, place, whom, text, sorted(old), sorted(new))


def _route_limit(difference: Difference, context: Context) -> Iterator[Change]:
    name, limit = difference.place[1], difference.place[3]
    is_new = difference.old is ABSENT
    one: Any = difference.new if is_new else difference.old
    counts = {window: getattr(one, window) for window in LIMIT_WINDOWS}
    sizes = ", ".join(f"{count} {window.replace('_', ' ')}" for window, count in counts.items() if count)
    refuses = one.mode == "enforce"
    text = f"route {name} {'is limited' if is_new else 'is no longer limited'} to {sizes} by {one.by} ({limit})"
    danger = OTHER if not refuses else CLOSES if is_new else OPENS
    values = shown(difference.old), shown(difference.new)
    yield Change(danger, f"routes.{name}.limits.{limit}", f"callers of route {name}", text, *values)


def _auth(difference: Difference, context: Context) -> Iterator[Change]:
    """Who is asked for a key. A route that asks less is there for more than those who have called it."""
    name = difference.place[1]
    danger, said, whom = {
        "none": (OPENS, "becomes public: nobody is asked for a key", EVERYBODY),
        "optional": (OPENS, "lets callers in without a key", EVERYBODY),
        "required": (CLOSES, "requires a key", f"callers of route {name}"),
    }[difference.new]
    if (difference.old, difference.new) == ("none", "optional"):
        danger, said = CLOSES, "refuses callers with a key that is not good; nobody needs one"
    place = f"routes.{name}.auth"
    yield Change(danger, place, whom, f"route {name} {said}", difference.old, difference.new)


def _mode(difference: Difference, context: Context) -> Iterator[Change]:
    """Whether nodes count together; where nothing is said of it, they do if there is a Redis."""
    is_shared = difference.new == "shared" or (difference.new is None and context.new.redis is not None)
    danger, text = (
        (CLOSES, "all nodes count together")
        if is_shared
        else (OPENS, "each node counts for itself: what is allowed multiplies by the number of nodes")
    )
    yield Change(danger, "limits.mode", EVERYBODY, text, shown(difference.old), shown(difference.new))


def _addresses(difference: Difference, context: Context) -> Iterator[Change]:
    """A route has address rules of its own, or none any more; what is told is what that changes."""
    client = {"old": context.old.client.addresses, "new": context.new.client.addresses}
    old, new = difference.old or client["old"], difference.new or client["new"]
    for name in ("allow", "deny"):
        one, other = getattr(old, name), getattr(new, name)
        if set(one) != set(other):
            yield from _TABLE[f"routes.*.addresses.{name}"](Difference((*difference.place, name), one, other), context)


_REQUIRE = "route {name} "
_LIMIT_WINDOW = number("route {name}: limit {third}, requests {words},", dangers=MORE)

_TABLE: Final[dict[str, Teller]] = {
    "environment": replaced(
        (OPENS, "keys and tokens of environment {new} are accepted"),
        (CLOSES, "keys and tokens of environment {old} are no longer accepted"),
    ),
    # -- listeners
    "listen.proxy": _listener("the gateway"),
    "listen.admin": _listener("the management API"),
    "listen.status": _listener("the status listener"),
    "listen.tls": presence(
        (CLOSES, "callers have to use TLS; plain HTTP is no longer answered"),
        (OPENS, "callers use plain HTTP: keys travel in the clear, unless something in front ends TLS"),
    ),
    "listen.proxy_protocol": flag(
        (CLOSES, "connections without a PROXY protocol header of a trusted proxy are refused"),
        (OPENS, "connections need no PROXY protocol header; who a client is, the socket says or X-Forwarded headers"),
    ),
    # -- stores and keys
    "postgres.dsn": _dsn,
    "redis": presence(
        (OTHER, "Redis is used: nodes share what they know of keys, and hear of changes at once"),
        (OTHER, "Redis is no longer used: each node asks PostgreSQL by itself"),
    ),
    "redis.url": replaced((OTHER, "another Redis is used, or the same at another address")),
    "keys.prefix": replaced(
        (CLOSES, "keys that begin with {old}_ are no longer accepted, except as imported ones"),
        (OPENS, "keys that begin with {new}_ are accepted, and made"),
    ),
    "keys.max_per_user": number("the number of keys that a user may own", dangers=MORE),
    "keys.issuance": worded_as(
        {
            "open": (OPENS, "new API keys are made, except for tenants whose own issuance is closed"),
            "closed": (CLOSES, "no new API key is made, except for tenants whose own issuance is open"),
        }
    ),
    "keys.grace_seconds": number("how long a rotated secret still works", "seconds", dangers=MORE),
    "keys.imported": presence(
        (OPENS, "imported secrets, in shapes of their own, are accepted: {value}"),
        (CLOSES, "imported secrets are no longer accepted"),
    ),
    "keys.imported.length_minimum": number("the length of the shortest imported secret", "characters", dangers=LESS),
    "keys.imported.length_maximum": number("the length of the longest imported secret", "characters", dangers=MORE),
    "keys.verify_per_minute": number("how many secrets an administrator may verify", "per minute", dangers=MORE),
    "keys.peppers.*": _pepper,
    "keys.peppers": replaced((OTHER, "new digests are made with pepper {new} and no longer with {old}")),
    # -- how long a node trusts what it knows
    "cache.bound_seconds": number(
        "how long a node that hears of no changes goes on admitting keys that may have been revoked",
        "seconds",
        dangers=MORE,
    ),
    "cache.without_postgres": worded_as(
        {
            "serve": (OPENS, "nodes that hear of changes through Redis alone serve on, and may miss a revocation"),
            "refuse": (CLOSES, "nodes that hear of changes through Redis alone refuse callers"),
        }
    ),
    "cache.serve_isolated_seconds": number(
        "how long known keys are served with neither PostgreSQL nor Redis, revoked or not,", "seconds", dangers=MORE
    ),
    # -- access tokens
    "tokens": presence(
        (OPENS, "access tokens can be minted from keys, and are accepted by routes that say so"),
        (CLOSES, "access tokens are no longer minted or accepted"),
    ),
    "tokens.issuer": replaced((CLOSES, "tokens issued by {old} are no longer accepted; those of {new} are")),
    "tokens.audience": replaced((CLOSES, "tokens for {old} are no longer accepted; those for {new} are")),
    "tokens.sealing_key": replaced(
        (CLOSES, "another sealing key does not open the signing keys: no token is minted until these are withdrawn")
    ),
    "tokens.default_seconds": number("how long a token lives", "seconds", dangers=MORE),
    "tokens.rotate_after_seconds": number("how long a signing key signs", "seconds", dangers=MORE),
    "tokens.leeway_seconds": number("how long beyond its end a token is accepted", "seconds", dangers=MORE),
    # -- users who sign in
    "oidc": presence(
        (OPENS, "users may sign in at a provider, and make keys of their own: {value}"),
        (CLOSES, "users can no longer sign in"),
    ),
    "oidc.issuer": replaced(
        (OPENS, "who signs in at {new} is believed"), (CLOSES, "who signs in at {old} is no longer believed")
    ),
    "oidc.audience": replaced(
        (OPENS, "access tokens for {new} are believed"), (CLOSES, "access tokens for {old} are no longer believed")
    ),
    "oidc.jwks_url": replaced((OPENS, "the provider's keys are read at {new} (was {old})")),
    "oidc.algorithms": items(
        (OPENS, "access tokens signed by {items} are accepted"), (CLOSES, "those signed by {items} no longer are")
    ),
    "oidc.claims.user_id": replaced((OPENS, "users are known by the claim {new} and no longer by {old}")),
    "oidc.claims.tenant_id": replaced((OPENS, "the tenant of a user has to be that of claim {new} (was {old})")),
    "oidc.claims.roles": replaced((OPENS, "roles are those of claim {new} and no longer of {old}")),
    "oidc.claims.groups": replaced((OPENS, "groups are those of claim {new} and no longer of {old}")),
    "oidc.admin_roles.roles.*": _admin_role,
    "oidc.admin_roles.groups.*": _admin_role,
    "oidc.key_scopes": items(
        (OPENS, "users may give {items} to keys that they make"), (CLOSES, "users may no longer give {items} to keys")
    ),
    "oidc.leeway_seconds": number("how far the provider's clock may be off", "seconds", dangers=MORE),
    "oidc.refresh_seconds": number("how long a withdrawn key of the provider is believed", "seconds", dangers=MORE),
    "oidc.outage_seconds": number(
        "how long the provider's keys are believed while they cannot be read", "seconds", dangers=MORE
    ),
    "github_secret_scanning": presence(
        (OTHER, "GitHub may report leaked keys: {value}"), (OPENS, "GitHub's reports of leaked keys are not taken")
    ),
    "github_secret_scanning.action": worded_as(
        {
            "revoke": (CLOSES, "a key that GitHub reports as leaked is revoked"),
            "report": (OPENS, "a key that GitHub reports as leaked goes on working: it is only put on record"),
        }
    ),
    "github_secret_scanning.public_keys_url": replaced(
        (OPENS, "reports are believed that are signed by the keys at {new}, and not those at {old}")
    ),
    # -- where a key may stand, and who says who a client is
    "credentials.*": _credential,
    "trusted_proxies": networks(
        (OPENS, "{items} may say who its clients are"), (CLOSES, "{items} may no longer say who its clients are")
    ),
    "trusted_header": replaced((OPENS, "who a client is, trusted proxies say in {new} and no longer in {old}")),
    **{
        f"identity_headers.{fact}": replaced(
            (
                OPENS,
                "upstreams are told " + fact + " in {new} and no longer in {old}: an upstream that still reads {old}"
                " believes whoever sends it",
            )
        )
        for fact in (
            "user_id", "tenant_id", "key_id", "environment", "auth_kind", "scopes", "plan", "request_id", "assertion",
        )
    },
    "client.addresses.allow": networks(
        (OPENS, "{items} may use the gateway, where a route says nothing else"),
        (CLOSES, "{items} may no longer use it, where a route says nothing else"),
        empty_is_all=True,
    ),
    "client.addresses.deny": networks(
        (CLOSES, "{items} may no longer use the gateway, where a route says nothing else"),
        (OPENS, "{items} may use it, where a route says nothing else"),
    ),
    "client.connection_limit": number("the number of open connections", dangers=MORE),
    "client.address_connection_limit": number("the number of open connections of an address", dangers=MORE),
    # -- upstreams
    "upstreams.*": presence(
        (OTHER, "upstream {name} is new: {value}"), (OTHER, "upstream {name} is gone")
    ),
    "upstreams.*.targets": _targets,
    "upstreams.*.tls": presence(
        (OTHER, "upstream {name} is verified, and met, by files of its own: {value}"),
        (OTHER, "upstream {name} is verified by what the system believes, and met without a certificate"),
    ),
    "upstreams.*.tls.ca": replaced((OPENS, "upstream {name} is believed by certificates of {new} (was {old})")),
    "upstreams.*.concurrency": number("requests under way to upstream {name}, from each node,", dangers=MORE),
    "upstreams.*.assertion": flag(
        (OTHER, "upstream {name} is told who is calling in a signed form as well"),
        (OPENS, "upstream {name} is no longer told who is calling in a signed form, which alone it could verify"),
    ),
    # -- routes
    "routes.*": presence((OTHER, "route {name} is new: {value}"), (OTHER, "route {name} is gone")),
    "routes.*.name": replaced(
        (OTHER, "route {old} is called {new}: in metrics and logs, and limits of its own begin anew")
    ),
    "routes.*.auth": _auth,
    "routes.*.require.scopes": items(
        (CLOSES, _REQUIRE + "now requires scope {items}"), (OPENS, _REQUIRE + "no longer requires scope {items}")
    ),
    "routes.*.require.features": items(
        (CLOSES, _REQUIRE + "now requires feature {items}"), (OPENS, _REQUIRE + "no longer requires feature {items}")
    ),
    "routes.*.require.tier": number("the tier that route {name} requires", dangers=LESS),
    "routes.*.tokens": flag(
        (OPENS, _REQUIRE + "accepts access tokens"), (CLOSES, _REQUIRE + "no longer accepts access tokens")
    ),
    "routes.*.upstream": replaced((OTHER, "requests of route {name} go to upstream {new} and no longer to {old}")),
    "routes.*.addresses": _addresses,
    "routes.*.addresses.allow": networks(
        (OPENS, "{items} may use route {name}"), (CLOSES, "{items} may no longer use route {name}"), empty_is_all=True
    ),
    "routes.*.addresses.deny": networks(
        (CLOSES, "{items} may no longer use route {name}"), (OPENS, "{items} may use route {name}")
    ),
    "routes.*.upgrades": items(
        (OPENS, _REQUIRE + "may switch to {items}"), (CLOSES, _REQUIRE + "may no longer switch to {items}")
    ),
    "routes.*.cors": presence(
        (OPENS, "pages of other origins may use route {name}: {value}"),
        (OTHER, "the gateway no longer speaks for route {name} to pages of other origins: its upstream does"),
    ),
    "routes.*.cors.origins": items(
        (OPENS, "pages of {items} may use route {name}"), (CLOSES, "pages of {items} may no longer use route {name}")
    ),
    "routes.*.cors.headers": items(
        (OPENS, "pages of other origins may send {items} to route {name}"),
        (CLOSES, "pages of other origins may no longer send {items} to route {name}"),
    ),
    "routes.*.close_revoked_streams": flag(
        (CLOSES, "open streams of route {name} end when their key does"),
        (OPENS, "open streams of route {name} go on when their key has been revoked"),
    ),
    "routes.*.cost": number("what a request of route {name} counts as", "requests", dangers=LESS),
    "routes.*.limits.*": _route_limit,
    **{
        f"routes.*.limits.*.{window}": _LIMIT_WINDOW
        for window in LIMIT_WINDOWS
    },
    "routes.*.limits.*.burst": number(
        "route {name}: limit {third}, requests at once,", dangers=MORE, none="all of a window's"
    ),
    "routes.*.limits.*.by": ranked(SHARERS, "route {name}: limit {third} is counted by {new} and no longer by {old}"),
    "routes.*.limits.*.mode": worded_as(
        {
            "shadow": (OPENS, "route {name}: limit {third} only counts, and refuses nobody"),
            "enforce": (CLOSES, "route {name}: limit {third} refuses what is over it"),
        }
    ),
    "routes.*.limits.*.without_redis": worded_as(
        {
            "serve": (OPENS, "route {name}: limit {third} is counted by each node alone while Redis does not answer"),
            "refuse": (CLOSES, "route {name}: callers are refused by limit {third} while Redis does not answer"),
        }
    ),
    # -- plans, and how they are counted
    "plans.*": presence(
        (OTHER, "plan {name} is declared: {value}"),
        (OTHER, "plan {name} is no longer declared here; in the database it stays as it is"),
    ),
    "plans.*.tier": number("the tier of plan {name}", dangers=MORE),
    "plans.*.features.*": _feature,
    "plans.*.limits.*": _plan_limit,
    "limits.mode": _mode,
    "limits.shared": worded_as(
        {
            "approximate": (OPENS, "nodes take some of a budget ahead, which may be exceeded by that"),
            "exact": (CLOSES, "no budget is exceeded: Redis is asked for each request"),
        }
    ),
    "limits.plan.by": ranked(
        ("tenant", "user", "key"), "what a plan allows is counted by {new} and no longer by {old}"
    ),
    "limits.key_concurrency": number("requests of a key under way at once, on each node,", dangers=MORE),
    "limits.unknown_keys_per_minute": number("look-ups of unknown keys of an address", "per minute", dangers=MORE),
}  # fmt: skip


def teller_of(place: Place) -> Teller | None:
    """Who tells of this place; None where nobody does."""
    return _TABLE.get(_pattern(place))


@lru_cache(maxsize=1024)
def _pattern(place: Place) -> str:
    """The place as the table has it: names that operators choose are stars."""
    parts: list[str] = []
    for part in place:
        parts.append("*" if _is_chosen(parts) else part)
    return ".".join(parts)


def _is_chosen(parts: list[str]) -> bool:
    """Whether what comes next is a name that an operator has chosen."""
    return ".".join(parts) in {
        "upstreams", "routes", "plans", "credentials", "keys.peppers", "routes.*.limits", "plans.*.limits",
        "plans.*.features", "oidc.admin_roles.roles", "oidc.admin_roles.groups",
    }  # fmt: skip
