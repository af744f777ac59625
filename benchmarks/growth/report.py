"""Writes GROWTH.md and its plots, in both languages, from points that were measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.growth import texts
from benchmarks.growth.axes import AXES, RATE, Cost
from benchmarks.growth.curves import Panel, Place, svg
from benchmarks.growth.results import Line, Point
from benchmarks.plots import number_text
from benchmarks.results import Machine
from benchmarks.texts import LANGUAGES, MACHINE, MEMORY, Language, said

_NAMES: dict[Language, str] = {"en": "GROWTH.md", "zh-CN": "GROWTH.zh-CN.md"}


class Curve(NamedTuple):
    """One curve: a place for each value, the first of the axis at a ratio of 1, and what was measured there."""

    axis: str
    base_us: float
    places: Mapping[int, Place]
    costs: Mapping[int, Sequence[Cost]]
    failed: Sequence[Point]

    @property
    def flat(self) -> bool:
        """Whether no ratio is beyond the target."""
        within = AXES[self.axis].within
        return within is None or max(place.y for place in self.places.values()) <= self.base_us * within

    @property
    def slope(self) -> float:
        """Microseconds for each one more, between both ends."""
        low, high = min(self.places), max(self.places)
        return (self.places[high].y - self.places[low].y) / ((high - low) or 1)


def curves(lines: Iterable[Line]) -> list[Curve]:
    """The curves for which there are points, in the order of the axes."""
    points: defaultdict[str, list[Point]] = defaultdict(list)
    for line in lines:
        if isinstance(line, Point):
            points[line.axis].append(line)
    return [_curve(axis, points[axis]) for axis in AXES if any(point.cost for point in points[axis])]


def _curve(axis: str, points: Sequence[Point]) -> Curve:
    costs: defaultdict[int, list[Cost]] = defaultdict(list)
    for point in points:
        if point.cost is not None:
            costs[point.value].append(point.cost)
    base = AXES[axis].values[0]
    base_us = median(cost.base_us for found in costs.values() for cost in found)
    places = {base: Place(base, base_us, base_us, base_us)}
    for value, found in costs.items():
        ratios = [cost.cpu_us / cost.base_us for cost in found]
        places[value] = Place(value, median(ratios) * base_us, min(ratios) * base_us, max(ratios) * base_us)
    return Curve(axis, base_us, dict(sorted(places.items())), costs, [point for point in points if point.failed])


def write(folder: Path, lines: Sequence[Line]) -> list[Path]:
    """Write both languages and their plots into the folder; what was written."""
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    written = []
    for language in LANGUAGES:
        for name, content in ((f"plots/growth.{language}.svg", plot), (_NAMES[language], text)):
            written.append(folder / name)
            written[-1].write_text(content(lines, language), encoding="utf-8")
    return written


def text(lines: Sequence[Line], language: Language) -> str:
    """The report as Markdown."""
    rounds = len({line.round for line in lines if isinstance(line, Point)})
    title = said(texts.TITLE, language)
    parts = [f"# {title}", said(texts.MADE, language), said(texts.READING, language).format(rate=RATE, rounds=rounds)]
    for machine in [line for line in lines if isinstance(line, Machine)][-1:]:
        parts += [f"## {said(MACHINE, language)}", _machine(machine)]
    parts.append(f"![{title}](plots/growth.{language}.svg)")
    for curve in curves(lines):
        parts += [f"## {said(texts.AXES[curve.axis][0], language)}", _table(curve, language), _verdict(curve, language)]
        for point in curve.failed:
            parts.append(said(texts.FAILED, language).format(value=point.value, reason=point.failed))
    return "\n\n".join(parts) + "\n"


def plot(lines: Sequence[Line], language: Language) -> str:
    """The curves as SVG."""
    panels = []
    for curve in curves(lines):
        within = AXES[curve.axis].within
        band = None if within is None else (curve.base_us * (2 - within), curve.base_us * within)
        title, along = (said(words, language) for words in texts.AXES[curve.axis])
        panels.append(Panel(title, along, said(texts.CPU, language), list(curve.places.values()), band))
    return svg(said(texts.TITLE, language), panels)


def _machine(machine: Machine) -> str:
    facts = [
        f"{machine.at}, {machine.commit}",
        f"{machine.cpu}, {machine.cores} ×, {machine.memory_gb} GB, {machine.kernel}",
        f"Mosquitto {machine.mosquitto}",
        *machine.versions.values(),
    ]
    return "\n".join(f"- {fact}" for fact in facts)


def _table(curve: Curve, language: Language) -> str:
    along = texts.AXES[curve.axis][1]
    heads = [said(head, language) for head in (along, texts.CPU, texts.RATIO, MEMORY, texts.IDLE)]
    rows = [heads, ["---:"] * len(heads)]
    for value, place in curve.places.items():
        found = curve.costs.get(value, [])
        idle = [cost.idle_ms for cost in found if cost.idle_ms is not None]
        low, middle, high = (f"{y / curve.base_us:.2f}" for y in (place.low, place.y, place.high))
        rows.append(
            [
                f"{value:,}",
                number_text(place.y),
                middle if low == high else f"{middle} ({low}–{high})",
                number_text(median(cost.memory_mb for cost in found)) if found else "",
                number_text(median(idle)) if idle else "",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _verdict(curve: Curve, language: Language) -> str:
    within = AXES[curve.axis].within
    if within is None:
        return said(texts.GROWING, language).format(slope=curve.slope)
    return said(texts.WITHIN if curve.flat else texts.BEYOND, language).format(within=within)
