"""The models: defaults, shapes of values, and the reference that is printed from them."""

import types
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from gateway.settings import Address, IdentityHeaders, Listen, Pepper, Route, Settings, Target, Upstream

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"
LEAST = {"environment": "prod", "postgres": {"dsn": "postgresql://ostiary@localhost/ostiary"}}


def shown_default(default: Any) -> str:
    """Return a default as the reference prints it."""
    if default is PydanticUndefined:
        return "*required*"
    if default is None:
        return "none"
    if isinstance(default, tuple):
        shown = (one if isinstance(one, str) else f"{{header: {one.name}}}" for one in default)
        return f"`[{', '.join(shown)}]`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:.10g}`" if isinstance(default, int | float) else f"`{default}`"


def shown_unit(place: str, name: str) -> str:
    if name.endswith("_seconds") or ".timeouts." in place:
        return "seconds"
    return "bytes" if name.endswith("_bytes") else ""


def reference_rows(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """Yield the row of each setting that has a value of its own: place, unit, default, meaning."""
    for name, field in model.model_fields.items():
        here, inner, suffix = f"{place}{name}", field.annotation, ""
        while not isinstance(inner, type) or get_origin(inner) is not None:
            kind, arguments = get_origin(inner), get_args(inner)
            if kind in {Union, types.UnionType}:
                inner = next((one for one in arguments if one is not types.NoneType), object)
            elif kind is tuple:
                inner, suffix = arguments[0], "[]"
            elif kind is dict:
                inner, suffix = arguments[1], ".NAME"
            else:
                break
        group = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        if group is None or (suffix and field.default):
            unit, default = shown_unit(here, name), shown_default(field.default)
            yield f"| `{here}` | {unit} | {default} | {field.description} |"
        if group is not None:
            yield from reference_rows(group, f"{here}{suffix}.")


async def test_reference_tells_the_defaults() -> None:
    """docs/configuration.md lists every setting with its unit, its default and its meaning. R385."""
    printed = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| `")]
    assert printed == list(reference_rows(Settings))


async def test_least_configuration() -> None:
    """An environment and a Postgres are all that must be named; the rest has defaults."""
    settings = Settings.model_validate(LEAST)
    assert [str(settings.listen.proxy), str(settings.listen.admin), str(settings.listen.status)] == [
        "0.0.0.0:8080",
        "127.0.0.1:8081",
        "127.0.0.1:8082",
    ]
    assert [place.header for place in settings.credentials] == ["Authorization", "X-Api-Key"]
    assert settings.redis is None
    assert settings.routes == ()


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("https://api.github.com/meta/public_keys/secret_scanning", True),
        ("https://keys.example:8443/", True),
        ("http://127.0.0.1:9000/keys", True),
        ("http://[::1]:9000/keys", True),
        ("http://localhost/keys", True),
        ("http://api.github.com/keys", False),
        ("http://127.0.0.1.example.com/keys", False),
        ("http://localhost.example.com/keys", False),
        ("https://api.github.com", False),
        ("https://user@api.github.com/keys", False),
        ("ftp://api.github.com/keys", False),
    ],
)
async def test_public_keys_come_over_tls(url: str, is_one: bool) -> None:
    """Whoever could put other keys in their place could revoke any key whose secret is known."""
    document = {**LEAST, "github_secret_scanning": {"public_keys_url": url}}
    if is_one:
        scanning = Settings.model_validate(document).github_secret_scanning
        assert scanning is not None
        assert (scanning.public_keys_url, scanning.action) == (url, "revoke")
    else:
        with pytest.raises(ValidationError):
            Settings.model_validate(document)
    assert Settings.model_validate(LEAST).github_secret_scanning is None


async def test_empty_redis_url_means_none() -> None:
    """A Redis whose URL is an empty text is no Redis, so that a variable alone turns it on."""
    assert Settings.model_validate(LEAST | {"redis": {"url": ""}}).redis is None
    given = Settings.model_validate(LEAST | {"redis": {"url": "rediss://r:6380/1"}}).redis
    assert given is not None
    assert given.url.get_secret_value() == "rediss://r:6380/1"


async def test_secrets_are_masked() -> None:
    """No secret stands in the repr or in the JSON of the settings. R325."""
    settings = Settings.model_validate(
        {
            "environment": "prod",
            "postgres": {"dsn": "postgresql://u:hunter2@db/x"},
            "redis": {"url": "redis://:hunter2@r"},
            "keys": {"peppers": [{"id": "a", "secret": "hunter2" * 10}]},
        }
    )
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


async def test_models_are_frozen() -> None:
    """Nothing changes the configuration after the start."""
    with pytest.raises(ValidationError):
        Settings.model_validate(LEAST).environment = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("0.0.0.0:8080", Address("0.0.0.0", 8080), id="ipv4"),
        pytest.param("[::1]:0", Address("::1", 0), id="ipv6"),
        pytest.param("localhost:65535", Address("localhost", 65535), id="name"),
    ],
)
async def test_addresses(text: str, address: Address) -> None:
    """A listener's address is "host:port"; port 0 lets the system choose; its text reads back as itself."""
    listen = Listen.model_validate({"proxy": text})
    assert listen.proxy == address
    assert str(listen.proxy) == text


@pytest.mark.parametrize(
    "text",
    ["", ":80", "8080", "h:65536", "h:-1", "h:x", "::1:80", "[::1", "[v]:1", "a b:1", "300.1.1.1:80", "*:80", "h:٣"],
)
async def test_bad_addresses(text: str) -> None:
    """What is no address is refused."""
    with pytest.raises(ValidationError, match="is not an address"):
        Listen.model_validate({"proxy": text})


@pytest.mark.parametrize(
    ("text", "target"),
    [
        pytest.param("http://127.0.0.1:9001", Target("http", "127.0.0.1", 9001), id="plain"),
        pytest.param("http://orders", Target("http", "orders", 80), id="default-port"),
        pytest.param("https://[::1]/", Target("https", "::1", 443), id="ipv6-tls-slash"),
    ],
)
async def test_targets(text: str, target: Target) -> None:
    """A target is a URL without a path; its port defaults to that of the scheme."""
    assert Upstream.model_validate({"targets": [text]}).targets == (target,)
    assert Upstream.model_validate({"targets": [str(target)]}).targets == (target,)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://h",
        "h:80",
        "http://",
        "http://h:0",
        "http://h:99999",
        "http://h/x",
        "http://h?x",
        "http://h#x",
        "http://u:p@h",
        "http://u@h",
        "http://h\r\n",
        "HTTP://h:1x",
        "http://[1.2.3.4]",
        "http://1.2.3",
        "http:///",
    ],
)
async def test_bad_targets(text: str) -> None:
    """Whatever else a URL may hold is refused, credentials above all, and never quoted. R342."""
    with pytest.raises(ValidationError) as caught:
        Upstream.model_validate({"targets": [text]})
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x",
        "/a/",
        "//",
        "/a//b",
        "/./a",
        "/a/..",
        "/..",
        "/%41",
        "/a?b",
        "/a#b",
        "/a b",
        "/ä",
        "/a\\b",
        "/a\n",
        "/.ostiary",
        "/.ostiary/tokens",
    ],
)
async def test_bad_paths(path: str) -> None:
    """A route's path is canonical, so that what is matched is what is meant, and never one of the gateway's own."""
    with pytest.raises(ValidationError):
        Route.model_validate({"name": "r", "paths": [path], "upstream": "u"})


@pytest.mark.parametrize("path", ["/", "/a", "/a.b/c", "/...", "/a/~x;y=1,2", "/.ostiaryx", "/.well-known"])
async def test_good_paths(path: str) -> None:
    """Every canonical path is accepted as it is."""
    assert Route.model_validate({"name": "r", "paths": [path], "upstream": "u"}).paths == (path,)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        pytest.param("methods", ["GET", "M-SEARCH"], ["get", "", "GE T", "GET\n"], id="methods"),
        pytest.param("hosts", ["a.b-c.d", "[::1]", "h_1"], ["*.a", "h:80", "a/b", "-a", "a..b", ""], id="hosts"),
    ],
)
async def test_texts_of_a_route(field: str, good: list[str], bad: list[str]) -> None:
    """Methods are in capitals; hosts have neither port nor wildcard."""
    least = {"name": "r", "paths": ["/"], "upstream": "u"}
    assert getattr(Route.model_validate(least | {field: good}), field) == tuple(good)
    for text in bad:
        with pytest.raises(ValidationError):
            Route.model_validate(least | {field: [text]})


async def test_hosts_are_kept_in_lower_case() -> None:
    """Hosts are compared without regard to case, so they are kept in one."""
    assert Route.model_validate({"name": "r", "paths": ["/"], "upstream": "u", "hosts": ["A.Ex"]}).hosts == ("a.ex",)


@pytest.mark.parametrize(
    ("change", "is_good"),
    [
        pytest.param({"environment": "a-1"}, True, id="environment"),
        pytest.param({"environment": "a_1"}, False, id="environment-underscore"),
        pytest.param({"environment": "a" * 17}, False, id="environment-long"),
        pytest.param({"environment": "prod\n"}, False, id="environment-newline"),
        pytest.param({"keys": {"prefix": "ab1"}}, True, id="prefix"),
        pytest.param({"keys": {"prefix": "a-b"}}, False, id="prefix-dash"),
        pytest.param({"keys": {"prefix": "1a"}}, False, id="prefix-digit"),
        pytest.param({"keys": {"max_per_user": True}}, False, id="flag-as-number"),
        pytest.param({"keys": {"max_per_user": "7"}}, True, id="number-from-variable"),
        pytest.param({"keys": {"max_per_user": 0}}, False, id="zero"),
        pytest.param({"cache": {"bound_seconds": float("nan")}}, False, id="nan"),
        pytest.param({"cache": {"bound_seconds": "inf"}}, False, id="infinity"),
        pytest.param({"cache": {"bound_seconds": 0}}, False, id="no-time"),
        pytest.param({"client": {"body_limit_bytes": 0}}, True, id="no-bodies"),
        pytest.param({"drain": {"delay_seconds": 0, "replaced_seconds": 0}}, True, id="no-delay"),
        pytest.param({"drain": {"finish_seconds": 0}}, False, id="no-time-to-finish"),
        pytest.param({"drain": {"delay_seconds": -1}}, False, id="negative-delay"),
        pytest.param({"listen": {"handover": "/run/ostiary/handover.sock"}}, True, id="handover"),
        pytest.param({"listen": {"handover": "handover.sock"}}, False, id="handover-relative"),
        pytest.param({"listen": {"handover": "/" + "h" * 100}}, False, id="handover-long"),
        pytest.param({"credentials": []}, False, id="no-credentials"),
        pytest.param({"plans": {"p": {"features": {"a": 1, "b": "x", "c": True}}}}, True, id="features"),
        pytest.param({"plans": {"p": {"features": {"a": [1]}}}}, False, id="feature-list"),
        pytest.param({"plans": {"p": {"limits": {"per_minute": 60, "per_day": 1000}}}}, True, id="limits"),
        pytest.param({"plans": {"p": {"limits": {"per_minuet": 60}}}}, False, id="limit-window"),
        pytest.param({"trusted_proxies": ["10.0.0.0/8", "::1"]}, True, id="networks"),
        pytest.param({"trusted_proxies": [10]}, False, id="network-number"),
        pytest.param({"postgres": {"dsn": "mysql://x"}}, False, id="dsn"),
    ],
)
async def test_values(change: dict[str, Any], is_good: bool) -> None:
    """Each value has its shape, and nothing else is taken for it."""
    if is_good:
        Settings.model_validate(LEAST | change)
    else:
        with pytest.raises(ValidationError):
            Settings.model_validate(LEAST | change)


async def test_networks() -> None:
    """A trusted proxy is an address or a network."""
    settings = Settings.model_validate(LEAST | {"trusted_proxies": ["10.0.0.0/8", "::1"]})
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))


async def test_pepper_length() -> None:
    """A pepper has at least 32 characters. R077."""
    assert Pepper.model_validate({"id": "a", "secret": "x" * 32}).id == "a"
    with pytest.raises(ValidationError, match="shorter than 32"):
        Pepper.model_validate({"id": "a", "secret": "x" * 31})


async def test_rules_hold_for_models_made_in_code() -> None:
    """Settings that break a rule between them cannot be made, from a file or otherwise."""
    base = Settings.model_validate(LEAST)
    with pytest.raises(ValidationError, match="names no upstream"):
        Settings(
            environment="prod",
            postgres=base.postgres,
            routes=(Route(name="r", paths=("/",), upstream="u"),),
        )
    with pytest.raises(ValidationError, match=r"is the header of credentials\[1\] too"):
        Settings(environment="prod", postgres=base.postgres, identity_headers=IdentityHeaders(user_id="x_api_key"))
