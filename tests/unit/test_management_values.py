"""What the management API reads and makes, without a socket."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.control import admin_tokens, moments
from gateway.control.bodies import CODES, NewKeyBody, PlanBody, WindowBody, parse_body
from gateway.control.deeds import Answer, Deed
from gateway.control.ids import new_id
from gateway.control.pages import Listing, page_of, read_query
from gateway.control.problems import InvalidBody, InvalidQuery


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)), st.integers(-23 * 60, 23 * 60))
def test_what_is_told_can_be_read_back(naive: datetime, offset_minutes: int) -> None:
    """A moment survives the way out and in, whatever its offset. R125."""
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    text = moments.text(moment)
    assert text is not None
    assert text.endswith("Z")
    assert moments.parse(text) == moment
    assert moments.parse(moment.isoformat()) == moment


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none(), st.lists(st.integers())))
def test_any_value_is_a_moment_in_utc_or_refused(value: object) -> None:
    """Nothing else comes out than a time with a zone or ValueError. R121."""
    try:
        moment = moments.parse(value)
    except ValueError:
        return
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T01:00:00+01:00",
        -62135596800,
        "9999-12-31T23:59:59.9999999Z",
        "9999-12-31T23:59:59.999998Z",
        253402300799.99,
    ],
)
def test_the_first_and_the_last_moment_are_refused(value: object) -> None:
    """Postgres would be told of an infinite one, and tell of one without a zone; nodes, of the year 10000. R125."""
    with pytest.raises(ValueError, match="out of range"):
        moments.parse(value)
    assert moments.parse("9999-12-31T23:59:59Z").year == 9999


@given(st.datetimes(timezones=st.just(UTC)))
@example(datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC))
def test_what_is_taken_can_be_told_from_what_nodes_keep_of_it(moment: datetime) -> None:
    """Nodes keep seconds since the epoch, rounded: a moment that was taken is one of the calendar after that, too."""
    try:
        taken = moments.parse(moment.isoformat())
    except ValueError:
        return
    assert moments.of_epoch(taken.timestamp()) is not None


@given(st.binary(max_size=200))
def test_any_body_is_a_body_or_refused(raw: bytes) -> None:
    """Whatever bytes come, the answer is a model or InvalidBody with issues. R121."""
    try:
        parse_body(raw, WindowBody)
    except InvalidBody as error:
        issues = error.members["issues"]
    else:
        return
    assert issues


@pytest.mark.parametrize(
    "field",
    sorted(
        set(CODES)
        - {"id", "tenant_id", "grace_seconds", "valid_until", "plan", "features", "limits", "status", "tier"}
        - {"expires_in", "audience"}
    ),
)
def test_a_field_at_fault_gives_its_code(field: str) -> None:
    """The code names the field. R212, R213."""
    body: dict[str, Any] = {"user_id": "u", "name": "n"} | {field: {}}
    with pytest.raises(InvalidBody) as caught:
        parse_body(str(body).replace("'", '"').encode(), NewKeyBody)
    assert caught.value.code == CODES[field]


def test_values_are_not_converted() -> None:
    """Strict: a text is no number, a number no boolean, and a boolean no number. R121."""
    for raw in (b'{"tier": "1"}', b'{"tier": 1.0}', b'{"tier": true}'):
        with pytest.raises(InvalidBody):
            parse_body(raw, PlanBody)
    features = parse_body(b'{"features": {"a": true, "b": 1, "c": "x"}}', PlanBody).features
    assert features == {"a": True, "b": 1, "c": "x"}
    assert features["a"] is True
    assert features["b"] is not True


def test_a_refused_body_is_not_quoted() -> None:
    """What was sent, perhaps a secret in the wrong field, is in no issue and no log text. R324."""
    with pytest.raises(InvalidBody) as caught:
        parse_body(b'{"user_id": "u", "name": "n", "secret_sha256": "ost_prod_secretsecret", "x\\ny": 1}', NewKeyBody)
    assert "secretsecret" not in str(caught.value) + str(caught.value.members)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__suppress_context__, bool)
    assert not isinstance(caught.value.__cause__, ValidationError)


def test_ids_sort_by_age_and_differ() -> None:
    """A listing by id is a listing by age."""
    ids = [new_id("key") for _ in range(1000)]
    assert len(set(ids)) == 1000
    stamps = [text[4:14] for text in ids]
    assert stamps == sorted(stamps)


def test_admin_tokens_have_their_own_shape() -> None:
    """`osta_`, base62, a checksum; a mistyped one is told without I/O."""
    token = admin_tokens.generate()
    assert token.startswith("osta_")
    assert admin_tokens.is_well_formed(token)
    for position in range(len(token)):
        other = "A" if token[position] != "A" else "B"
        assert not admin_tokens.is_well_formed(token[:position] + other + token[position + 1 :])
    assert not admin_tokens.is_well_formed(token + "\n")
    assert len({admin_tokens.generate() for _ in range(1000)}) == 1000


def test_a_new_secret_is_not_in_its_repr() -> None:
    """A reply object that ends in a log or a traceback shows no secret. R324."""
    body = {"secret": "ost_prod_x"}
    deed = Deed("key.create", "key:k1", "acme", None, {"id": "k1"}, body, status=201)
    assert "ost_prod_x" not in repr(deed) + repr(Answer(201, body))


def test_a_cursor_leads_on_from_the_last_item() -> None:
    """Opaque, and only given where more is to come."""
    asked = read_query(make_mocked_request("GET", "/?limit=2"), Listing)
    page = page_of(asked, ["a", "b", "c"], lambda row: {"id": row}, str)
    assert page["items"] == [{"id": "a"}, {"id": "b"}]
    follow = read_query(make_mocked_request("GET", f"/?limit=2&cursor={page['next_cursor']}"), Listing)
    assert follow.after == "b"
    assert page_of(asked, ["a", "b"], lambda row: {"id": row}, str)["next_cursor"] is None


@given(st.text(max_size=40))
def test_any_cursor_is_an_id_or_refused(cursor: str) -> None:
    """A cursor that was not given out never reaches the database as it is."""
    request = make_mocked_request("GET", "/")
    request = request.clone(rel_url=request.rel_url.with_query(cursor=cursor))
    try:
        asked = read_query(request, Listing)
    except InvalidQuery:
        return
    assert asked.after.isascii()
