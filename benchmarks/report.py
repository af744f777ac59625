"""Writes RESULTS.md and its plots from results: measured numbers and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import figures, plots, texts
from benchmarks.broker import Window
from benchmarks.figures import Metric, Quartiles, Table
from benchmarks.plots import Bar, Panel, number_text
from benchmarks.results import Machine, Results
from benchmarks.rounds import can
from benchmarks.systems import SYSTEMS
from benchmarks.texts import LANGUAGES, Language, Text, said
from benchmarks.works import WORKS, Work

_BASE = "flowengine"
_NAMES: dict[Language, str] = {"en": "RESULTS.md", "zh-CN": "RESULTS.zh-CN.md"}
_GLANCE = ("records-1.5k", "records-60k", "one-device", "heartbeats", "commands")


def write(folder: Path, results: Results) -> list[Path]:
    """Write both languages and all plots into the folder; what was written."""
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    written = []
    for language in LANGUAGES:
        report = Report(language, results)
        for name, drawing in report.drawings().items():
            written.append(folder / "plots" / f"{name}.{language}.svg")
            written[-1].write_text(drawing, encoding="utf-8")
        written.append(folder / _NAMES[language])
        written[-1].write_text(report.text(), encoding="utf-8")
    return written


class Report:
    """The report in one language."""

    def __init__(self, language: Language, results: Results) -> None:
        self._language: Language = language
        self._machines = results.machines
        self._ceilings = results.ceilings
        self._tables = figures.tables(results.batches)
        self._windows: list[Window] = sorted({window for window, _work in self._tables})
        found = {batch.system for batch in results.batches}
        self._systems = [name for name in SYSTEMS if name in found]

    def text(self) -> str:
        """The whole of it, as Markdown."""
        say = self._say
        parts = [f"# {say(texts.TITLE)}", say(texts.MADE), say(texts.READING)]
        if self._machines:
            parts += [f"## {say(texts.MACHINE)}", self._machine(self._machines)]
        parts.append(
            self._table([texts.SYSTEM, texts.DOES], ([self._title(n), say(texts.SYSTEMS[n][1])] for n in self._systems))
        )
        for window in self._windows:
            parts += [f"## {say(texts.WINDOW[window])}", *self._window(window)]
        if self._ceilings:
            parts += [f"## {say(texts.ALONE)}", say(texts.ALONE_READING), self._alone()]
        return "\n\n".join(parts) + "\n"

    def _alone(self) -> str:
        """What the rig reached without a system, the last time it was measured."""
        newest = {(found.part, found.load): found for found in self._ceilings}
        rows = [
            [
                self._say(texts.PARTS[part]),
                self._say(WORKS[load].title),
                number_text(found.rate),
                ", ".join(f"{name} {number_text(us)}" for name, us in found.cpu_us.items()),
            ]
            for (part, load), found in newest.items()
        ]
        return self._table([texts.PART, texts.WORK, texts.RATE, texts.CPU], rows)

    def drawings(self) -> dict[str, str]:
        """The plots by name, as SVG."""
        return {
            f"{name}-{window}": plots.svg(self._say(title), self._say(texts.WINDOW[window]), panels)
            for window in self._windows
            for name, title, panels in self._plots(window)
            if panels
        }

    def _window(self, window: Window) -> Iterable[str]:
        for name, title, panels in self._plots(window):
            if panels:
                yield f"![{self._say(title)}](plots/{name}-{window}.{self._language}.svg)"
        yield f"### {self._say(texts.SUMMARY)}"
        yield self._glance(window)
        for work in WORKS.values():
            table = self._tables.get((window, work.name))
            if table is not None:
                yield from self._work(work, table)

    def _glance(self, window: Window) -> str:
        others = [name for name in self._systems if name != _BASE]
        rows = []
        for name in _GLANCE:
            table = self._tables.get((window, name))
            if table is None:
                continue
            base = table.quartiles(_BASE, figures.rate)
            row = [self._say(WORKS[name].title), number_text(base.median) if base else ""]
            for other in others:
                rate, ratio = table.quartiles(other, figures.rate), table.ratio(_BASE, other, figures.rate)
                row.append(f"{number_text(rate.median)} (× {ratio.median:.2f})" if rate and ratio else "")
            rows.append(row)
        heads: list[Text | str] = [texts.WORK, self._title(_BASE), *map(self._title, others)]
        return self._table(heads, rows)

    def _work(self, work: Work, table: Table) -> Iterable[str]:
        yield f"### {self._say(work.title)}"
        systems = [name for name in self._systems if name in table.systems]
        columns: list[tuple[Text, Metric]]
        if work.way == "start":
            columns = [(texts.START, figures.start), (texts.MEMORY, figures.rss)]
            compared = [(texts.RATIO, figures.start)]
        else:
            columns = [(texts.P50, figures.p50), (texts.P99, figures.p99), (texts.MEMORY, figures.rss)]
            if _drained(work):
                columns = [(texts.CLEAR, figures.seconds), (texts.MEMORY, figures.rss)]
            compared = []
            if work.beside is None:
                columns = [(texts.RATE, figures.rate), (texts.CPU, figures.cpu), *columns]
                compared = [(texts.RATIO, figures.rate), (texts.CPU_RATIO, figures.cpu)]
        counted = [(texts.LOST, figures.lost), (texts.REPEATED, figures.repeats), (texts.SWAPPED, figures.swapped)]
        counted = [] if work.way == "start" else counted
        rows = [
            [self._title(name)]
            + [_between(table.quartiles(name, metric)) for _text, metric in columns]
            + ["" if name == _BASE else _times(table.ratio(_BASE, name, metric)) for _text, metric in compared]
            + [str(table.total(name, metric)) for _text, metric in counted]
            + [str(len(table.of(name)))]
            for name in systems
        ]
        heads = [texts.SYSTEM, *(text for text, _metric in (*columns, *compared, *counted)), texts.ROUNDS]
        if rows:
            yield self._table(heads, rows)
        if work.way != "start":
            kind = "drain" if _drained(work) else "replies" if _replies(work) else "posts"
            yield self._say(texts.LATENCY[kind])
        unable = [self._title(name) for name in self._systems if not can(SYSTEMS[name], work)]
        if unable:
            yield self._say(texts.NOT_MADE).format(names=", ".join(unable))
        for name, error in table.errors.items():
            yield self._say(texts.FAILED).format(name=self._title(name), error=" ".join(error.split())[:300])

    def _plots(self, window: Window) -> list[tuple[str, Text, list[Panel]]]:
        say = self._say

        def panels(metric: Metric, works: Iterable[str], better: Text, title: Text | None = None) -> list[Panel]:
            return [
                Panel(say(title or WORKS[work].title), say(better), bars)
                for work in works
                if (window, work) in self._tables and (bars := self._bars(self._tables[window, work], metric))
            ]

        return [
            ("rates", texts.PLOT_RATE, panels(figures.rate, _GLANCE, texts.MORE)),
            ("cpu", texts.PLOT_CPU, panels(figures.cpu, _GLANCE, texts.LESS)),
            (
                "other",
                texts.PLOT_OTHER,
                panels(figures.rss, ["records-1.5k"], texts.LESS, texts.PLOT_MEMORY)
                + panels(figures.start, ["start"], texts.LESS, texts.PLOT_START)
                + panels(figures.p99, ["heartbeats-200"], texts.LESS, texts.PLOT_P99),
            ),
        ]

    def _bars(self, table: Table, metric: Metric) -> list[Bar]:
        found = ((name, table.quartiles(name, metric)) for name in self._systems)
        return [Bar(self._title(name), value, name == _BASE) for name, value in found if value is not None]

    def _machine(self, machines: Sequence[Machine]) -> str:
        """When and on what commits was measured, and with what; the versions of a system are those of its last run."""
        machine = machines[-1]
        versions = {name: version for each in machines for name, version in each.versions.items()}
        lines = [
            "; ".join({each.commit: f"{each.at}, {each.commit}" for each in reversed(machines)}.values()),
            f"{machine.cpu}, {machine.cores} ×, {machine.memory_gb} GB, {machine.kernel}",
            f"Mosquitto {machine.mosquitto}",
            *(f"{self._title(name)}: {version}" for name, version in versions.items() if name in self._systems),
        ]
        return "\n".join(f"- {line}" for line in lines)

    def _table(self, heads: Iterable[Text | str], rows: Iterable[Sequence[str]]) -> str:
        names = [head if isinstance(head, str) else self._say(head) for head in heads]
        lines = [names, ["---"] * len(names), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _title(self, system: str) -> str:
        return self._say(texts.SYSTEMS[system][0])

    def _say(self, text: Text) -> str:
        return said(text, self._language)


def _drained(work: Work) -> bool:
    return work.way in ("backlog", "outbox")


def _replies(work: Work) -> bool:
    return work.way == "commands" or "heartbeat" in work.plan.get("kinds", ())


def _between(value: Quartiles | None) -> str:
    if value is None:
        return ""
    if value.low == value.high:
        return number_text(value.median)
    return f"{number_text(value.median)} ({number_text(value.low)}–{number_text(value.high)})"


def _times(ratio: Quartiles | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio.median:.2f}" + ("" if ratio.low == ratio.high else f" ({ratio.low:.2f}–{ratio.high:.2f})")
