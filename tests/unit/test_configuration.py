"""From a file to settings, or to every mistake at once."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.check import check
from gateway.configuration import ConfigurationError, json_schema, load, parse
from gateway.settings import Address, Settings, Target

EXAMPLE = Path(__file__).parents[2] / "config" / "gateway.yaml"
HEAD = 'environment: prod\npostgres: {dsn: "postgresql://u@h/d"}\n'

WHOLE = """\
environment: prod
listen: {proxy: "0.0.0.0:8080", admin: "127.0.0.1:8081", status: "127.0.0.1:8082"}
postgres: {dsn: "${OSTIARY_POSTGRES_DSN}"}
redis: {url: "${OSTIARY_REDIS_URL}"}              # optional
keys: {prefix: ost, max_per_user: 5, grace_seconds: 86400}
cache: {local_entries: 100000, ttl_seconds: 60, negative_ttl_seconds: 10, bound_seconds: 2}
tokens: {issuer: "https://api", audience: api, sealing_key: "${OSTIARY_SEALING_KEY}", default_seconds: 900}
credentials: [{header: Authorization}, {header: X-Api-Key}]   # Authorization means Bearer
trusted_proxies: []                               # whose X-Forwarded-* is believed
upstreams:
  orders: {targets: ["http://127.0.0.1:9001", "http://127.0.0.1:9002"], balance: round_robin, health: {path: /healthz},
           timeouts: {connect: 2, response: 30, idle: 60}, retries: {attempts: 2}, tls: {ca: ..., cert: ..., key: ...}}
routes:
  - {name: orders, paths: ["/orders"], upstream: orders, auth: required, strip_prefix: false,
     require: {scopes: ["orders:read"], features: [], tier: 0}, methods: [GET, POST], hosts: [],
     limits: [{per_minute: 60}], tokens: true}
  - {name: open, paths: ["/public"], upstream: orders, auth: none}
plans: {starter: {tier: 1, features: {api_access: true}, limits: {per_minute: 60, per_day: 1000}}}
"""
STORES = {
    "OSTIARY_POSTGRES_DSN": "postgresql://u:hunter2@db/x",
    "OSTIARY_REDIS_URL": "redis://:hunter2@cache",
    "OSTIARY_SEALING_KEY": "hunter2-" * 4,
}


def read(text: str, environ: Mapping[str, str] | None = None) -> Settings:
    return parse(text.encode(), "f.yaml", environ or {})


def mistakes(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the lines of a refusal, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        read(text, environ)
    return [line.removeprefix("f.yaml:") for line in caught.value.lines()]


async def test_every_form_of_the_file() -> None:
    """Every documented form loads as it is written."""
    settings = read(WHOLE, STORES)
    orders, route = settings.upstreams["orders"], settings.routes[0]
    assert settings.listen.proxy == Address("0.0.0.0", 8080)
    assert settings.postgres.dsn.get_secret_value() == STORES["OSTIARY_POSTGRES_DSN"]
    assert settings.redis is not None
    assert orders.targets == (Target("http", "127.0.0.1", 9001), Target("http", "127.0.0.1", 9002))
    assert orders.tls is not None
    assert orders.tls.ca == "..."
    assert route.require.scopes == ("orders:read",)
    assert route.methods == ("GET", "POST")
    assert settings.routes[1].auth == "none"
    assert settings.plans["starter"].features == {"api_access": True}
    assert settings.plans["starter"].limits == {"per_minute": 60, "per_day": 1000}


async def test_example_is_good() -> None:
    """config/gateway.yaml loads with nothing set."""
    settings = load(EXAMPLE, {})
    assert settings.redis is None


async def test_every_mistake_at_once() -> None:
    """Mistakes of every kind in one file are told together, each with its line, place and cure. R077."""
    text = """\
enviroment: prod
environment: Prod
postgres: {dsn: "${NOPE}"}
identity_headers: {user_id: x_api_key, plan: Host}
cache:
  ttl_seconds: .nan
  bound_seconds: [1]
upstreams:
  o: {targets: ["http://h"]}
routes:
  - {name: a, paths: [/a], upstream: oo, methods: [GET]}
  - name: a
    paths:
      - /b
      - /a
    upstream: o
    requires: {}
  - {paths: /c, upstream: o}
plans: {}
plans: {}
"""
    assert mistakes(text) == [
        '1: enviroment: is not a known setting. Did you mean "environment"?',
        "2: environment: is not an environment. Use a lower-case letter and then up to 15 lower-case letters, "
        "digits or '-' ('_' separates it in keys).",
        "3: postgres.dsn: needs the environment variable NOPE, which is not set. Set it, or write ${NOPE:-default}.",
        "4: identity_headers.user_id: is the header of credentials[1] too. Give each its own name.",
        "4: identity_headers.plan: is a header that HTTP or the proxy needs for itself. Choose another name.",
        "6: cache.ttl_seconds: is not a finite number. Write a number of seconds.",
        "7: cache.bound_seconds: is not a number. Write a number.",
        '11: routes[0].upstream: names no upstream of this file. Did you mean "o"?',
        "12: routes[1].name: is the name of routes[0] too. Give each its own.",
        "15: routes[1].paths[1]: is matched by routes[0] too, for the same host and method. "
        "Tell the routes apart by path, hosts or methods.",
        '17: routes[1].requires: is not a known setting. Did you mean "require"?',
        "18: routes[2].name: is missing. Add it.",
        "18: routes[2].paths: is not a list. Write a list, such as [first, second].",
        "20: plans: stands in line 19 already. Keep one of the two.",
    ]


@pytest.mark.parametrize(
    ("tail", "told"),
    [
        pytest.param(
            "listen: {admin: '0.0.0.0:8080'}", ["3: listen.admin: is the address of listen.proxy too"], id="listen"
        ),
        pytest.param(
            "listen: {proxy: '127.0.0.1:8081'}",
            ["3: listen.proxy: is the address of listen.admin too"],
            id="listen-default",
        ),
        pytest.param("listen: {admin: 'h:0', status: 'h:0'}", [], id="any-port-twice"),
        pytest.param(
            f"keys: {{peppers: [{{id: a, secret: {'x' * 32}}}, {{id: a, secret: {'y' * 32}}}]}}",
            ["3: keys.peppers[1].id: is the id of another pepper"],
            id="pepper",
        ),
        pytest.param(
            "keys: {imported: {length_minimum: 40, length_maximum: 30}}",
            ["3: keys.imported.length_minimum: is above length_maximum"],
            id="imported",
        ),
        pytest.param("keys: {imported: {length_minimum: 30, length_maximum: 30}}", [], id="imported-alike"),
        pytest.param(
            "credentials: [{header: X-Key}, {header: x_key}]",
            ["3: credentials[1].header: is the header of credentials[0] too"],
            id="credentials-twice",
        ),
        pytest.param(
            "credentials: [{header: X-User-Id}]",
            ["3: credentials[0].header: is the header of identity_headers.user_id too"],
            id="credential-is-identity",
        ),
        pytest.param(
            "credentials: [{header: Content-Length}]",
            ["3: credentials[0].header: is a header that HTTP or the proxy needs for itself"],
            id="framing",
        ),
        pytest.param(
            "upstreams: {u: {targets: ['http://h']}}\nroutes: [{name: r, paths: [/], upstream: u, tokens: true}]",
            ["4: routes[0].tokens: accepts tokens, and there are none"],
            id="tokens",
        ),
        pytest.param(
            "upstreams: {u: {targets: ['http://h'], assertion: true}}",
            ["3: upstreams.u.assertion: needs keys to sign by, and there are none"],
            id="assertion",
        ),
        pytest.param(
            f"tokens: {{issuer: i, audience: a b, sealing_key: {'x' * 31}, default_seconds: 2592001}}",
            [
                "3: tokens.audience: is not the name of an issuer or an audience",
                "3: tokens.sealing_key: is shorter than 32 characters",
                "3: tokens.default_seconds: is too large",
            ],
            id="bad-tokens",
        ),
        pytest.param(
            "oidc: {issuer: 'http://login.example.com', audience: a b, jwks_url: 'https://u:p@h',"
            " algorithms: [RS256, HS256], claims: {sub: x, roles: ''},"
            " admin_roles: {roles: {boss: operator}, groups: {'': auditor}},"
            " key_scopes: [a b], leeway_seconds: -1, refresh_seconds: 0, jwks: x}",
            [
                "3: oidc.issuer: is plain HTTP, by which anybody between can give keys of their own",
                "3: oidc.audience: is not the name of an issuer or an audience",
                "3: oidc.jwks_url: carries a user name or a password",
                "3: oidc.algorithms[1]: is none of the known values",
                "3: oidc.claims.roles: is not the name of a claim",
                "3: oidc.claims.sub: is not a known setting",
                "3: oidc.admin_roles.roles.boss: is none of the known values",
                '3: oidc.admin_roles.groups[""]: is not the name of a role or a group',
                "3: oidc.key_scopes[0]: is not a scope",
                "3: oidc.leeway_seconds: is not above zero",
                "3: oidc.refresh_seconds: is not above zero",
                "3: oidc.jwks: is not a known setting",
            ],
            id="bad-oidc",
        ),
        pytest.param("oidc: {issuer: 'https://h'}", ["3: oidc.audience: is missing"], id="oidc-without-audience"),
        pytest.param(
            "portal: {url: 'http://keys.example.com', client_id: a b, api_url: 'ftp://h', idle_seconds: 0}",
            [
                "3: portal.url: is not the URL of the portal",
                "3: portal.client_id: is not the name of an issuer or an audience",
                "3: portal.api_url: is not the URL of the gateway",
                "3: portal.idle_seconds: is not above zero",
                "3: portal: has nobody who signs in",
            ],
            id="portal",
        ),
        pytest.param(
            "oidc: {issuer: 'https://h', audience: api}\nportal: {url: 'https://k/portal', client_id: api}",
            [
                "4: portal.url: is not the URL of the portal",
                "4: portal.client_id: is oidc.audience too: ID tokens would do as access tokens",
            ],
            id="portal-as-audience",
        ),
        pytest.param(
            "routes: [{name: p, paths: [/keys], upstream: .portal}]",
            [
                "3: routes[0].upstream: leads to the portal, and there is none",
                "3: routes[0].paths: is not where the portal is",
                "3: routes[0].auth: asks for a key, which no browser sends",
            ],
            id="route-to-no-portal",
        ),
        pytest.param(
            "oidc: {issuer: 'https://h', audience: api}\nportal: {url: 'https://k', client_id: web}\n"
            "routes: [{name: p, paths: [/portal], upstream: .portal, auth: none, cors: {origins: ['https://a']}}]",
            ["5: routes[0].cors: is for pages of other sites"],
            id="portal-for-other-sites",
        ),
        pytest.param(
            "oidc: {issuer: 'https://h', audience: a, algorithms: []}",
            ["3: oidc.algorithms: is empty"],
            id="oidc-without-algorithms",
        ),
        pytest.param("oidc: {issuer: 'http://localhost:8090/realm', audience: a}", [], id="oidc-on-this-machine"),
        pytest.param(
            "oidc: {issuer: 'https://h/?a', audience: a, jwks_url: 'ftp://h'}",
            ["3: oidc.issuer: is not the URL of a provider", "3: oidc.jwks_url: is not the URL of a provider"],
            id="oidc-urls",
        ),
        pytest.param(
            "oidc: {issuer: 'https://h:0', audience: a, jwks_url: 'https://h:99999'}",
            ["3: oidc.issuer: is not the URL of a provider", "3: oidc.jwks_url: is not the URL of a provider"],
            id="oidc-ports",
        ),
        pytest.param(
            "oidc: {issuer: 'https://h', audience: a, outage_seconds: '299'}",
            ["3: oidc.outage_seconds: lets keys lapse before they are read again"],
            id="oidc-short-outage",
        ),
        pytest.param(
            "oidc: {issuer: 'https://h', audience: a, refresh_seconds: 3601}",
            ["3: oidc.refresh_seconds: lets keys lapse before they are read again"],
            id="oidc-long-refresh",
        ),
        pytest.param(
            f"tokens: {{issuer: 'https://h', audience: a, sealing_key: {'x' * 32}}}\n"
            "oidc: {issuer: 'https://h', audience: a}",
            ["4: oidc.issuer: is tokens.issuer too: tokens of keys would sign users in"],
            id="oidc-is-this-gateway",
        ),
        pytest.param(
            "upstreams: {u: {targets: ['http://h', 'http://h:80/']}}",
            ["3: upstreams.u.targets[1]: is listed twice"],
            id="target-twice",
        ),
        pytest.param(
            "upstreams: {u: {targets: ['http://h'], tls: {cert: c}}}",
            ["3: upstreams.u.tls: has one of cert and key without the other"],
            id="half-a-certificate",
        ),
        pytest.param(
            "upstreams: {a b: {targets: ['http://h']}}", ['3: upstreams["a b"]: is not a name'], id="upstream-name"
        ),
        pytest.param(
            "upstreams: {u: {targets: ['http://h:99999', 5]}}",
            [
                "3: upstreams.u.targets[0]: has a port that does not exist",
                "3: upstreams.u.targets[1]: is not the URL of a server",
            ],
            id="bad-items-make-no-empty-list",
        ),
        pytest.param(
            "keys: {grace_seconds: 2592001}\ncache: {ttl_seconds: 2147483648, serve_isolated_seconds: 1.0e+300}",
            [
                "3: keys.grace_seconds: is too large",
                "4: cache.ttl_seconds: is too large",
                "4: cache.serve_isolated_seconds: is too large",
            ],
            id="seconds-without-end",
        ),
        pytest.param("keys: {grace_seconds: 2592000}\ncache: {ttl_seconds: 2147483647}", [], id="many-seconds"),
        pytest.param("upstreams: {1: {targets: ['http://h']}, on: {targets: ['http://h']}}", [], id="plain-names"),
    ],
)
async def test_rules_between_settings(tail: str, told: list[str]) -> None:
    """What must differ differs, defaults included; what must go together does."""
    if told:
        assert [line.partition(". ")[0] for line in mistakes(HEAD + tail)] == told
    else:
        read(HEAD + tail)


@pytest.mark.parametrize(
    ("hosts", "is_good"),
    [
        pytest.param("h", True, id="host"),
        pytest.param("u:p%2F@h:5432", True, id="all"),
        pytest.param("h:1,h,[::1]:3", True, id="several"),
        pytest.param("%2Frun%2Fstore", True, id="encoded-path"),
        pytest.param("", True, id="socket"),
        pytest.param("u:hunter2@h:99999", False, id="large-port"),
        pytest.param("h:0", False, id="no-port"),
        pytest.param("h:hunter2", False, id="word-for-port"),
        pytest.param("h,h:hunter2", False, id="word-for-second-port"),
        pytest.param("[::1", False, id="half-a-bracket"),
        pytest.param("u:hunter2/x@h", False, id="slash-in-password"),
        pytest.param("u:hunter2#x@h", False, id="hash-in-password"),
    ],
)
async def test_hosts_of_stores(hosts: str, is_good: bool) -> None:
    """Whether the hosts in the URL of a store can be some is told with all other mistakes. R077."""
    text = f"environment: prod\npostgres: {{dsn: 'postgresql://{hosts}/d'}}\nredis: {{url: 'redis://{hosts}/0'}}"
    if is_good:
        read(text)
        return
    assert [line.partition(". ")[0] for line in mistakes(text)] == [
        "2: postgres.dsn: has a host or a port that is none",
        "3: redis.url: has a host or a port that is none",
    ]
    assert "hunter2" not in str(mistakes(text))


async def test_rules_hold_for_variables() -> None:
    """A flag or an empty text that comes from the environment breaks the same rules, each told at its own line."""
    text = HEAD + (
        'listen: {proxy_protocol: "${ON}"}\n'
        "upstreams: {u: {targets: ['http://h']}}\n"
        "routes:\n"
        '- {name: a, paths: [/a], upstream: u, tokens: "${ON}"}\n'
        '- {name: b, paths: [/b], upstream: u, tokens: "${ON}"}\n'
        'redis: {url: "${NONE:-}"}\n'
        "limits: {mode: shared}\n"
    )
    assert [line.partition(". ")[0] for line in mistakes(text, {"ON": "true"})] == [
        "3: listen.proxy_protocol: believes nobody while trusted_proxies is empty",
        "6: routes[0].tokens: accepts tokens, and there are none",
        "7: routes[1].tokens: accepts tokens, and there are none",
        "9: limits.mode: has nothing that nodes could share it by",
    ]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        pytest.param("paths: [/a]", "paths: [/a]", True, id="same"),
        pytest.param("paths: [/a]", "paths: [/a/b]", False, id="deeper"),
        pytest.param("paths: [/a], methods: [GET]", "paths: [/a], methods: [POST]", False, id="other-methods"),
        pytest.param("paths: [/a], methods: [GET]", "paths: [/b, /a], methods: [GET, PUT]", True, id="one-method"),
        pytest.param("paths: [/a], methods: [GET]", "paths: [/a]", True, id="any-method"),
        pytest.param("paths: [/a], hosts: [x]", "paths: [/a], hosts: [y]", False, id="other-hosts"),
        pytest.param("paths: [/a], hosts: [x, y]", "paths: [/a], hosts: [Y]", True, id="one-host"),
        pytest.param("paths: [/a], hosts: [x]", "paths: [/a]", False, id="named-host-before-any"),
        pytest.param("paths: [/a, /a]", "paths: [/b]", True, id="twice-in-one"),
        pytest.param("paths: [/a], auth: none, require: {tier: 1}", "paths: [/b]", True, id="open-with-requirement"),
        pytest.param("paths: [/a], auth: none, require: {tier: 0}", "paths: [/b]", False, id="open"),
    ],
)
async def test_routes_do_not_collide(one: str, other: str, told: bool) -> None:
    """No request matches two routes equally well, and no route asks for what it does not check."""
    text = HEAD + "upstreams: {u: {targets: ['http://h']}}\nroutes:\n"
    text += "".join(f"  - {{name: r{n}, upstream: u, {route}}}\n" for n, route in enumerate((one, other)))
    if told:
        assert len(mistakes(text)) == 1
    else:
        read(text)


@pytest.mark.parametrize(
    ("text", "environ", "value"),
    [
        pytest.param("${A}", {"A": "x"}, "x", id="set"),
        pytest.param("${A:-y}", {}, "y", id="default"),
        pytest.param("${A:-y}", {"A": ""}, "y", id="default-for-empty"),
        pytest.param("${A:-}", {}, "", id="empty-default"),
        pytest.param("<${A}-${B:-b}>", {"A": "a"}, "<a-b>", id="inside"),
        pytest.param("${A}", {"A": "${B}"}, "${B}", id="not-twice"),
        pytest.param("${A}", {"A": "x}, b: [1]\n# '\""}, "x}, b: [1]\n# '\"", id="no-structure"),
        pytest.param("$A $ $$", {}, "$A $ $$", id="no-variable"),
    ],
)
async def test_variables(text: str, environ: dict[str, str], value: str) -> None:
    """Variables are filled in after the YAML is read: a value is a text, whatever it holds."""
    settings = read(HEAD + f'plans: {{p: {{features: {{f: "{text}"}}}}}}', environ)
    assert settings.plans["p"].features == {"f": value}


async def test_variables_as_numbers() -> None:
    """A variable may give a number or a flag, and is refused where it gives none."""
    text = HEAD + 'keys: {max_per_user: "${N:-7}"}\ncache:\n  ttl_seconds: ${T}\n'
    settings = read(text, {"T": "1.5"})
    assert (settings.keys.max_per_user, settings.cache.ttl_seconds) == (7, 1.5)
    assert mistakes(text, {"T": "soon", "N": "x"}) == [
        "3: keys.max_per_user: is not a whole number. Write a whole number.",
        "5: cache.ttl_seconds: is not a number. Write a number.",
    ]


@pytest.mark.parametrize("value", ["", "-1", "0", "nan", "NaN", "inf", "-inf", "1e999", " ", "0x10", "2s"])
@pytest.mark.parametrize(
    "place",
    [
        pytest.param('keys: {max_per_user: "${N}"}', id="a number"),
        pytest.param('cache: {ttl_seconds: "${N}"}', id="a lifetime"),
        pytest.param('client: {idle_timeout_seconds: "${N}"}', id="a timeout"),
        pytest.param('listen: {proxy: "127.0.0.1:${N}"}', id="a port"),
    ],
)
async def test_variables_that_are_no_sane_number(place: str, value: str) -> None:
    """Empty, negative, zero and not a number are refused in any variable: no timeout is ever 0 s by accident. R078."""
    if place.startswith("listen") and value == "0":
        return  # a port that the system chooses
    told = mistakes(HEAD + place, {"N": value})
    assert len(told) == 1
    assert told[0].startswith(f"3: {place.partition(':')[0]}.")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param("${A} ${B}", ["needs the environment variable A", "needs the environment variable B"], id="unset"),
        pytest.param("${A", ["holds a variable that is not well-formed"], id="open"),
        pytest.param("${}", ["holds a variable that is not well-formed"], id="nameless"),
        pytest.param("${A-b}", ["holds a variable that is not well-formed"], id="form"),
        pytest.param("${A:-${B}}", ["holds a variable that is not well-formed"], id="nested"),
    ],
)
async def test_bad_variables(value: str, told: list[str]) -> None:
    """A variable without a value is a mistake that names it, and the only one at its place."""
    lines = mistakes(f'environment: prod\npostgres: {{dsn: "{value}"}}')
    assert [line.partition(": ")[2].partition(",")[0].partition(". ")[0] for line in lines] == [
        f"postgres.dsn: {what}" for what in told
    ]


async def test_unset_variables_are_told_once() -> None:
    """A value that could not be had causes no second mistake, neither of its own nor elsewhere."""
    text = (
        HEAD + 'listen: {proxy: "${P}", admin: "${P}"}\nupstreams: "${P}"\nroutes: [{name: a, paths: [/], upstream: u}]'
    )
    assert [line.split(": ")[1] for line in mistakes(text)] == ["listen.proxy", "listen.admin", "upstreams"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "1: environment: is missing", id="empty"),
        pytest.param(b"- a", "1: is not a mapping of settings", id="list"),
        pytest.param(b"a: [\nb", "2: is not well-formed YAML", id="open-bracket"),
        pytest.param(b"a: 1\n\tb: 2", "2: is not well-formed YAML", id="tab"),
        pytest.param(b"a: 1\n---\nb: 1", "2: is not well-formed YAML", id="two-documents"),
        pytest.param(b"a: 1\nb: *hunter2", "2: is not well-formed YAML (found undefined alias)", id="alias"),
        pytest.param(b"a: 1\nb: !hunter2!x y", "2: is not well-formed YAML (found undefined tag handle)", id="handle"),
        pytest.param(b"a: 1\nb: \xff", "2: is not UTF-8", id="bytes"),
        pytest.param(b"a: 1\nb: \x01", "2: holds a control character", id="control"),
        pytest.param(b"a: &x [*x]", "1: a[0]: contains itself", id="recursive"),
        pytest.param(b"a: !!python/object:os.system x", "1: a: has a tag that means nothing here", id="python"),
        pytest.param(b"a: !!binary eA==", "1: a: has a tag that means nothing here", id="binary"),
        pytest.param(b"a: !!set {x}", "1: a: has a tag that means nothing here", id="set"),
        pytest.param(b"a: 0b_", "1: a: is not the number that it looks like", id="number"),
        pytest.param(b"? [a]\n: 1", "1: has a key that is not a text", id="list-as-key"),
        pytest.param(b"a: 1\n<<: {b: 1}", '2: ["<<"]: merges another mapping', id="merge"),
        pytest.param(b'a: "\\ud800"', "1: a: is not UTF-8", id="surrogate"),
        pytest.param(b'"\\ud800": 1\nb: 1', "2: b: is not a known setting", id="surrogate-as-key"),
        pytest.param(b"[" * 5000, " is nested too deeply", id="deep"),
        pytest.param(
            b"\n".join(
                b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9 if n else [b"x"])) for n in range(9)
            ),
            " is nested too deeply, or too large",
            id="laughs",
        ),
    ],
)
async def test_not_a_configuration(content: bytes, told: str) -> None:
    """What is no YAML, or YAML that no configuration needs, is refused with its line, and not quoted."""
    with pytest.raises(ConfigurationError) as caught:
        parse(content, "f.yaml", {})
    assert any(line.startswith(f"f.yaml:{told}") for line in caught.value.lines())
    assert "hunter2" not in str(caught.value)


async def test_forms_of_texts() -> None:
    """A date, a byte order mark and an alias are no obstacle."""
    text = "\ufeff" + HEAD + "plans: {p: {features: &f {since: 2026-01-31, on: on}}, q: {features: *f}}"
    plans = read(text).plans
    assert plans["p"].features == plans["q"].features == {"since": "2026-01-31", "on": True}


async def test_no_value_is_quoted() -> None:
    """A mistake tells where and what, never the value: it may be a secret."""
    secret = "hunter2 hunter2"
    everywhere: dict[str, Any] = {
        "environment": secret,
        "postgres": {"dsn": secret},
        "redis": {"url": secret},
        "keys": {"prefix": secret, "max_per_user": secret, "peppers": [{"id": secret, "secret": secret}]},
        "listen": {"proxy": secret},
        "upstreams": {"u": {"targets": [f"http://{secret}@h", secret], "balance": secret, "health": {"path": secret}}},
        "routes": [{"name": secret, "paths": [secret], "upstream": secret, "auth": secret, "strip_prefix": secret}],
        "trusted_proxies": [secret],
        "credentials": [{"header": secret}],
    }
    told = "\n".join(mistakes(yaml.safe_dump(everywhere)))
    assert told.count("\n") >= 15
    assert "hunter2" not in told


def places(
    schema: dict[str, Any], node: dict[str, Any], place: tuple[str | int, ...] = ()
) -> Iterator[list[str | int]]:
    """Yield every place that a file may have; a list's item is 0, a free name is `per_day`."""
    if place:
        yield list(place)
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    for name, inner in node.get("properties", {}).items():
        yield from places(schema, inner, (*place, name))
    for inner in node.get("anyOf", []):
        yield from places(schema, inner, place)
    if "items" in node:
        yield from places(schema, node["items"], (*place, 0))
    for inner in node.get("patternProperties", {}).values():
        yield from places(schema, inner, (*place, "per_day"))


def at(place: list[str | int], value: Any) -> Any:
    """Return a document that has `value` at `place`, and nothing else."""
    for part in reversed(place):
        value = {part: value} if isinstance(part, str) else [value]
    return value


WRONG: list[Any] = [None, True, -1, 1.5, 10**4000, "", "\ud800", "no", [], ["x"], {}, {"x": 1}, float("nan"), [[]]]


async def test_every_refusal_is_a_sentence() -> None:
    """Whatever stands wherever, the mistake is told in our words, with a cure."""
    schema = json_schema()
    documents = [at(place, value) for place in places(schema, schema) for value in WRONG]
    assert len(documents) > 1000
    for document in documents:
        # JSON is YAML, and keeps the lone surrogate as an escape.
        content = json.dumps(document).replace("NaN", ".nan").encode()
        with pytest.raises(ConfigurationError) as caught:
            parse(content, "f.yaml", {})
        assert "is not acceptable" not in str(caught.value)


@given(st.binary(max_size=200))
async def test_garbage_never_crashes(content: bytes) -> None:
    """Any bytes are settings or a ConfigurationError."""
    with pytest.raises(ConfigurationError):
        parse(content, "f.yaml", {})


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=8)
_NAMES = st.sampled_from(
    [*Settings.model_fields, "targets", "name", "paths", "header", "upstream", "hosts", "tls", "x"]
)
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=15
)


@given(st.dictionaries(_NAMES, _TREES, max_size=6))
async def test_garbage_in_yaml_never_crashes(tree: dict[str, Any]) -> None:
    """Any YAML that lacks a Postgres is a ConfigurationError with a mistake in it."""
    content = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    with pytest.raises(ConfigurationError) as caught:
        parse(content, "f.yaml", {})
    assert caught.value.mistakes


def run(file: Path | None, schema: bool = False) -> tuple[int, str, str]:
    """Run `ostiary check`; return its exit code, stdout and stderr."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            check(file, schema)
        except typer.Exit as left:
            code = left.exit_code
    return code, out.getvalue(), err.getvalue()


async def test_check_good() -> None:
    """`ostiary check FILE` exits 0 and counts what it found."""
    assert run(EXAMPLE) == (0, f"{EXAMPLE}: ok (2 routes, 1 upstream)\n", "")


async def test_limits_that_cannot_be_kept_are_mistakes() -> None:
    """A limit without a window, and budgets that nodes have nothing to share by."""
    routes = (
        "upstreams: {o: {targets: ['http://h']}}\nroutes: [{name: a, paths: [/a], upstream: o, limits: [{by: key}]}]\n"
    )
    told = mistakes(HEAD + routes + "limits: {mode: shared}")
    assert [line.partition(". ")[0] for line in told] == [
        "4: routes[0].limits[0]: limits nothing",
        "5: limits.mode: has nothing that nodes could share it by",
    ]


async def test_check_bad(tmp_path: Path) -> None:
    """A bad, a missing and an unnamed file exit 2, with everything on stderr."""
    file = tmp_path / "f.yaml"
    file.write_text("environment: prod\nkeys: 1\n")
    assert run(file) == (
        2,
        "",
        f"{file}:1: postgres: is missing. Add it.\n"
        f"{file}:2: keys: is not a mapping. Write a mapping, such as {{name: value}}.\n",
    )
    missing = tmp_path / "missing.yaml"
    told = f"{missing}: cannot be read (No such file or directory). Name a file that can be read.\n"
    assert run(missing) == (2, "", told)
    assert run(None)[0] == 2


_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}


def fits(schema: dict[str, Any], node: dict[str, Any], value: Any) -> bool:
    """Whether the structure of `value` is that of `node`: known keys, required keys, lists and types."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if "anyOf" in node:
        return any(fits(schema, choice, value) for choice in node["anyOf"])
    kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
    if not any(isinstance(value, _TYPES.get(kind, type(None))) for kind in kinds):
        return False
    if isinstance(value, list):
        return all(fits(schema, node["items"], item) for item in value)
    if not isinstance(value, dict) or node.get("additionalProperties") is True:
        return True
    known, others = node.get("properties", {}), list(node.get("patternProperties", {}).values())
    return set(node.get("required", [])) <= set(value) and all(
        fits(schema, known[name], inner) if name in known else bool(others) and fits(schema, others[0], inner)
        for name, inner in value.items()
    )


async def test_schema() -> None:
    """`ostiary check --schema` prints a JSON Schema, draft 2020-12, that the example has the structure of."""
    code, printed, err = run(None, schema=True)
    schema = json.loads(printed)
    assert (code, err) == (0, "")
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["environment", "postgres"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["upstreams"]["additionalProperties"] is False
    assert schema["$defs"]["KeySettings"]["properties"]["max_per_user"]["anyOf"] == [
        {"minimum": 1, "maximum": 2**53 - 1, "type": "integer"},
        {"$ref": "#/$defs/Variable"},
    ]
    assert fits(schema, schema, yaml.safe_load(EXAMPLE.read_text()))
    assert fits(schema, schema, yaml.safe_load(WHOLE))
    assert not fits(schema, schema, yaml.safe_load(WHOLE + "unknown: 1"))
    assert not fits(schema, schema, yaml.safe_load(WHOLE.replace("paths", "path")))
