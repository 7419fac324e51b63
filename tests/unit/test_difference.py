"""What `ostiary diff` tells: a table of cases, nothing of a file and itself, and no setting that goes unnoticed."""

import copy
import json
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.cli.difference import Change, changes
from gateway.configuration import parse
from gateway.settings import Settings

SECRET = "hush-hush-" * 4
BASE: dict[str, Any] = {
    "environment": "prod",
    "postgres": {"dsn": f"postgresql://u:{SECRET}@db/ostiary"},
    "upstreams": {"api": {"targets": ["https://10.0.0.1:9001"]}, "other": {"targets": ["http://10.0.0.2:9001"]}},
    "routes": [
        {"name": "orders", "paths": ["/orders"], "upstream": "api", "methods": ["GET", "POST"]},
        {"name": "admin", "paths": ["/orders/admin"], "upstream": "api", "require": {"scopes": ["admin"]}},
        {"name": "open", "paths": ["/public"], "upstream": "api", "auth": "none"},
    ],
    "plans": {"free": {"features": {"api_access": True}, "limits": {"per_minute": 60}}},
}
PORTAL: dict[str, Any] = {
    "oidc": {"issuer": "https://login", "audience": "api"},
    "portal": {"url": "https://keys.example.com", "client_id": "web"},
    "routes": [*BASE["routes"], {"name": "portal", "paths": ["/portal"], "upstream": ".portal", "auth": "none"}],
}
TOKENS = {"issuer": "https://gw", "audience": "https://gw", "sealing_key": SECRET}
OIDC = {"issuer": "https://login", "audience": "api"}


def settings(document: dict[str, Any]) -> Settings:
    return parse(yaml.safe_dump(document).encode(), "f.yaml", {})


def edited(document: dict[str, Any], **edits: Any) -> dict[str, Any]:
    """A copy with these values laid into it; names are places with `__` between (`routes__0__auth`), None removes."""
    result = copy.deepcopy(document)
    for name, value in edits.items():
        *holders, last = name.split("__")
        here: Any = result
        for holder in holders:
            here = here[int(holder)] if isinstance(here, list) else here.setdefault(holder, {})
        if value is None:
            here.pop(int(last) if isinstance(here, list) else last)
        elif isinstance(here, list):
            here[int(last)] = value
        else:
            here[last] = value
    return result


def told(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    return [(change.danger.value, change.text) for change in changes(settings(old), settings(new))]


CASES = [
    ("route becomes public", {}, {"routes__0__auth": "none"}, "opens", "route orders becomes public"),
    ("key may be missing", {}, {"routes__0__auth": "optional"}, "opens", "route orders lets callers in without a key"),
    ("key is required", {}, {"routes__2__auth": "required"}, "closes", "route open requires a key"),
    (
        "public to optional",
        {},
        {"routes__2__auth": "optional"},
        "closes",
        "route open refuses callers with a key that is not good",
    ),
    ("scope added", {}, {"routes__0__require": {"scopes": ["y"]}}, "closes", "route orders now requires scope y"),
    ("scope gone", {}, {"routes__1__require": None}, "opens", "route admin no longer requires scope admin"),
    ("feature", {}, {"routes__0__require": {"features": ["x"]}}, "closes", "route orders now requires feature x"),
    ("tier", {}, {"routes__0__require": {"tier": 2}}, "closes", "route orders requires rises from 0 to 2"),
    ("plan drops", {}, {"plans__free__limits__per_minute": 10}, "closes", "plan free drops from 60 to 10 per minute"),
    ("plan rises", {}, {"plans__free__limits__per_minute": 90}, "opens", "plan free rises from 60 to 90 per minute"),
    (
        "plan unlimited",
        {},
        {"plans__free__limits__per_minute": -1},
        "opens",
        "plan free has no limit per minute any more (was 60)",
    ),
    ("plan limited", {}, {"plans__free__limits__per_day": 9}, "closes", "plan free is limited to 9 per day"),
    ("api access", {}, {"plans__free__features__api_access": False}, "closes", "no longer admitted (api_access)"),
    ("plan gone", {}, {"plans__free": None}, "other", "plan free is no longer declared here"),
    ("tokens accepted", {"tokens": TOKENS}, {"routes__0__tokens": True}, "opens", "orders accepts access tokens"),
    ("tokens set up", {}, {"tokens": TOKENS}, "opens", "access tokens can be minted"),
    ("tokens gone", {"tokens": TOKENS}, {"tokens": None}, "closes", "access tokens are no longer minted"),
    (
        "token life",
        {"tokens": TOKENS},
        {"tokens__default_seconds": 60},
        "closes",
        "how long a token lives drops from 900 to 60 seconds",
    ),
    ("sealing key", {"tokens": TOKENS}, {"tokens__sealing_key": SECRET[::-1]}, "closes", "another sealing key"),
    ("audience", {"oidc": OIDC}, {"oidc__audience": "b"}, "opens", "access tokens for b are believed"),
    ("issuer", {"oidc": OIDC}, {"oidc__issuer": "https://x"}, "opens", "who signs in at https://x is believed"),
    (
        "admin role",
        {"oidc": OIDC},
        {"oidc__admin_roles": {"roles": {"boss": "tenant-admin"}}},
        "opens",
        "role boss makes a tenant-admin",
    ),
    ("credential added", {}, {"credentials": [{"header": "Authorization"}, {"header": "X-Api-Key"}, {"query": "k"}]},
     "opens", "keys are accepted in query k"),
    ("credential gone", {}, {"credentials": [{"header": "Authorization"}]}, "closes",
     "keys are no longer accepted in header x-api-key"),
    ("trusted proxy", {}, {"trusted_proxies": ["10.0.0.0/8"]}, "opens", "10.0.0.0/8 may say who its clients are"),
    ("trusted header", {}, {"trusted_header": "Forwarded"}, "opens", "trusted proxies say in Forwarded"),
    ("identity header", {}, {"identity_headers__user_id": "X-Who"}, "opens", "still reads X-User-Id"),
    ("bound", {}, {"cache__bound_seconds": 9}, "opens", "rises from 2 to 9 seconds"),
    ("isolated", {}, {"cache__serve_isolated_seconds": 9}, "opens", "revoked or not"),
    ("prefix", {}, {"keys__prefix": "abc"}, "closes", "keys that begin with ost_ are no longer accepted"),
    ("environment", {}, {"environment": "dev"}, "closes", "environment prod are no longer accepted"),
    ("imported", {}, {"keys__imported": {}}, "opens", "imported secrets"),
    ("grace", {}, {"keys__grace_seconds": 0}, "closes", "how long a rotated secret still works drops from 86400 to 0"),
    ("database", {}, {"postgres__dsn": "postgresql://u:x@elsewhere/ostiary"}, "opens", "another database"),
    ("password", {}, {"postgres__dsn": "postgresql://v:x@db:5432/ostiary"}, "other", "it is the same database"),
    ("password of several", {"postgres": {"dsn": "postgresql://u:x@DB,[::1]:5432/o"}},
     {"postgres__dsn": "postgresql://u:y@db:5432,[::1]/o"}, "other", "it is the same database"),
    ("at the portal", PORTAL, {"routes__3__timeouts": {"idle": 5}}, "other", "5"),
    ("admin listener", {}, {"listen__admin": "0.0.0.0:8081"}, "opens", "every address of this machine"),
    ("admin port", {}, {"listen__admin": "127.0.0.1:9"}, "other", "listens at 127.0.0.1:9"),
    ("tls", {}, {"listen__tls": {"cert": "c", "key": "k"}}, "closes", "callers have to use TLS"),
    ("path added", {}, {"routes__2__paths": ["/public", "/x"]}, "opens", "any method on /x: exposed, by route open"),
    ("path gone", {}, {"routes__2__paths": ["/y"]}, "closes", "any method on /public: no longer served"),
    ("method added", {}, {"routes__0__methods": ["GET", "POST", "PUT"]}, "opens", "PUT on /orders: exposed"),
    ("method gone", {}, {"routes__0__methods": ["GET"]}, "closes", "POST on /orders: no longer served"),
    ("any method", {}, {"routes__0__methods": []}, "opens", "any method but GET, POST on /orders: exposed"),
    ("host", {}, {"routes__2__hosts": ["a.example"]}, "closes", "any host but a.example: no longer served"),
    (
        "a route that hid another one is gone",
        {},
        {"routes__1": None, "routes__0__auth": "none"},
        "opens",
        "GET, POST on /orders/admin: answered by route orders (public) and no longer by admin (key required, scopes",
    ),
    ("route gone", {}, {"routes__2": None}, "closes", "any method on /public: no longer served, by route open"),
    ("renamed", {}, {"routes__2__name": "free"}, "other", "route open is called free"),
    ("addresses", {}, {"routes__0__addresses": {"allow": ["10.0.0.0/8"]}}, "closes",
     "any address but 10.0.0.0/8 may no longer use route orders"),
    ("deny", {}, {"client__addresses": {"deny": ["192.0.2.1"]}}, "closes", "192.0.2.1 may no longer use the gateway"),
    ("cors", {}, {"routes__0__cors": {"origins": ["https://a.example"]}}, "opens", "pages of other origins"),
    ("streams", {}, {"routes__0__close_revoked_streams": False}, "opens", "go on when their key has been revoked"),
    ("route limit", {}, {"routes__0__limits": [{"per_minute": 5}]}, "closes", "limited to 5 per minute by user"),
    ("cost", {}, {"routes__0__cost": 2}, "closes", "rises from 1 to 2 requests"),
    ("guard", {}, {"limits__unknown_keys_per_minute": 5}, "closes", "drops from no limit to 5 per minute"),
    ("counting", {"redis": {"url": "redis://r"}}, {"limits__mode": "local"}, "opens", "each node counts for itself"),
    ("no Redis", {"redis": {"url": "redis://r"}}, {"redis": None}, "opens", "each node counts for itself"),
    ("plan by", {}, {"limits__plan__by": "key"}, "opens", "counted by key and no longer by user"),
    ("no TLS upstream", {}, {"upstreams__api__targets": ["http://10.0.0.1:9001"]}, "opens", "without TLS"),
    ("target", {}, {"upstreams__other__targets": ["http://10.0.0.3:9001"]}, "other", "go to http://10.0.0.3:9001"),
    ("timeout", {}, {"upstreams__api__timeouts": {"idle": 5}}, "other",
     "other setting upstreams.api.timeouts.idle changed from 60 to 5"),
]  # fmt: skip


# As dangerous on the way back.
EITHER_WAY = ("sealing key", "trusted proxies say in", "still reads", "another database")


@pytest.mark.parametrize(("first", "edits", "danger", "text"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_what_is_told(first: dict[str, Any], edits: dict[str, Any], danger: str, text: str) -> None:
    """A change of one thing, by its danger and in words; the way back has the opposite danger, or both."""
    old = {**BASE, **first}
    found = told(old, edited(old, **edits))
    assert any(one == danger and text in said for one, said in found), found
    back = told(edited(old, **edits), old)
    assert back, "the way back is a change, too"
    if {one for one, _ in found} in ({"opens"}, {"closes"}) and not any(one in text for one in EITHER_WAY):
        assert {one for one, _ in back} != {danger}, (found, back)


SAME = [
    ("order of methods", {"routes__0__methods": ["POST", "GET"]}),
    ("defaults", {"routes__0__auth": "required", "cache": {"ttl_seconds": 60.0}, "keys": {"prefix": "ost"}}),
    ("no limits", {"plans__free__limits": {"per_minute": 60, "per_hour": 0, "per_day": -1}}),
    ("header names", {"credentials": [{"header": "x-api-KEY"}, {"header": "authorization"}]}),
    ("networks", {"client": {"addresses": {"allow": ["0.0.0.0/1", "128.0.0.0/1"]}}}),
    ("empty Redis", {"redis": {"url": ""}}),
    ("mode", {"limits": {"mode": "local"}}),
    ("timeouts of the upstream", {"routes__0__timeouts": {"response": 30, "idle": 60}}),
    ("addresses of the client", {"routes__0__addresses": {"allow": ["0.0.0.0/0"]}}),
    ("hosts", {"routes__2__hosts": ["B.example", "a.EXAMPLE"]}),
]


@pytest.mark.parametrize("edits", [pytest.param(edits, id=name) for name, edits in SAME])
def test_other_spellings_are_no_change(edits: dict[str, Any]) -> None:
    """Order, defaults written out, and what is taken from elsewhere anyway."""
    first = edited(BASE, client={"addresses": {"allow": ["0.0.0.0/0"]}}, routes__2__hosts=["a.example", "b.example"])
    assert told(first, edited(first, **edits)) == []


def test_an_inherited_rule_is_told_once() -> None:
    """A route that says nothing of addresses follows the client's: that is told there."""
    new = edited(BASE, client={"addresses": {"allow": ["10.0.0.0/8"]}})
    assert [place.place for place in changes(settings(BASE), settings(new))] == ["client.addresses.allow"]


def test_what_opens_comes_first() -> None:
    """Ordered by danger, each with whom it is about."""
    new = edited(BASE, upstreams__api__timeouts={"idle": 5}, plans__free__limits__per_minute=10, routes__0__auth="none")
    found = changes(settings(BASE), settings(new))
    assert [change.danger.value for change in found] == ["opens", "closes", "other"]
    assert [change.whom.partition(",")[0] for change in found] == [
        "everybody",
        "users of plan free",
        "callers of routes to upstream api",
    ]


# -- nothing is silent

WHOLE: dict[str, Any] = {
    **BASE,
    "listen": {"tls": {"cert": "c", "key": "k"}},
    "postgres": {**BASE["postgres"], "replicas": [f"postgresql://u:{SECRET}@replica/ostiary"]},
    "redis": {"url": f"redis://:{SECRET}@r"},
    "keys": {"peppers": [{"id": "p", "secret": SECRET}], "imported": {}},
    "tokens": TOKENS,
    "oidc": {**OIDC, "admin_roles": {"roles": {"a": "auditor"}, "groups": {"b": "auditor"}}},
    "github_secret_scanning": {},
    "trusted_proxies": ["10.0.0.0/8"],
    "tracing": {"endpoint": "http://collector:4318"},
    "portal": {"url": "https://keys.example", "client_id": "portal", "client_secret": SECRET},
    "upstreams": {
        "api": {
            "targets": ["https://10.0.0.1:9001"],
            "health": {"path": "/healthz"},
            "retries": {"attempts": 2},
            "tls": {"ca": "ca"},
        },
        "other": {"targets": ["http://10.0.0.2:9001"]},
    },
    "routes": [
        {
            "name": "orders",
            "paths": ["/orders"],
            "upstream": "api",
            "addresses": {"allow": ["10.0.0.0/8"]},
            "cors": {"origins": ["https://a.example"]},
            "limits": [
                {"name": "l", "per_minute": 60, "per_second": 2, "per_hour": 99, "per_day": 99, "per_month": 99}
            ],
        },
    ],
}
# Where a value of the same type will not do.
OTHERS: dict[str, Any] = {
    "environment": "dev", "keys.prefix": "abc", "upstream": "other", "by": "key", "auth": "optional", "issuer": "x://y",
    "public_keys_url": "https://x/y", "jwks_url": "https://login/keys", "dsn": "postgresql://u@x/y", "mode": "shadow",
    "url": "redis://elsewhere", "sealing_key": SECRET[::-1], "secret": SECRET[::-1], "path": "/other",
    "trusted_header": "Forwarded", "without_postgres": "refuse", "without_redis": "refuse", "balance": "user_hash",
    "issuance": "closed",
    "shared": "exact", "action": "report", "targets": ["http://10.9.9.9:1"], "paths": ["/elsewhere"], "hosts": ["h"],
    "methods": ["PUT"], "scopes": ["s"], "features": ["f"], "allow": ["192.0.2.0/24"], "deny": ["192.0.2.0/24"],
    "trusted_proxies": ["192.0.2.0/24"], "origins": ["https://b.example"], "headers": ["X-New"], "upgrades": ["h2c"],
    "algorithms": ["EdDSA"], "key_scopes": ["s"], "replicas": ["postgresql://u@x/z"], "proxy": "127.0.0.1:1",
    "admin": "127.0.0.1:2", "status": "127.0.0.1:3", "oidc.issuer": "https://elsewhere", "limits.mode": "local",
    "length_minimum": 30, "length_maximum": 200, "assertion": True, "outage_seconds": 7200, "refresh_seconds": 60,
    "identity_headers.assertion": "X-Other", "identity_headers.scopes": "X-Other",
    "oidc.tenant_id": "t", "plans.limits": {"per_minute": 3}, "plans.features": {"api_access": False},
    "log.format": "json", "log.level": "debug", "log.access": "full", "access_share": 0.5,
    "handover": "/run/other.sock", "portal.url": "https://elsewhere", "api_url": "https://elsewhere",
    "endpoint": "http://elsewhere:4318", "tracing.share": 0.5,
    "credentials": [{"query": "q"}], "roles.a": "tenant-admin", "groups.b": "tenant-admin",
}  # fmt: skip
BEYOND = {"cert", "key"}  # come in pairs


def leaves(model: type[BaseModel], value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every setting that there is, in a document that has one of each kind."""
    for name, field in model.model_fields.items():
        inner: Any = field.annotation
        here: tuple[str | int, ...] = (*place, name)
        while not isinstance(inner, type) or get_origin(inner) is not None:
            kind, arguments = get_origin(inner), get_args(inner)
            if kind in {Union, types.UnionType}:
                inner = next((one for one in arguments if one is not types.NoneType), object)
            elif kind is tuple and isinstance(arguments[0], type) and issubclass(arguments[0], BaseModel):
                inner, here = arguments[0], (*here, 0)
            elif kind is dict and isinstance(arguments[1], type) and issubclass(arguments[1], BaseModel):
                inner, here = arguments[1], (*here, next(iter(getattr(value, name))))
            else:
                break
        at = getattr(value, name)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            at = at if len(here) == len(place) + 1 else next(iter(at.values() if isinstance(at, dict) else at))
            yield from leaves(inner, at, here)
        else:
            yield here


def other_value(place: tuple[str | int, ...], value: Any) -> Any:
    names = [part for part in place if isinstance(part, str)]
    known = [f"{names[0]}.{names[-1]}", names[-1], ".".join(names)]
    for name in known:
        if name in OTHERS:
            return OTHERS[name]
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 7
        case None:
            return 7
        case dict():
            return {}
        case _:
            return "Other"


EVERY = [place for place in leaves(Settings, settings(WHOLE)) if place[-1] not in BEYOND and place[0] != "credentials"]


def test_there_is_a_setting_of_each_kind() -> None:
    """The document above has all that the schema has: a setting that is added to the models is tried as well."""
    assert len(EVERY) > 120
    assert {str(place[0]) for place in EVERY} == set(Settings.model_fields) - {"credentials"}


@pytest.mark.parametrize("place", EVERY, ids=lambda place: ".".join(map(str, place)))
def test_no_setting_changes_silently(place: tuple[str | int, ...]) -> None:
    """Each setting of the schema: another value is told, where it is or by what requests it moves; no secret is."""
    here: Any = settings(WHOLE)
    for part in place:
        here = here[part] if isinstance(part, int) or isinstance(here, dict) else getattr(here, part)
    document = copy.deepcopy(WHOLE)
    holder: Any = document
    for part in place[:-1]:
        holder = holder[part] if isinstance(part, int) else holder.setdefault(part, {})
    holder[place[-1]] = other_value(place, here)
    found = changes(settings(WHOLE), settings(document))
    assert found, place
    text = json.dumps([change.shown() for change in found]) + "".join(change.text for change in found)
    assert SECRET not in text
    assert SECRET[::-1] not in text
    section = str(place[0])
    assert all(change.place.startswith(section) for change in found), (place, found)


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(st.sampled_from(["/", "/x", "/x/y", "/z"]), min_size=1, max_size=2, unique=True)
ROUTES = st.lists(
    st.fixed_dictionaries(
        {
            "name": NAMES,
            "paths": PATHS,
            "upstream": st.sampled_from(["api", "other"]),
            "auth": st.sampled_from(["required", "optional", "none"]),
            "methods": st.lists(st.sampled_from(["GET", "PUT"]), unique=True),
            "hosts": st.lists(st.sampled_from(["h.example", "i.example"]), unique=True),
        }
    ),
    max_size=3,
    unique_by=lambda route: route["name"],
)


def document_of(routes: list[dict[str, Any]]) -> dict[str, Any]:
    """With no path twice for one host and method: the first route keeps it."""
    taken: set[str] = set()
    kept = []
    for route in routes:
        paths = [path for path in route["paths"] if path not in taken]
        taken |= set(paths)
        kept += [{**route, "paths": paths}] if paths else []
    return {**BASE, "routes": kept}


@given(ROUTES, ROUTES)
def test_only_what_differs_is_told(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """A configuration against itself, in any order, says nothing; against another, something, unless it is the same."""
    first, second = document_of(one), document_of(other)
    assert told(first, {**first, "routes": first["routes"][::-1]}) == []
    found = told(first, second)

    def bare(document: dict[str, Any]) -> list[Any]:
        keyed = [
            {name: sorted(value) if isinstance(value, list) else value for name, value in route.items()}
            for route in document["routes"]
        ]
        return sorted(keyed, key=lambda route: str(route["name"]))

    assert bool(found) == (bare(first) != bare(second)), (first["routes"], second["routes"], found)


def test_a_change_is_told_as_an_object() -> None:
    """The shape that docs/cli.md promises."""
    (change,) = changes(settings(BASE), settings(edited(BASE, plans__free__limits__per_minute=10)))
    assert isinstance(change, Change)
    assert change.shown() == {
        "danger": "closes",
        "place": "plans.free.limits.per_minute",
        "whom": "users of plan free, unless their entitlement says otherwise",
        "text": "plan free drops from 60 to 10 per minute",
        "old": 60,
        "new": 10,
    }
