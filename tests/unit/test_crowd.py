"""Limits on open connections."""

from ipaddress import ip_network

from prometheus_client import CollectorRegistry, Counter

from gateway.proxy.crowd import Crowd, Visit
from gateway.proxy.edge import Edge, TrustedProxies, address_in

PROXIES = TrustedProxies([ip_network("10.0.0.0/8")], header="X-Forwarded-For")


def crowd(limit: int | None = None, address_limit: int | None = None) -> tuple[Crowd, CollectorRegistry]:
    registry = CollectorRegistry()
    refused = Counter("refused", "", ["reason"], registry=registry)
    return Crowd(limit=limit, address_limit=address_limit, refused=refused, monotonic=lambda: 0.0), registry


def edge(address: str) -> Edge:
    return Edge(address_in(address.encode()), "http", PROXIES)


def entered(them: Crowd, address: str) -> Visit | None:
    """A connection from `address` that may stay; one that may not has ended."""
    visit = them.enter()
    if visit is not None and not visit.identify(edge(address)):
        visit.end()
        return None
    return visit


def test_connections_of_one_address() -> None:
    """One address cannot take the place of all others; who leaves makes room. R345."""
    them, registry = crowd(address_limit=2)
    first, second, *others = [entered(them, "192.0.2.7") for _ in range(4)]
    assert first is not None
    assert second is not None
    assert others == [None, None]
    assert entered(them, "192.0.2.8")
    assert registry.get_sample_value("refused_total", {"reason": "address"}) == 2
    first.end()
    assert entered(them, "192.0.2.7")
    assert not entered(them, "192.0.2.7")


def test_an_ipv6_network_is_one_address() -> None:
    """Who owns a /64 owns all of its addresses."""
    them, _ = crowd(address_limit=1)
    assert entered(them, "2001:db8:1:1::1")
    assert not entered(them, "2001:db8:1:1:ffff::1")
    assert entered(them, "2001:db8:1:2::1")


def test_trusted_proxies_bring_many_clients() -> None:
    """The limit per address is not for proxies that are trusted; the one in all is."""
    them, registry = crowd(limit=3, address_limit=1)
    visits = [entered(them, "10.0.0.1") for _ in range(4)]
    assert [visit is not None for visit in visits] == [True, True, True, False]
    assert registry.get_sample_value("refused_total", {"reason": "total"}) == 1
    assert visits[0] is not None
    visits[0].end()
    assert entered(them, "192.0.2.7")


def test_who_has_not_said_who_he_is_counts() -> None:
    """A connection whose address is not known yet is one of all, and of no address."""
    them, registry = crowd(limit=2, address_limit=1)
    unknown = them.enter()
    assert unknown is not None
    assert entered(them, "192.0.2.7")
    assert not entered(them, "192.0.2.8")
    assert registry.get_sample_value("refused_total", {"reason": "total"}) == 1
    assert not unknown.identify(edge("192.0.2.7"))
    unknown.end()
    assert entered(them, "192.0.2.8")


def test_a_visit_ends_once() -> None:
    """However often it is ended, a connection gives back one place: its own."""
    them, _ = crowd(limit=2, address_limit=2)
    first = entered(them, "192.0.2.7")
    assert first is not None
    assert entered(them, "192.0.2.7")
    for _ in range(3):
        first.end()
    assert entered(them, "192.0.2.7")
    assert not entered(them, "192.0.2.8")


def test_no_limit_counts_nothing() -> None:
    """Without limits nobody is refused, and nothing is kept about anybody."""
    them, _ = crowd()
    everybody = [entered(them, f"192.0.2.{number}") for number in range(100)]
    for visit in everybody:
        assert visit is not None
        visit.end()
