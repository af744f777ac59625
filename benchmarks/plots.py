"""Bar charts as SVG, drawn by hand: one bar a system, its length the median, with the quartiles as a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from benchmarks.figures import Quartiles

_WIDTH = 760
_LEFT = 170
_RIGHT = 110
_BAR = 22
_STEP = 32
_TITLE = 66
_GAP = 26
_FIRST = "#1f6feb"
_OTHERS = "#8b949e"
_INK = "#57606a"


class Bar(NamedTuple):
    """A system, its figure, and whether it is the one that is looked at."""

    label: str
    value: Quartiles
    first: bool = False


class Panel(NamedTuple):
    """A chart with its own scale; `better` says which direction is good."""

    title: str
    better: str
    bars: Sequence[Bar]


def svg(title: str, about: str, panels: Sequence[Panel]) -> str:
    """The panels one below the other, under a title and a line about it."""
    height = _TITLE + sum(_panel_height(panel) for panel in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="14">',
        f"<title>{escape(title)} · {escape(about)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text x="16" y="30" font-size="15" font-weight="600" fill="#1f2328">{escape(title)}</text>',
        f'<text x="16" y="50" fill="{_INK}">{escape(about)}</text>',
    ]
    top = _TITLE
    for panel in panels:
        parts += _drawn(panel, top)
        top += _panel_height(panel)
    return "\n".join([*parts, "</svg>", ""])


def _panel_height(panel: Panel) -> int:
    return _GAP + _STEP * len(panel.bars) + 14


def _drawn(panel: Panel, top: int) -> list[str]:
    longest = max((bar.value.high for bar in panel.bars), default=1.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    parts = [
        f'<text x="16" y="{top + 14}" fill="#1f2328" font-weight="600">{escape(panel.title)}'
        f'<tspan fill="{_INK}" font-weight="400" dx="8">{escape(panel.better)}</tspan></text>'
    ]
    for number, bar in enumerate(panel.bars):
        y = top + _GAP + number * _STEP
        middle = y + _BAR / 2
        low, median, high = (_LEFT + scale * value for value in bar.value)
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 5}" text-anchor="end" fill="#1f2328">{escape(bar.label)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{max(median - _LEFT, 1):.1f}" height="{_BAR}" rx="3" '
            f'fill="{_FIRST if bar.first else _OTHERS}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#1f2328" stroke-width="1.5"/>',
            f'<text x="{max(median, high) + 8:.1f}" y="{middle + 5}" fill="#1f2328">{number_text(bar.value.median)}</text>',
        ]
    return parts


def number_text(value: float) -> str:
    """A figure with three digits that count, and thousands set apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
