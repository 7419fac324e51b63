"""Limits on open connections."""

from ipaddress import ip_network

from prometheus_client import CollectorRegistry, Counter

from gateway.proxy.crowd import Crowd
from gateway.proxy.edge import Edge, TrustedProxies, address_in

PROXIES = TrustedProxies([ip_network("10.0.0.0/8")], header="X-Forwarded-For")


def crowd(limit: int | None = None, address_limit: int | None = None) -> tuple[Crowd, CollectorRegistry]:
    registry = CollectorRegistry()
    refused = Counter("refused", "", ["reason"], registry=registry)
    return Crowd(limit=limit, address_limit=address_limit, refused=refused, monotonic=lambda: 0.0), registry


def edge(address: str) -> Edge:
    return Edge(address_in(address.encode()), "http", PROXIES)


def test_connections_of_one_address() -> None:
    """One address cannot take the place of all others; who leaves makes room. R345."""
    them, registry = crowd(address_limit=2)
    first, other = edge("192.0.2.7"), edge("192.0.2.8")
    assert [them.enter(first) for _ in range(4)] == [True, True, False, False]
    assert them.enter(other)
    assert registry.get_sample_value("refused_total", {"reason": "address"}) == 2
    for _ in range(3):
        them.leave(first)
    assert them.enter(first)
    assert not them.enter(first)


def test_an_ipv6_network_is_one_address() -> None:
    """Who owns a /64 owns all of its addresses."""
    them, _ = crowd(address_limit=1)
    assert them.enter(edge("2001:db8:1:1::1"))
    assert not them.enter(edge("2001:db8:1:1:ffff::1"))
    assert them.enter(edge("2001:db8:1:2::1"))


def test_trusted_proxies_bring_many_clients() -> None:
    """The limit per address is not for proxies that are trusted; the one in all is."""
    them, registry = crowd(limit=3, address_limit=1)
    proxy = edge("10.0.0.1")
    assert [them.enter(proxy) for _ in range(4)] == [True, True, True, False]
    assert registry.get_sample_value("refused_total", {"reason": "total"}) == 1
    them.leave(proxy)
    them.leave(proxy)
    assert them.enter(edge("192.0.2.7"))


def test_no_limit_counts_nothing() -> None:
    """Without limits nobody is refused, and nothing is kept about anybody."""
    them, _ = crowd()
    everybody = [edge(f"192.0.2.{number}") for number in range(100)]
    assert all(them.enter(one) for one in everybody)
    for one in everybody:
        them.leave(one)
