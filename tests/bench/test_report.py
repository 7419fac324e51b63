"""The tables and pictures."""

from xml.etree import ElementTree

import pytest

from bench import plot
from bench.measure import Row, Sample
from bench.request_report import overview, table

_SVG = "{http://www.w3.org/2000/svg}"


def sample(cpu_us: float | None) -> Sample:
    return Sample(
        requests=1000,
        requests_per_second=20_000.0,
        p50_us=500.0,
        p99_us=1_500.0,
        p999_us=2_500.0,
        late_p99_us=None,
        cpu_us_per_request=cpu_us,
        core_share=None if cpu_us is None else 0.5,
        peak_rss_bytes=None if cpu_us is None else 64 * 2**20,
    )


ROWS = [
    Row("no proxy", "-", samples=[sample(None)]),
    Row("floor", "1", samples=[sample(10.0)]),
    Row("measured", "2", samples=[sample(30.0), sample(20.0), sample(70.0)]),
    Row("absent", None),
    Row("broken", "3", failure="it\nsaid a|b", samples=[sample(1.0)]),
]


def test_the_table_has_a_line_for_each_and_a_cell_for_each_column() -> None:
    """A peer that is missing or failed is a line that says so, and never a figure."""
    lines = table(ROWS, "floor").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2:] == [
        "| no proxy | - | - | - | - | 20,000 | 0.50 | 1.50 | 2.50 | - | - |",
        "| floor | 1 | **10.0** | 10.0 - 10.0 | +0.0 | 20,000 | 0.50 | 1.50 | 2.50 | 50% | 64 |",
        "| measured | 2 | **30.0** | 20.0 - 70.0 | +20.0 | 20,000 | 0.50 | 1.50 | 2.50 | 50% | 64 |",
        "| absent | not installed | - | - | - | - | - | - | - | - | - |",
        "| broken | 3 | failed: said a/b | - | - | - | - | - | - | - | - |",
    ]


def test_the_overview_has_a_column_for_each_workload() -> None:
    """Peers that could not take part in one are not left out of the others."""
    assert overview([("get", ROWS), ("routes", [ROWS[2]])]).splitlines()[2:] == [
        "| floor | 10.0 | - |",
        "| measured | 30.0 | 30.0 |",
        "| broken | failed | - |",
    ]


def _picture(layout: plot.Layout, *panels: plot.Panel) -> ElementTree.Element:
    return ElementTree.fromstring(plot.draw("Cost <of> a request", "A & B", panels, layout))


def _widths(picture: ElementTree.Element) -> list[float]:
    return [float(bar.attrib["width"]) for bar in picture.iter(f"{_SVG}rect") if bar.attrib["class"] == "bar"]


def test_bars_are_as_long_as_their_values() -> None:
    """On one scale, from zero."""
    bars = [
        plot.Bar("a", 10.0, 9.0, 11.0),
        plot.Bar("b", 40.0, 40.0, 40.0, is_ours=True),
        plot.Bar("c", 20.0, 1.0, 30.0),
    ]
    widths = _widths(_picture(plot.ONE, plot.Panel("All", bars)))
    assert [width / widths[0] for width in widths] == pytest.approx([1.0, 4.0, 2.0], abs=0.01)


def test_a_bar_beyond_measure_is_cut_and_says_its_value() -> None:
    """Or the others could not be told apart; the cut is seen, and the figure stands beside it."""
    bars = [plot.Bar("a", 10.0, 10.0, 10.0), plot.Bar("b", 12.0, 12.0, 12.0), plot.Bar("c", 1234.5, 1.0, 2000.0)]
    picture = _picture(plot.ONE, plot.Panel("All", bars))
    widths = _widths(picture)
    assert widths[2] == pytest.approx(6 * widths[1], rel=0.01)
    assert len([path for path in picture.iter(f"{_SVG}path") if path.attrib["class"] == "cut"]) == 2
    assert "1,234.5" in [text.text for text in picture.iter(f"{_SVG}text")]


@pytest.mark.parametrize("layout", [plot.ONE, plot.MANY], ids=["one", "many"])
def test_nothing_is_drawn_outside(layout: plot.Layout) -> None:
    """However many panels and bars; a panel without bars does no harm."""
    bars = [plot.Bar(f"peer {number}", number, number, number + 1) for number in range(1, 10)]
    picture = _picture(layout, *(plot.Panel(f"Panel {number}", bars) for number in range(4)), plot.Panel("None", []))
    _, _, width, height = (float(number) for number in picture.attrib["viewBox"].split())
    assert width == layout.width
    for group in picture.iter(f"{_SVG}g"):
        if "transform" in group.attrib:
            x, y = (float(part) for part in group.attrib["transform"][len("translate(") : -1].split())
            for bar in group.iter(f"{_SVG}rect"):
                assert 0 < x + float(bar.attrib["width"]) < width
                assert 0 < y + float(bar.attrib["y"]) + float(bar.attrib["height"]) < height
