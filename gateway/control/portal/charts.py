"""Pictures of usage, drawn here as SVG: bars by day. A picture has its text beside it, for whoever does not see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from markupsafe import Markup

WIDTH: Final = 720
HEIGHT: Final = 220
LEFT: Final = 52
RIGHT: Final = 16
BOTTOM: Final = 28
TOP: Final = 10
LABELS: Final = 7  # at most, below the bars
SPARK_WIDTH: Final = 112
SPARK_HEIGHT: Final = 30

# How requests end, as people see it, by the outcomes of docs/metering.md.
SERVED: Final = "served"
REFUSED: Final = "refused"
FAILED: Final = "failed"
KINDS: Final = (SERVED, REFUSED, FAILED)
KIND_OF: Final = {"forwarded": SERVED, "preflight": SERVED, "refused": REFUSED, "client_error": REFUSED}


@dataclass(frozen=True, slots=True)
class Day:
    """The requests of one day, by kind."""

    day: date
    served: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.served + self.refused + self.failed


def spark(days: Sequence[Day], what: str) -> Markup:
    """A small chart, without axes: the requests of each day, the latest on the right."""
    most = max((day.total for day in days), default=0)
    total = sum(day.total for day in days)
    label = f"{what}: {total:,} requests in {len(days)} days"
    step = SPARK_WIDTH / max(1, len(days))
    bars = Markup("").join(
        Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1"/>').format(
            SERVED if day.total else "none",
            index * step,
            SPARK_HEIGHT - _height(day.total, most, SPARK_HEIGHT),
            step - 2,
            _height(day.total, most, SPARK_HEIGHT),
        )
        for index, day in enumerate(days)
    )
    return Markup('<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        SPARK_WIDTH, SPARK_HEIGHT, label, bars
    )


def _height(number: int, most: int, height: float) -> float:
    """The height of a bar: a day with any request at all is seen, and one without is a line."""
    return max(3.0, height * number / most) if number else 1.5


def daily(days: Sequence[Day], what: str) -> Markup:
    """Bars by day, each kind of outcome on top of the other."""
    top = _round_up(max((day.total for day in days), default=0))
    inner = HEIGHT - BOTTOM - TOP
    step = (WIDTH - LEFT - RIGHT) / max(1, len(days))
    every = -(-len(days) // LABELS) or 1
    parts = [_line(top, part, inner) for part in (0, 1, 2)]
    for index, day in enumerate(days):
        x = LEFT + index * step
        parts.append(_bar(day, x, step, top, inner))
        if (len(days) - 1 - index) % every == 0:
            text = f"{day.day.day} {day.day:%b}"
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x + step / 2, HEIGHT - 6, text)
            )
    total = sum(day.total for day in days)
    label = f"{what}: {total:,} requests in {len(days)} days. The table below has the numbers."
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def _line(top: int, part: int, inner: float) -> Markup:
    y = TOP + inner * (1 - part / 2)
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, y, y, LEFT - 8, y + 4, f"{top * part // 2:,}")


def _bar(day: Day, x: float, step: float, top: int, inner: float) -> Markup:
    width, y = max(1.0, step * 0.72), TOP + inner
    text = f"{day.day.isoformat()}: {day.served:,} served, {day.refused:,} refused, {day.failed:,} failed"
    rects = Markup("")
    for kind in KINDS:
        height = inner * getattr(day, kind) / top
        if height:
            y -= height
            rects += Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                kind, x + (step - width) / 2, y, width, height
            )
    return Markup("<g><title>{}</title>{}</g>").format(text, rects)


def _round_up(most: int) -> int:
    """An even round number that is not below `most`."""
    size = 2
    while True:
        for factor in (1, 2, 5):
            if size * factor >= most:
                return size * factor
        size *= 10
