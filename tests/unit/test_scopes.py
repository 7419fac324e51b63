"""What a granted scope allows: by example, and against the same rule written as words in lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.principal import AuthKind, Principal
from gateway.auth.refusal import Reason, Refusal
from gateway.auth.scopes import allows, lacking, shared
from gateway.auth.verdict import Access, authorize
from gateway.stores.records import SecretState

words = st.sampled_from(["orders", "read", "write", "all", "admin", "7", "ad"])
scopes = st.lists(words, min_size=1, max_size=4).map(":".join)


@pytest.mark.parametrize(
    ("granted", "asked", "is_allowed"),
    [
        pytest.param("orders:read:7", "orders:read:7", True, id="exact"),
        pytest.param("orders:read:7", "orders:read:8", False, id="another id"),
        pytest.param("orders:read:7", "orders:read:77", False, id="an id that begins alike"),
        pytest.param("orders:read:7", "orders:read", False, id="one is not all of a kind"),
        pytest.param("orders:read", "orders:read:7", True, id="all of a kind"),
        pytest.param("orders:read", "orders:read:a:b:c", True, id="an id with colons"),
        pytest.param("orders:read:a:b", "orders:read:a:b:c", True, id="under an id with colons"),
        pytest.param("orders:read", "orders:write", False, id="read is not write"),
        pytest.param("orders:read", "orders:readers", False, id="a word that begins alike"),
        pytest.param("read:all", "read:orders:7", True, id="all of what can be read"),
        pytest.param("read:all", "write:orders", False, id="all of that, and no writing"),
        pytest.param("read:all", "read:all", True, id="all itself"),
        pytest.param("read:all:7", "read:orders:7", False, id="all in the middle is a word like others"),
        pytest.param("admin", "orders:read:7", True, id="admin"),
        pytest.param("all", "orders:read:7", True, id="all by itself"),
        pytest.param("admin:billing", "orders:read", False, id="admin of something"),
        pytest.param("admin:billing", "admin:billing:7", True, id="admin of something, under it"),
        pytest.param("admin:billing", "admin", False, id="admin of something is not admin"),
        pytest.param("administrator", "orders:read", False, id="a word that begins with admin"),
        pytest.param("*", "orders:read", False, id="a star is a letter"),
        pytest.param("Admin", "orders:read", False, id="another case"),
    ],
)
def test_what_a_scope_allows(granted: str, asked: str, is_allowed: bool) -> None:
    """Itself, and what is under it; `all` and `admin` as described. R173."""
    assert allows((granted,), asked) is is_allowed
    assert lacking((granted,), [asked]) == ([] if is_allowed else [asked])


def test_every_scope_that_is_asked_for_counts() -> None:
    """A route with several scopes wants all of them; who has none is told which. R174 R281."""
    access = Access("required", scopes=frozenset({"orders:read", "orders:write", "reports:read"}))
    assert authorize(principal("orders", "reports:read"), access) is None
    for has, missing in (
        ((), ["orders:read", "orders:write", "reports:read"]),
        (("orders:read", "reports"), ["orders:write"]),
        (("read:all",), ["orders:read", "orders:write", "reports:read"]),
    ):
        refusal = authorize(principal(*has), access)
        assert refusal == Refusal(Reason.INSUFFICIENT_SCOPE, {"missing_scopes": missing})


def principal(*has: str) -> Principal:
    return Principal(AuthKind.KEY, "t", "u", "k", SecretState.CURRENT, frozenset(has), frozenset(), 0, b"")


def is_as_wide(granted: str, asked: str) -> bool:
    wide, narrow = granted.split(":"), asked.split(":")
    if wide[-1] == "all" and granted != asked:
        return len(narrow) >= len(wide) and narrow[: len(wide) - 1] == wide[:-1]
    return wide == ["admin"] or narrow[: len(wide)] == wide


@given(st.frozensets(scopes, max_size=3), scopes)
def test_the_rule_is_that_of_words_in_lists(granted: frozenset[str], asked: str) -> None:
    """No text between colons is ever cut in the middle. R173."""
    assert allows(granted, asked) is any(is_as_wide(scope, asked) for scope in granted)


@given(st.frozensets(scopes, max_size=3), st.frozensets(scopes, max_size=3), scopes)
def test_what_two_share_is_allowed_by_both(one: frozenset[str], other: frozenset[str], asked: str) -> None:
    """A token never has more than its key, nor more than it was given, and loses nothing that both allow. R147."""
    assert allows(shared(one, other), asked) is (allows(one, asked) and allows(other, asked))
