"""What a run's latencies are boiled down to."""

import pytest

from bench.figures import Figures, document_of, percentile
from bench.replies import Reply


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        pytest.param([], 0.5, 0.0, id="none"),
        pytest.param([7.0], 0.5, 7.0, id="one, middle"),
        pytest.param([7.0], 0.999, 7.0, id="one, high"),
        pytest.param([1.0, 2.0], 0.5, 1.0, id="two: half do not exceed the first"),
        pytest.param([1.0, 2.0], 0.51, 2.0, id="two: more than half do"),
        pytest.param([float(number) for number in range(1, 101)], 0.99, 99.0, id="the 99th of 100"),
        pytest.param([float(number) for number in range(1, 1001)], 0.999, 999.0, id="the 999th of 1,000"),
        pytest.param([1.0, 2.0, 3.0], 1.0, 3.0, id="all"),
        pytest.param([1.0, 2.0, 3.0], 0.0, 1.0, id="nothing is below the first"),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], share: float, expected: float) -> None:
    """The nearest rank: the smallest value that the share does not exceed."""
    assert percentile(values, share) == expected


def test_figures_come_from_seconds_in_any_order() -> None:
    """Latencies are sorted and turned into microseconds; what was late is told apart."""
    latencies = [number / 1000 for number in range(1000, 0, -1)]
    figures = Figures(**document_of(latencies, 2.0, 3, late=[0.001, 0.002]))  # type: ignore[arg-type]
    assert figures == Figures(1000, 2.0, 3, 500_000.0, 990_000.0, 999_000.0, 2_000.0)


_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([_WHOLE], [True], id="at once"),
        pytest.param([_WHOLE[:9], _WHOLE[9:40], _WHOLE[40:]], [None, None, True], id="in pieces"),
        pytest.param([_WHOLE, _WHOLE], [True, True], id="two"),
        pytest.param([b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"], [False], id="another status"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\n"], [False], id="without a length"),
    ],
)
def test_a_reply_is_whole_when_its_last_byte_is_there(pieces: list[bytes], expected: list[bool | None]) -> None:
    """Neither earlier nor later, and only a 200 is good."""
    reply = Reply()
    assert [reply.feed(piece) for piece in pieces] == expected
