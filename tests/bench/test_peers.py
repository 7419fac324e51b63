"""The peers that need nothing but Python, as the benchmark starts them, and what it demands of all."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bench.certificates import Certificate
from bench.generator import Order, OwnGenerator
from bench.measure import ask, start_upstream, verify
from bench.peers import PLAIN, AiohttpProxy, Running, Shape, Tunnel
from bench.processes import BenchError, Workshop
from bench.workload import USER_ID, Request, reply_body
from bench.workloads import WORKLOADS, Workload, chosen, prefixes

_CORE = min(os.sched_getaffinity(0))
_BY_NAME = {workload.name: workload for workload in WORKLOADS}


@dataclass(frozen=True)
class Place:
    """A workshop with an origin."""

    workshop: Workshop
    upstream_port: int


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Workshop() as workshop:
        yield Place(workshop, start_upstream(workshop, _CORE))


@pytest.fixture(scope="module")
def proxy(place: Place) -> Running:
    return AiohttpProxy().start(place.workshop, place.upstream_port, _CORE)


def _seen(place: Place) -> bytes:
    return ask(place.upstream_port, Request(None, place.upstream_port, "/.seen").head())[1].lower()


def test_the_aiohttp_proxy_tells_the_upstream_who_calls_and_keeps_the_key(place: Place, proxy: Running) -> None:
    """A good key brings the reply; the upstream reads the user's name once, and no credential."""
    spoofed = Request(proxy.secret, proxy.port, "/orders?proof=1", more=(("X-User-Id", "somebody-else"),))
    assert ask(proxy.port, spoofed.head()) == (200, reply_body())
    head = _seen(place)
    assert head.count(b"x-user-id:") == 1
    assert f"\r\nx-user-id: {USER_ID}\r\n".encode() in head
    assert b"authorization" not in head
    assert proxy.secret.lower().encode() not in head


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("Bearer wrong", id="wrong"),
        pytest.param("Basic @", id="another scheme"),
        pytest.param("@", id="without a scheme"),
    ],
)
def test_the_aiohttp_proxy_refuses_what_is_not_the_key(place: Place, proxy: Running, authorization: str | None) -> None:
    """401, and the upstream hears nothing of it."""
    before = _seen(place)
    request = Request(None, proxy.port, "/orders?proof=refused")
    if authorization is not None:
        request = replace(request, more=(("Authorization", authorization.replace("@", proxy.secret)),))
    assert ask(proxy.port, request.head())[0] == 401
    assert _seen(place) == before


def test_the_aiohttp_proxy_keeps_the_headers_of_one_hop(place: Place, proxy: Running) -> None:
    """Those that RFC 9110 names, and those that `Connection` names; the others travel on."""
    hop = (("Connection", "close, X-Mine"), ("X-Mine", "1"), ("Keep-Alive", "5"), ("TE", "trailers"), ("X-Kept", "2"))
    assert ask(proxy.port, Request(proxy.secret, proxy.port, "/orders?proof=hop", more=hop).head())[0] == 200
    head = _seen(place)
    assert b"\r\nx-kept: 2\r\n" in head
    for name in (b"x-mine", b"keep-alive:", b"te:", b"connection: close"):
        assert b"\r\n" + name not in head


def test_the_aiohttp_proxy_says_502_without_an_upstream(place: Place) -> None:
    """An upstream that is not there is not the caller's fault."""
    proxy = AiohttpProxy().start(place.workshop, 1, _CORE)
    assert ask(proxy.port, Request(proxy.secret, proxy.port).head())[0] == 502


@pytest.mark.parametrize("name", ["get", "varied", "post", "large-reply", "new-connection"])
def test_the_aiohttp_proxy_does_what_is_measured(place: Place, proxy: Running, name: str) -> None:
    """What is demanded of every peer before a figure counts."""
    verify(proxy, place.upstream_port, _BY_NAME[name])


@pytest.mark.parametrize(
    ("name", "has_tls"), [pytest.param("routes", False, id="routes"), pytest.param("tls", True, id="tls")]
)
def test_the_aiohttp_proxy_takes_other_shapes(place: Place, tmp_path: Path, name: str, has_tls: bool) -> None:
    """A thousand routes, of which no path outside is one; TLS."""
    workload = _BY_NAME[name]
    shape = Shape(Certificate.made_in(tmp_path)) if has_tls else Shape(prefixes=prefixes())
    proxy = AiohttpProxy().start(place.workshop, place.upstream_port, _CORE, shape)
    authority = shape.certificate.authority if shape.certificate else None
    verify(proxy, place.upstream_port, workload, authority)
    requests = [request.whole() for request in workload.requests(proxy.secret, proxy.port)]
    figures = OwnGenerator(_CORE).carry_out(Order(proxy.port, requests, 4, None, authority=authority))
    assert figures.requests == len(requests)
    if not has_tls:
        assert ask(proxy.port, Request(proxy.secret, proxy.port).head())[0] == 404


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "a connection each"])
def test_the_load_generator_counts_what_was_answered(proxy: Running, is_kept: bool) -> None:
    """Every request once, in both ways to connect; a run with refusals is no figure."""
    good = Request(proxy.secret, proxy.port, more=() if is_kept else (("Connection", "close"),))
    load = OwnGenerator(_CORE)
    figures = load.carry_out(Order(proxy.port, [good.head()] * 50, 4, None, is_kept))
    assert (figures.requests, figures.failures) == (50, 0)
    refused = replace(good, secret="wrong").head()
    with pytest.raises(BenchError, match="1 of 50 requests failed"):
        load.carry_out(Order(proxy.port, [*[good.head()] * 49, refused], 4, None, is_kept))


def test_a_tunnel_does_not_pass_for_a_proxy_that_authenticates(place: Place) -> None:
    """The demand is one that can fail."""
    tunnel = Tunnel().start(place.workshop, place.upstream_port, _CORE, PLAIN)
    verify(tunnel, place.upstream_port)
    with pytest.raises(BenchError, match="was not told who is calling"):
        verify(replace(tunnel, is_authenticating=True), place.upstream_port)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_workload_is_what_its_title_says(workload: Workload) -> None:
    """Lengths and numbers of headers as published; no two requests alike where that is promised."""
    requests = workload.requests("secret", 80)
    wire = requests[0].whole()
    headers = wire.partition(b"\r\n\r\n")[0].count(b"\r\n")
    assert headers == {"large-reply": 20, "post": 13}.get(workload.name, 12 if workload.is_kept else 13)
    assert len(workload.reply) == (16_384 if workload.name == "large-reply" else 964)
    assert len(workload.body) == (1_024 if workload.name == "post" else 0)
    assert len({request.whole() for request in requests}) == len(requests)
    assert len(requests) == {"varied": 997, "routes": 1_000}.get(workload.name, 1)


def test_workloads_are_chosen_by_name_or_family() -> None:
    """`tls` names both of its kind; a word that begins like a name does not."""
    assert [workload.name for workload in chosen(["tls", "get", "new"])] == [
        "get",
        "new-connection",
        "tls",
        "tls-new-connection",
    ]
    assert chosen(["ge"]) == []
    assert chosen(None) == list(WORKLOADS)


def test_the_proxy_keeps_a_connection(proxy: Running) -> None:
    """Or "keep-alive" would measure something else."""
    connection = HTTPConnection("127.0.0.1", proxy.port)
    headers = {"Authorization": f"Bearer {proxy.secret}"}
    ends = []
    for _ in range(2):
        connection.request("GET", "/orders/1", headers=headers)
        with connection.getresponse() as reply:
            reply.read()
        assert connection.sock is not None
        ends.append(connection.sock.getsockname())
    connection.close()
    assert ends[0] == ends[1]
