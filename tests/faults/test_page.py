"""The page says what the code does: every fault is on it, and everything said of others has a source."""

from collections import Counter

from tests.faults.kinds import FAULTS
from tests.faults.page import DOCUMENT, PEERS, peers_said, written
from tests.faults.run import Seen


def test_every_fault_is_on_the_page() -> None:
    """Whoever adds a fault runs all of them."""
    page = DOCUMENT.read_text()
    rows = [line for line in page.splitlines() if line.startswith("| **")]
    assert [row.partition("**: ")[0].removeprefix("| **") for row in rows] == [fault.name for fault in FAULTS]
    for fault in FAULTS:
        assert fault.what in page, f"{fault.name} is described otherwise now: run `make faults`"


def test_no_two_faults_have_one_name() -> None:
    """They are told apart by it."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_what_is_said_of_others_has_a_source() -> None:
    """For each fault, of each of them: a statement and where it stands, or that there is none."""
    assert {fault.peers for fault in FAULTS} == set(peers_said())
    for row in peers_said().values():
        assert list(row) == list(PEERS)
        for said in row.values():
            assert said is None or (said[0] and said[1:] and all(url.startswith("https://") for url in said[1:]))


def test_the_page_is_the_same_when_little_differs() -> None:
    """Counts and fractions of seconds are not on it."""

    def seen(times: int, seconds: float) -> list[Seen]:
        outcomes = {"known": Counter({"200": times, "503 auth_unavailable": times}), "bad": Counter({"401": times})}
        return [Seen(fault.name, outcomes, {"known": seconds}, 0.1, 5.0, seconds, seconds, 100, 0) for fault in FAULTS]

    assert written(seen(3, 0.4)) == written(seen(70, 0.8))
    assert written(seen(3, 0.4)) != written(seen(3, 1.8))
    assert "200; 503 `auth_unavailable`" in written(seen(3, 0.4))
