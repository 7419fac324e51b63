"""What header names mean: exact names, their twins, and what Connection may name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.headers import (
    FORWARDED,
    HOP_BY_HOP,
    LONGEST_REMEMBERED_NAME,
    REMEMBERED_SPELLINGS,
    REQUEST_FIELDS,
    Action,
    HeaderTable,
    fold,
    nominated,
    without,
)
from tests.unit.reading import RESERVED, request_table, response_table

FRAMING = (b"Host", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Expect")
CREDENTIALS = (b"Authorization", b"X-Api-Key")


@pytest.mark.parametrize(
    ("name", "action"),
    [
        (b"Host", Action.HOST),
        (b"hOST", Action.HOST),
        (b"Connection", Action.CONNECTION),
        (b"Content-Length", Action.CONTENT_LENGTH),
        (b"CONTENT-LENGTH", Action.CONTENT_LENGTH),
        (b"Transfer-Encoding", Action.TRANSFER_ENCODING),
        (b"Expect", Action.EXPECT),
        (b"Authorization", Action.CREDENTIAL),
        (b"x-api-key", Action.CREDENTIAL),
        (b"X-Request-Id", Action.REQUEST_ID),
        (b"X-User-Id", Action.RESERVED),
        (b"x-identity-assertion", Action.RESERVED),
        (b"Accept", Action.KEEP),
        (b"Cookie", Action.KEEP),
        (b"X-Users-Id", Action.KEEP),
        (b"X-User-Idx", Action.KEEP),
        *((name, Action.DROP) for name in HOP_BY_HOP),
        *((name, Action.FORWARDED) for name in FORWARDED),
    ],
)
def test_names_are_told_apart_in_any_case(name: bytes, action: Action) -> None:
    """The table knows what each name means, however it is written. R022, R024."""
    for spelling in (name, name.lower(), name.upper(), name.swapcase()):
        assert request_table().classify(spelling) is action


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b" Host",
        b"Host ",
        b"Ho st",
        b"Host\t",
        b"X-User-Id\x00",
        b"X\x0bY",
        b"Ho(st)",
        b"a/b",
        b"a,b",
        b"a;b",
        b'"a"',
        b"[a]",
        b"{a}",
        b"a@b",
        b"a=b",
        b"a\\b",
        b"a?b",
        b"<a>",
        "é".encode(),
        b"\xff",
        b"\x7f",
    ],
)
def test_what_is_no_token_is_invalid(name: bytes) -> None:
    """A name is a token and nothing else: no blanks, no control characters, no separators. RFC 9110 5.1."""
    assert request_table().classify(name) is Action.INVALID
    assert response_table().classify(name) is Action.INVALID


def twins(names: tuple[bytes, ...]) -> st.SearchStrategy[tuple[bytes, bytes]]:
    """A name, and a spelling that a forgiving reader takes for it."""

    @st.composite
    def draw_twin(draw: st.DrawFn) -> tuple[bytes, bytes]:
        name = draw(st.sampled_from(names))
        spelling = b""
        for character in fold(name):
            spelling += draw(st.sampled_from([b"", b"", b"", b"-", b"_", b"."]))
            letter = bytes([character])
            spelling += draw(st.sampled_from([letter, letter.upper()]))
        return name, spelling + draw(st.sampled_from([b"", b"-", b"_", b"."]))

    return draw_twin()


@given(twins(RESERVED))
def test_every_twin_of_a_reserved_name_is_reserved(pair: tuple[bytes, bytes]) -> None:
    """Case, and `-`, `_`, `.` put in or left out, do not get an identity header past the table. R020, R022."""
    assert request_table().classify(pair[1]) is Action.RESERVED
    assert response_table().classify(pair[1]) is Action.RESERVED


@given(twins((*FRAMING, *CREDENTIALS, *HOP_BY_HOP, *FORWARDED, b"X-Request-Id")))
def test_no_twin_of_a_name_that_means_something_is_forwarded(pair: tuple[bytes, bytes]) -> None:
    """A twin is never acted on and never sent on; only the exact name means what it says. R022, R024."""
    name, spelling = pair
    action = request_table().classify(spelling)
    if spelling.lower() == name.lower():
        assert action is not Action.KEEP
    else:
        assert action in (Action.DROP, Action.RESERVED)


@given(st.binary(max_size=80))
def test_a_name_is_classified_the_same_at_first_and_second_sight(name: bytes) -> None:
    """What is remembered of a spelling is what was found. R022."""
    table = request_table()
    action = table.classify(name)
    assert table.get(name) in (None, action)
    assert table.classify(name) is action


def test_an_invented_name_takes_no_memory_for_ever() -> None:
    """A client that invents names fills a bounded table. R060."""
    table = HeaderTable(REQUEST_FIELDS)
    for number in range(REMEMBERED_SPELLINGS + 500):
        assert table.classify(b"X-Invented-%d" % number) is Action.KEEP
    assert sum(table.get(b"X-Invented-%d" % number) is not None for number in range(REMEMBERED_SPELLINGS + 500)) == (
        REMEMBERED_SPELLINGS
    )
    assert table.classify(b"Connection") is Action.CONNECTION
    long = b"X-" + b"a" * LONGEST_REMEMBERED_NAME
    fresh = HeaderTable(REQUEST_FIELDS)
    assert fresh.classify(long) is Action.KEEP
    assert fresh.get(long) is None


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([], set()),
        ([b""], set()),
        ([b"close"], {b"close"}),
        ([b"Close, X-Foo"], {b"close", b"x-foo"}),
        ([b" close ,\tX-Foo\t", b"x-bar"], {b"close", b"x-foo", b"x-bar"}),
        ([b",,close,,"], {b"close"}),
        ([b"keep-alive, keep-alive"], {b"keep-alive"}),
    ],
)
def test_the_options_of_connection(values: list[bytes], options: set[bytes]) -> None:
    """A list over any number of fields, without case and blanks. RFC 9110 7.6.1."""
    assert nominated(values) == options


def test_nominated_lines_are_taken_out() -> None:
    """Lines go by their name, whatever its case; others stay in order."""
    lines = [b"X-Foo: 1", b"Accept: x-foo", b"x-FOO:2", b"X-Foo-Bar: 3"]
    assert without(lines, frozenset({b"x-foo"})) == [b"Accept: x-foo", b"X-Foo-Bar: 3"]
