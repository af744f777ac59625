"""What a message costs is what was committed, and what would make it dearer is seen."""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gate
from benchmarks.counting import Count
from benchmarks.replay import WORKS, replay
from flowengine.runtime.flow import Emitter, FlowRun

RENEW = "if this is meant: python -m benchmarks.gate --write"


@pytest.mark.parametrize("work", WORKS)
def test_a_message_costs_what_was_committed(work: str) -> None:
    figures = gate.committed()
    if figures is None:
        pytest.skip(f"no figures are committed for Python {gate.PYTHON}")
    count, _places = replay(work)
    assert list(gate.differences(figures, {work: count})) == [], RENEW


@pytest.fixture(scope="module")
def unharmed() -> Count:
    return replay("records")[0]


def test_the_same_replay_costs_the_same_again(unharmed: Count) -> None:
    assert list(gate.differences({"records": unharmed}, {"records": replay("records")[0]})) == []


@pytest.mark.parametrize("work", ["heartbeats", "records"])
def test_a_message_costs_the_same_among_many_devices(work: str) -> None:
    few, many = (replay(work, devices)[0] for devices in (32, 2048))
    assert list(gate.differences({work: few}, {work: many})) == []


@pytest.mark.parametrize(
    ("function", "line", "worse"),
    [
        pytest.param(Emitter.__call__, "Message(payload, meta, ", "Message(payload, {**meta}, ", id="dict copied"),
        pytest.param(Emitter.__call__, "Message(payload, meta, ", "Message(payload, dict(meta), ", id="dict made"),
        pytest.param(
            FlowRun.finish,
            "self.books.delivered += 1",
            "self.books.delivered += 1; self.log.debug('delivered', id=msg.id)",
            id="log call, of a level that is not shown",
        ),
        pytest.param(
            FlowRun.finish,
            "self.books.delivered += 1",
            "self.books.delivered += 1; asyncio.get_running_loop().create_task(asyncio.sleep(0))",
            id="task",
        ),
        pytest.param(
            FlowRun.finish,
            "self.books.delivered += 1",
            "self.books.delivered += len([n for n in range(15) if n == 1])",
            id="loop in Python",
        ),
    ],
)
def test_what_makes_every_message_dearer_is_seen(
    monkeypatch: pytest.MonkeyPatch, unharmed: Count, function: Callable[..., Any], line: str, worse: str
) -> None:
    plant(monkeypatch, function, line, worse)
    found = list(gate.differences({"records": unharmed}, {"records": replay("records")[0]}))
    assert found
    assert all("more than" in sentence for sentence in found)


def plant(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], line: str, worse: str) -> None:
    """Have a method as it would be if `line` of its source were `worse`."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(line) == 1, "the line to make worse is not there any more"
    names: dict[str, Any] = {}
    module = sys.modules[function.__module__]
    exec(compile(source.replace(line, worse), __file__, "exec"), vars(module), names)
    owner = getattr(module, function.__qualname__.split(".")[0])
    monkeypatch.setattr(owner, function.__name__, names[function.__name__])


FIGURE = Count(instructions=1000.0, calls=100.0, objects=10.0)


@pytest.mark.parametrize("name", Count._fields)
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_count_off_its_figure_either_way_is_named(name: str, factor: float) -> None:
    count = FIGURE._replace(**{name: getattr(FIGURE, name) * factor})
    (sentence,) = gate.differences({"records": FIGURE}, {"records": count})
    assert name in sentence and ("less" if factor < 1 else "more") in sentence


def test_libraries_may_differ_a_little_and_a_work_without_a_figure_may_not() -> None:
    assert list(gate.differences({"records": FIGURE}, {"records": FIGURE._replace(instructions=1029.0)})) == []
    assert list(gate.differences({}, {"records": FIGURE})) == ["records: there is no figure"]


def test_renewing_the_figures_leaves_those_of_other_pythons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    file.write_text(json.dumps({"2.7": {"records": FIGURE._asdict()}}))
    monkeypatch.setattr(gate, "FIGURES", file)
    assert gate.committed() is None
    gate.write({"records": FIGURE})
    assert gate.committed() == gate.committed("2.7") == {"records": FIGURE}
