"""The parts of the portal that need no browser: sign-ins under way, cookies, charts, and what is put in words."""

import asyncio
import re
from datetime import UTC, date, datetime, timedelta

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.portal.attempt import Attempt, onward
from gateway.control.portal.charts import Day, daily, spark
from gateway.control.portal.cookies import Cookies
from gateway.control.portal.forms import read_form
from gateway.control.portal.key_forms import graces
from gateway.control.portal.ready_lines import ReadyLines
from gateway.control.portal.rendering import of_bytes
from gateway.control.portal.rotation import Rotation
from gateway.control.portal.words import spread
from gateway.control.problems import Problem
from gateway.settings import CredentialPlace, PortalSettings
from gateway.stores.postgres.keys import KeyRow
from gateway.stores.postgres.retired_secrets import RetiredSecretRow

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_sign_in_is_whole_again_from_its_cookie() -> None:
    """State, nonce and verifier all come from one secret, and none of them shows another."""
    attempt = Attempt.new("/portal/keys/key_1")
    again = Attempt.of_cookie(attempt.cookie)
    assert again == attempt
    said = [attempt.secret, attempt.state, attempt.nonce, attempt.verifier, attempt.challenge]
    assert len(set(said)) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", one) for one in said)  # of a verifier: RFC 7636 4.1
    assert attempt.secret not in repr(attempt)
    assert attempt.is_answered_by(attempt.state)
    assert not attempt.is_answered_by(Attempt.new("").state)
    assert not attempt.is_answered_by("")


def test_the_challenge_is_s256() -> None:
    """As RFC 7636 4.2 has it, for whatever the verifier is."""
    import base64
    import hashlib

    attempt = Attempt.new("")
    digest = hashlib.sha256(attempt.verifier.encode()).digest()
    assert attempt.challenge == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize("value", ["", "x", "a" * 43 + ":" + "b" * 300, "é" * 43, "a" * 42, "a" * 43 + "\n"])
def test_what_is_no_sign_in(value: str) -> None:
    """A cookie that is not ours is none."""
    assert Attempt.of_cookie(value) is None


@given(st.text() | st.from_regex(r"/portal/[a-z/.]*"))
def test_one_goes_on_to_a_page_of_ours_alone(path: str) -> None:
    """Whatever stands in `next`, no other site and no other part of this one is led to. R365."""
    assert re.fullmatch(r"/portal/[a-z]+(/[A-Za-z0-9_-]+)*", onward(path))


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/portal//evil.example", "/portal/../v1/keys", "/v1/me", "\\\\e"]
)
def test_places_that_are_not_gone_to(path: str) -> None:
    """They all are the list of keys."""
    assert onward(path) == "/portal/keys"


@pytest.mark.parametrize(
    ("url", "name", "is_secure"),
    [
        ("https://keys.example.com", "__Host-ostiary_session", True),
        ("http://127.0.0.1:8081", "ostiary_session", False),
    ],
)
def test_cookies_are_locked_up(url: str, name: str, is_secure: bool) -> None:
    """Over https their names begin with `__Host-`; no script reads them, and no other site sends them along. R365."""
    cookies = Cookies(PortalSettings(url=url, client_id="portal"))
    response = web.Response()
    cookies.keep_session(response, "s" * 43)
    held = response.cookies[name]
    assert (held["httponly"], held["samesite"], held["path"], held["domain"]) == (True, "Lax", "/", "")
    assert bool(held["secure"]) is is_secure
    request = make_mocked_request("GET", "/portal", headers={"Cookie": f"{name}={'s' * 43}"})
    assert cookies.session(request) == "s" * 43


def key_row(**more: datetime | None) -> KeyRow:
    """A key whose secret was used at these times."""
    return KeyRow(
        "key_1", "t", "u", "user", "n", "p", "e", (), "active", START, None, None, None,
        more.get("first"), more.get("last"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "old_last", "words"),
    [
        pytest.param(None, None, "Neither secret", id="nobody calls"),
        pytest.param(None, -5, "Neither secret", id="nobody has called since"),
        pytest.param(None, 5, "still send the old secret", id="only the old one"),
        pytest.param(10, 20, "Both secrets are in use", id="both"),
        pytest.param(10, 5, "finish now", id="the old one was left"),
        pytest.param(10, -5, "finish now", id="the new one at once"),
        pytest.param(10, None, "finish now", id="the old one was never used"),
    ],
)
def test_how_a_rotation_stands(first: int | None, old_last: int | None, words: str) -> None:
    """Whether the old secret can go is told by which one was used when."""

    def at(seconds: int | None) -> datetime | None:
        return None if seconds is None else START + timedelta(seconds=seconds)

    old = RetiredSecretRow("sec_1", "key_1", "p", START, START + timedelta(days=1), at(old_last))
    assert words in Rotation(key_row(first=at(first)), [old]).said


@pytest.mark.parametrize(
    ("nodes", "reported", "seconds", "words"),
    [
        (3, 3, 0.0041, "Confirmed on 3 of 3 gateways in 4 ms."),
        (1, 1, 0.0, "Confirmed on 1 of 1 gateway in 1 ms."),
        (3, 2, 2.04, "Confirmed on 2 of 3 gateways in 2.0 s. The others trust nothing that they knew before."),
        (0, 0, 0.0, "Confirmed on every gateway."),
    ],
)
def test_how_far_a_change_has_come(nodes: int, reported: int, seconds: float, words: str) -> None:
    """In words, for whoever waits."""
    assert spread({"nodes": nodes, "reported": reported, "seconds": seconds}) == words


@pytest.mark.parametrize(
    ("body", "charset"), [(b"token=\xff", "utf-8"), (b"token=x", "nonsense"), (b"token=x", "utf-16")]
)
async def test_a_form_that_is_no_text_is_the_senders_mistake(body: bytes, charset: str) -> None:
    """Bytes that are none in their charset, and charsets that are none: a 400, and no fault of ours in the log."""
    loop = asyncio.get_running_loop()
    payload = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    payload.feed_data(body)
    payload.feed_eof()
    headers = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
    with pytest.raises(Problem) as caught:
        await read_form(make_mocked_request("POST", "/", headers=headers, payload=payload))
    assert caught.value.status == 400


def test_graces_begin_with_the_configured_one() -> None:
    """The first is what happens unless somebody says otherwise; none is offered that the API would refuse."""
    assert [(grace.seconds, grace.text) for grace in graces(86400)] == [
        (86400, "24 hours"), (3600, "1 hour"), (604800, "7 days"),
    ]  # fmt: skip
    assert graces(0)[0].seconds == 3600
    assert graces(90)[0].text == "90 seconds"


def test_lines_send_the_key_where_the_gateway_reads_it() -> None:
    """By the Bearer scheme where that is configured, else bare in the first header that is."""
    lines = ReadyLines("https://api.example.com", [CredentialPlace(header="X-Api-Key")]).of("ost_test_1")
    assert [line.language for line in lines] == ["curl", "Python", "JavaScript"]
    assert lines[0].text == "curl -H 'X-Api-Key: ost_test_1' https://api.example.com/.ostiary/whoami"
    places = [CredentialPlace(header="X-Api-Key"), CredentialPlace(header="Authorization")]
    lines = ReadyLines("https://api.example.com", places).of("ost_test_1")
    assert "Authorization: Bearer ost_test_1" in lines[0].text
    assert "ost_test_1" not in repr(lines)
    compile(lines[1].text, "line", "exec")


def test_charts_tell_in_words_what_they_show_and_escape_names() -> None:
    """A chart has a label for whoever does not see it, and a key's name in it is text. R365."""
    days = [Day(date(2026, 1, 1) + timedelta(days=back), served=back, refused=1) for back in range(30)]
    for picture in (spark(days, '"><script>'), daily(days, '"><script>')):
        assert "<script>" not in picture
        assert f"{sum(day.total for day in days):,} requests in 30 days" in picture
        assert "style=" not in picture
    assert "NaN" not in daily([], "none")
    assert "0 requests" in spark([Day(date(2026, 1, 1))], "none")


@given(st.integers(0, 10**15))
def test_no_bar_is_taller_than_its_chart(most: int) -> None:
    """However much was used in a day."""
    picture = daily([Day(date(2026, 1, 1), served=most, failed=most // 3)], "a")
    heights = [float(height) for height in re.findall(r'height="([0-9.]+)"/>', picture)]
    assert sum(heights) <= 220


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (7_800_000, "7.8 MB"), (5e15, "5000.0 TB")]
)
def test_bytes_as_people_read_them(number: float, text: str) -> None:
    """In the unit that fits."""
    assert of_bytes(number) == text
