"""Pictures of nodes, drawn here as SVG: who is behind, where knowledge came from, and how long requests have taken."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from gateway.control.portal.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH
from gateway.telemetry.signs import BOUNDS

ROW: Final = 30
NAMES: Final = 250
END: Final = 24
# Where a node stands that is so many revisions behind, from the right: by doubling, since one matters most.
STEPS: Final = (0, 1, 10, 100, 1000, 10_000)
SHARE_WIDTH: Final = 220
SHARE_HEIGHT: Final = 14
LABEL_EVERY: Final = 3  # of the spans of time: more do not fit on a phone
# Where knowledge came from, the nearest first, and how it is drawn.
TIERS: Final = {
    "local": "served",
    "stream": "served",
    "redis": "refused",
    "replica": "refused",
    "retired": "failed",
    "postgres": "failed",
}


def progress(nodes: Sequence[tuple[str, int, str, str]]) -> Markup:
    """A track for each node (id, revisions behind, state, words): who is at the line on the right knows everything."""
    height = ROW * len(nodes) + 34
    right = WIDTH - END
    step = (right - NAMES) / (len(STEPS) - 1)
    parts = []
    for index, lag in enumerate(STEPS):
        x = right - index * step
        kind = "goal" if lag == 0 else "grid"
        label = "up to date" if lag == 0 else f"{lag:,}{'+' if lag == STEPS[-1] else ''}"
        anchor = "end" if lag == 0 else "middle"
        parts.append(
            Markup(
                '<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="8" y2="{}"/>'
                '<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>'
            ).format(kind, x, x, height - 24, x + (END - 2 if lag == 0 else 0), height - 6, anchor, label)
        )
    for index, (node_id, lag, state, words) in enumerate(nodes):
        y = 8 + ROW * index + ROW / 2
        x = right - step * _steps_back(lag)
        parts.append(
            Markup(
                '<g><title>{}: {}</title><text x="0" y="{:.1f}">{}</text>'
                '<line class="track" x1="{}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
                '<circle class="node {}" cx="{:.1f}" cy="{:.1f}" r="7"/></g>'
            ).format(node_id, words, y + 4, _short(node_id), NAMES, x, y, y, state, x, y)
        )
    label = "; ".join(f"{_short(node_id)} {words}" for node_id, _, _, words in nodes) or "no node"
    return Markup('<svg class="chart fleet" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, Markup("").join(parts)
    )


def _steps_back(lag: int) -> float:
    for index, (lower, upper) in enumerate(pairwise(STEPS)):
        if lag <= upper:
            return index + (lag - lower) / (upper - lower)
    return len(STEPS) - 1


def _short(node_id: str) -> str:
    return node_id if len(node_id) <= 24 else node_id[:23] + "…"


def shares(decisions: Mapping[str, int], what: str) -> Markup:
    """One bar: what part of a node's decisions was by its own memory, by Redis, by Postgres."""
    total = sum(decisions.values())
    x, parts, said = 0.0, Markup(""), []
    for tier in sorted(decisions, key=lambda tier: (list(TIERS).index(tier) if tier in TIERS else len(TIERS), tier)):
        width = SHARE_WIDTH * decisions[tier] / max(1, total)
        parts += Markup('<rect class="{}" x="{:.1f}" y="0" width="{:.1f}" height="{}"><title>{}</title></rect>').format(
            TIERS.get(tier, "none"), x, width, SHARE_HEIGHT, f"{tier}: {decisions[tier]:,}"
        )
        x += width
        said.append(f"{tier} {decisions[tier] / max(1, total):.1%}")
    label = f"{what}: {', '.join(said) or 'no decision yet'}"
    return Markup('<svg class="share" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        SHARE_WIDTH, SHARE_HEIGHT, label, parts
    )


def durations(counted: Mapping[str, int]) -> Markup:
    """How long requests have taken: a bar for each span of time, with the shorter ones on the left."""
    most = max(counted.values(), default=0) or 1
    inner, step = HEIGHT - TOP - 28, (WIDTH - LEFT - RIGHT) / len(BOUNDS)
    parts = []
    for index, bound in enumerate(BOUNDS):
        number = counted.get(bound, 0)
        height = max(2.0, inner * number / most) if number else 0.0
        x = LEFT + index * step
        text = f"over {_span(BOUNDS[-2])}" if bound == "+Inf" else f"≤ {_span(bound)}"
        parts.append(
            Markup(
                '<g><title>{}: {:,}</title><rect class="served" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
                '<text x="{:.1f}" y="{}" text-anchor="middle">{}</text></g>'
            ).format(
                text,
                number,
                x + step * 0.12,
                TOP + inner - height,
                step * 0.76,
                height,
                x + step / 2,
                HEIGHT - 6,
                "longer" if bound == "+Inf" else "" if index % LABEL_EVERY else _span(bound),
            )
        )
    label = f"How long {sum(counted.values()):,} requests took: {said(counted)}"
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def said(counted: Mapping[str, int]) -> str:
    """Within which time a half, 95 and 99 of a hundred were answered, as exact as the spans are."""
    total = sum(counted.values())
    if not total:
        return "no request yet"
    texts = []
    for part in (0.5, 0.95, 0.99):
        running = 0
        for bound in BOUNDS:
            running += counted.get(bound, 0)
            if running >= part * total:
                within = f"within {_span(bound)}" if bound != "+Inf" else f"over {_span(BOUNDS[-2])}"
                texts.append(f"{part:.0%} {within}")
                break
    return ", ".join(texts)


def _span(bound: str) -> str:
    seconds = float(bound)
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"
