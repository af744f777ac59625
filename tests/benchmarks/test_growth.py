"""The curves of growth: flows that check, a store that an engine takes over, and a report that says what was measured."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from benchmarks.growth import report, stored, texts
from benchmarks.growth.axes import AXES, Cost
from benchmarks.growth.flows import LIVE, Tree, facegate, flows, with_a_backend_down, with_copies, with_steps
from benchmarks.growth.results import Line, Point, append, read
from benchmarks.payloads import DEVICE, number_in
from benchmarks.results import Machine
from benchmarks.texts import Language
from flowengine import plugins
from flowengine.delivery.outbox import Row
from flowengine.flowfile import project


@pytest.mark.parametrize(
    "files",
    [
        {"facegate": facegate()},
        flows(3, 8, shared=False),
        flows(3, 8, shared=True),
        with_steps(5),
        with_copies(5),
        with_a_backend_down("http://127.0.0.1:1/"),
    ],
)
def test_every_flow_that_is_made_to_grow_checks(tmp_path: Path, files: dict[str, Tree]) -> None:
    for name, tree in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))
    loaded = project.load([tmp_path], plugins.load(), environ={"MQTT_URL": "mqtt://127.0.0.1"})
    assert not loaded.errors
    assert len(loaded.project.flows) == len([tree for tree in files.values() if "flow" in tree])


@pytest.mark.parametrize("shared", [False, True])
def test_the_devices_are_divided_among_the_flows(shared: bool) -> None:
    trees = [tree for tree in flows(3, 8, shared=shared).values() if "flow" in tree]
    devices = [device for tree in trees for device in tree["chains"]["uplink"][0]["mqtt-in"]["devices"]]
    assert sorted(devices) == [str(DEVICE + index) for index in range(8)]


def test_a_filled_store_holds_whole_rows_of_the_batch(tmp_path: Path) -> None:
    stored.fill(tmp_path / "state", LIVE, rows=7, lanes=3, batch=4)
    database = sqlite3.connect(tmp_path / "state" / "flowengine.db")
    rows = [Row(*values) for values in database.execute("SELECT * FROM outbox ORDER BY seq")]
    database.close()
    assert [row.lane for row in rows] == [str(DEVICE + number % 3) for number in range(7)]
    assert [number_in(row.payload) for row in rows] == [(4, number) for number in range(7)]
    assert all(row.checksum == row.sum() and row.action == LIVE for row in rows)
    assert 1400 < len(rows[0].payload) < 1600


LINES: list[Line] = [
    Machine(
        "2026-01-01 10:00 UTC", "abc1234", "a CPU", 2, 8.0, "Linux 6.1", "2.0.11", {"flowengine": "flowengine 0.1"}
    ),
    Point("devices", 100, 1, Cost(210.0, 200.0, 60.0, 1.5)),
    Point("devices", 10_000, 1, Cost(300.0, 200.0, 69.0, 2.5)),
    Point("devices", 100, 2, Cost(420.0, 400.0, 62.0, 1.5)),
    Point("devices", 10_000, 2, failed="flowengine does not get ready"),
    Point("steps", 11, 2, Cost(250.0, 200.0, 60.0, 1.5)),
]


def test_what_was_measured_is_kept_also_if_the_last_line_was_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "growth" / "run.jsonl"
    for line in LINES:
        append(line, file)
    with file.open("ab") as out:
        out.write(b'{"type":"poi')
    assert read(file) == LINES


def test_a_curve_is_made_of_the_ratios_of_what_was_measured_side_by_side() -> None:
    devices, steps = report.curves(LINES)
    assert devices.base_us == 200.0
    assert {value: place.y for value, place in devices.places.items()} == {10: 200.0, 100: 210.0, 10_000: 300.0}
    assert not devices.flat
    assert steps.flat and steps.slope == pytest.approx(5.0)


@pytest.mark.parametrize(("language", "beyond"), [("en", "Beyond the target of 1.2"), ("zh-CN", "超出 1.2")])
def test_the_report_says_what_was_measured_in_both_languages(language: Language, beyond: str) -> None:
    text = report.text(LINES, language)
    for part in ("| 10,000 | 300 | 1.50 | 69.0 | 2.50 |", beyond, "5.00", "flowengine does not get ready", "abc1234"):
        assert part in text
    assert len(ElementTree.fromstring(report.plot(LINES, language)).findall("{*}g")) == 2
    assert set(texts.AXES) == set(AXES)


def test_the_report_is_written_with_its_plots(tmp_path: Path) -> None:
    names = {str(file.relative_to(tmp_path)) for file in report.write(tmp_path, LINES)}
    assert names == {"GROWTH.md", "GROWTH.zh-CN.md", "plots/growth.en.svg", "plots/growth.zh-CN.svg"}
    assert "plots/growth.zh-CN.svg" in (tmp_path / "GROWTH.zh-CN.md").read_text(encoding="utf-8")
