"""Horizontal bars as an SVG, in panels beside and below each other. Nothing here knows what the bars measure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

_MARGIN = 28
_HEAD_HEIGHT = 78
_TITLE_HEIGHT = 30
_GAP = 28
_LABEL_WIDTH = 148
_VALUE_WIDTH = 62
_LONGEST = 6.0  # times the median: what is longer is cut, or the others could not be told apart

_STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #1f2933 }
  .title { font-size: 20px; font-weight: 650 }
  .note { font-size: 13px; fill: #66727f }
  .panel { font-size: 14px; font-weight: 600 }
  .label { font-size: 13px; text-anchor: end }
  .value { font-size: 13px; font-variant-numeric: tabular-nums; fill: #3e4c59 }
  .card { fill: #ffffff; stroke: #e4e7eb }
  .axis { stroke: #cbd2d9 }
  .bar { fill: #b8c4d0 }
  .spread { stroke: #52606d; stroke-width: 1.5; stroke-opacity: 0.65 }
  .cut { stroke: #ffffff; stroke-width: 3 }
  .ours .bar { fill: #0f7b6c }
  .ours .label, .ours .value { font-weight: 700; fill: #0b5c51 }
"""


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels, and how many panels stand beside each other."""

    width: int
    columns: int
    bar_height: int
    pitch: int

    @property
    def panel_width(self) -> int:
        """In pixels, labels and values included."""
        return (self.width - 2 * _MARGIN - _GAP * (self.columns - 1)) // self.columns

    def height_of(self, panel: "Panel") -> int:
        """In pixels, the title included."""
        return _TITLE_HEIGHT + self.pitch * len(panel.bars)


ONE = Layout(width=900, columns=1, bar_height=20, pitch=30)
MANY = Layout(width=1200, columns=3, bar_height=13, pitch=20)


@dataclass(frozen=True)
class Bar:
    """One bar, with the lowest and the highest of what `value` stands for."""

    label: str
    value: float
    low: float
    high: float
    is_ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars that share a scale, and how their values are written."""

    title: str
    bars: Sequence[Bar]
    digits: int = 1

    @property
    def limit(self) -> float:
        """The value of a bar that goes all the way; longer ones are cut."""
        values = [bar.value for bar in self.bars] or [1.0]
        return min(max(values), _LONGEST * median(values))


def _bar(bar: Bar, panel: Panel, y: int, length: float, height: int) -> str:
    """One bar of at most `length` pixels, `y` pixels down, its foot at 0."""
    limit = panel.limit
    scale = length / limit
    width = min(bar.value * scale, length)
    middle = y + height / 2
    parts = [
        f'<text class="label" x="-10" y="{middle + 4.5:.1f}">{escape(bar.label)}</text>',
        f'<rect class="bar" x="0" y="{y}" width="{width:.1f}" height="{height}" rx="2"/>',
    ]
    end = width
    if bar.value > limit:
        places = (length - 30, length - 22)
        parts += [f'<path class="cut" d="M{x - 4:.1f} {y + height + 2} L{x + 4:.1f} {y - 2}"/>' for x in places]
    elif bar.high <= limit:
        end = max(width, bar.high * scale)
        parts.append(f'<path class="spread" d="M{bar.low * scale:.1f} {middle} H{end:.1f}"/>')
    parts.append(f'<text class="value" x="{end + 8:.1f}" y="{middle + 4.5:.1f}">{bar.value:,.{panel.digits}f}</text>')
    return f'<g class="{"ours" if bar.is_ours else "peer"}">{"".join(parts)}</g>'


def _panel(panel: Panel, x: int, y: int, layout: Layout) -> str:
    length = layout.panel_width - _LABEL_WIDTH - _VALUE_WIDTH
    bars = [
        _bar(bar, panel, _TITLE_HEIGHT + layout.pitch * number, length, layout.bar_height)
        for number, bar in enumerate(panel.bars)
    ]
    return "\n".join(
        [
            f'<g transform="translate({x + _LABEL_WIDTH} {y})">',
            f'<text class="panel" x="{-_LABEL_WIDTH}" y="16">{escape(panel.title)}</text>',
            *bars,
            f'<path class="axis" d="M0 {_TITLE_HEIGHT - 4} V{layout.height_of(panel) - 3}"/>',
            "</g>",
        ]
    )


def draw(title: str, note: str, panels: Sequence[Panel], layout: Layout) -> str:
    """Return the picture as a document; panels follow each other from left to right, then down."""
    y = _HEAD_HEIGHT
    drawn = []
    for start in range(0, len(panels), layout.columns):
        line = panels[start : start + layout.columns]
        places = [_MARGIN + number * (layout.panel_width + _GAP) for number in range(len(line))]
        drawn += [_panel(panel, x, y, layout) for panel, x in zip(line, places, strict=True)]
        y += max(layout.height_of(panel) for panel in line) + _GAP
    width, height = layout.width, y - _GAP + _MARGIN - 8
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>',
            f'<text class="title" x="{_MARGIN}" y="38">{escape(title)}</text>',
            f'<text class="note" x="{_MARGIN}" y="58">{escape(note)}</text>',
            *drawn,
            "</svg>\n",
        ]
    )
