"""Configurations: any file is settings, or mistakes with a place; and no mistake quotes a secret."""

import re
from pathlib import Path

from gateway.configuration import ConfigurationError, Mistake, parse

ENVIRON = {"SECRET": "hunter2hunter2", "EMPTY": "", "ODD": "a\udcffb", "DSN": "postgresql://u:hunter2hunter2@h/d"}
BASE = b"environment: test\npostgres: {dsn: 'postgresql://u@h/d'}\n"
CONFIG = Path(__file__).parents[2] / "config"


def check(data: bytes) -> None:
    """`data` is a file; where its first byte is a `+`, what follows is laid behind one that is good."""
    content = BASE + data[1:] if data.startswith(b"+") else data
    mistakes = mistakes_in(content)
    if mistakes is None:
        return
    assert mistakes
    lines = 2 + len(re.findall("[\r\n\x85\u2028\u2029]", content.decode("utf-8", "replace")))
    for mistake in mistakes:
        assert mistake.what
        assert mistake.line is None or 1 <= mistake.line <= lines
        told = f"{mistake.place} {mistake.what} {mistake.cure}"
        assert told.encode()
        assert "hunter2" not in told, "a secret in a mistake"


def mistakes_in(content: bytes) -> list[Mistake] | None:
    """What is wrong; None where nothing is."""
    try:
        parse(content, "gateway.yaml", ENVIRON)
    except ConfigurationError as error:
        return list(error.mistakes)
    return None


SEEDS = [
    BASE,
    (CONFIG / "gateway.yaml").read_bytes()[:1200],
    b"+upstreams: {a: {targets: ['http://h:1']}}\nroutes: [{name: r, paths: ['/'], upstream: a}]\n",
    b"+redis: {url: '${SECRET}'}\nkeys: {peppers: ['${SECRET}']}\n",
    b"environment: ${SECRET}\npostgres: {dsn: ${DSN}, dns: ${SECRET}}\n",
    b"environment: ${ODD}\npostgres: {dsn: '${NONE:-x}${'}\n",
    b"+trusted_proxies: [10.0.0.0/8, '${SECRET}', 1, ::/129]\nlisten: {proxy: '[::1]:99999'}\n",
    b"+cache: {ttl_seconds: .inf, bound_seconds: 1:30, local_entries: 0x_}\nx: !!python/object:os.system {}\n",
    b"+a: &a [*a]\n<<: {b: 1}\n? [1]\n: 2\n? ''\n",
    b"+plans: {p: {tier: 1, limits: {per_second: 1}}}\noidc: {issuer: 'https://i', audience: x}\n",
    b"+routes: [{name: \"\\ud800\", paths: ['/%2f', '/a/*', '']}]\n",
    b"a: &x [" + b"*x," * 50 + b"]",
    b"[" * 400,
    b"\xff\xfe",
    b"a: \x00",
    b"",
]
TOKENS = [
    *(b"${SECRET}", b"${", b"}", b":-", b"\n  ", b"\n- ", b": ", b"&a ", b"*a", b"<<: ", b"!!int ", b"!!float ", b"? "),
    *(b"upstreams:", b"routes:", b"targets:", b"plans:", b"limits:", b"oidc:", b"tokens:", b"portal:", b"listen:"),
    *(b"credentials:", b"identity_headers:", b"trusted_proxies:", b"cache:", b"client:", b"keys:", b"tls:", b"cors:"),
    *(b".nan", b"0x", b"1e9", b"2026-01-01", b"http://a:1", b"[::1]:80", b"10.0.0.0/8", b"\xc2\x85", b"\xe2\x80\xa8"),
]
