"""Curves as SVG, in a grid of panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_PANEL, _HEIGHT = 360, 240
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 44, 22, 44
_HEAD = 46
_COLUMNS = 2
_TICKS = 4
_LINE = "#1f6feb"
_STYLE = (
    f".strong{{fill:#1f2328;font-weight:600}}.axis{{stroke:#d0d7de;fill:none}}.target{{fill:{_LINE};opacity:.1}}"
    f".curve{{stroke:{_LINE};stroke-width:2;fill:none}}.point{{fill:{_LINE}}}.spread{{stroke:#1f2328;stroke-width:1.5}}"
)


class Place(NamedTuple):
    """One point: where it stands, its height, and how far its height went down and up."""

    x: float
    y: float
    low: float
    high: float


class Panel(NamedTuple):
    """One curve. band: heights between which it is to stay; without one it may grow in proportion, over an even scale."""

    title: str
    x_label: str
    y_label: str
    places: Sequence[Place]
    band: tuple[float, float] | None


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The panels, row by row, under a title."""
    width, height = _COLUMNS * _PANEL, _HEAD + math.ceil(len(panels) / _COLUMNS) * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="#57606a">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text class="strong" x="16" y="30" font-size="18">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        parts += [f'<g transform="translate({column * _PANEL} {_HEAD + row * _HEIGHT})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    xs = [place.x for place in panel.places]
    top = _round_up(max([place.high for place in panel.places] + list(panel.band or ())))
    wide, deep = _PANEL - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    across = [round(_LEFT + wide * share, 1) for share in _shares(xs, panel.band is None)]

    def down(y: float) -> float:
        return round(_TOP + deep * (1 - y / top), 1)

    parts = [_text(16, 16, panel.title, "start", "strong"), _text(16, 32, panel.y_label, "start")]
    if panel.band is not None:
        low, high = panel.band
        parts.append(
            f'<rect class="target" x="{_LEFT}" width="{wide}" y="{down(high)}" height="{down(low) - down(high):.1f}"/>'
        )
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{_TOP + deep}H{_LEFT + wide}"/>')
    for tick in range(_TICKS + 1):
        parts.append(_text(_LEFT - 5, down(top * tick / _TICKS) + 4, _short(top * tick / _TICKS), "end"))
    parts += [_text(x, _TOP + deep + 15, _short(value), "middle") for x, value in zip(across, xs, strict=True)]
    parts.append(_text(_LEFT + wide / 2, _HEIGHT - 8, panel.x_label, "middle"))
    line = "L".join(f"{x} {down(place.y)}" for x, place in zip(across, panel.places, strict=True))
    parts.append(f'<path class="curve" d="M{line}"/>')
    for x, place in zip(across, panel.places, strict=True):
        parts.append(f'<path class="spread" d="M{x} {down(place.low)}V{down(place.high)}"/>')
        parts.append(f'<circle class="point" cx="{x}" cy="{down(place.y)}" r="3"/>')
    return parts


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text{shown} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def _shares(xs: Sequence[float], even: bool) -> list[float]:
    """How far to the right each x stands, from 0 to 1; unless even, on a logarithmic scale with 0 a decade before the next."""
    least = min((x for x in xs if x > 0), default=1.0)
    places = [x if even else math.log10(max(x, least / 10)) for x in xs]
    return [(place - places[0]) / ((places[-1] - places[0]) or 1) for place in places]


def _round_up(value: float) -> float:
    """The next height that divides well."""
    step = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * times for times in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * times >= value)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
