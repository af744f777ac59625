"""The report, made from results of which every figure is known."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.figures import Quartiles
from benchmarks.plots import Bar, Panel, svg
from benchmarks.report import write
from benchmarks.results import Batch, Ceiling, Results
from tests.benchmarks.batches import MACHINE, batch

BATCHES = [
    *(batch("flowengine", rate, round=number) for number, rate in enumerate((7000, 8000, 9000), 1)),
    *(batch("node-red", rate, round=number, lost=2) for number, rate in enumerate((700, 1000, 900), 1)),
    Batch(1, "default", "limit", "records-1.5k", error="limit ended\nat its start"),
]
CEILINGS = [
    Ceiling("broker", "records-1.5k", 10_000, {"generator": 11, "Mosquitto": 12}),
    Ceiling("broker", "records-1.5k", 50_000, {"generator": 13, "Mosquitto": 14}),
    Ceiling("sink", "records-1.5k", 60_000, {"sink": 15}),
]
_TABLE = re.compile(r"^\| ---", re.MULTILINE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert all(path.exists() for path in write(folder, Results([MACHINE], BATCHES, CEILINGS)))
    return folder


@pytest.fixture(scope="module")
def english(written: Path) -> str:
    return (written / "RESULTS.md").read_text(encoding="utf-8")


def test_a_row_has_median_quartiles_ratio_and_losses(english: str) -> None:
    (row,) = re.findall(r"^\| Node-RED 4 \| 900 .*$", english, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "900 (800–950)"
    assert "10.00 (9.00–10.00)" in cells
    assert cells[-4:] == ["6", "0", "0", "3"]


def test_a_system_that_failed_is_named_with_its_error_on_one_line(english: str) -> None:
    assert "Failed: the same, tuned: limit ended at its start" in english


def test_the_machine_and_the_versions_are_named(english: str) -> None:
    for text in ("A Processor", "Mosquitto 2.0.11", "Node-RED 4.1.8", "2026-01-02", "abc1234"):
        assert text in english


def test_what_the_rig_reached_by_itself_the_last_time_stands_beside_the_results(english: str) -> None:
    assert (
        "| generator and Mosquitto | Records of 1.5 KB, 50 devices | 50,000 | generator 13.0, Mosquitto 14.0 |"
        in english
    )
    assert "| sink | Records of 1.5 KB, 50 devices | 60,000 | sink 15.0 |" in english
    assert "10,000" not in english


def test_both_languages_have_the_same_tables_and_figures(written: Path, english: str) -> None:
    chinese = (written / "RESULTS.zh-CN.md").read_text(encoding="utf-8")
    assert len(_TABLE.findall(english)) == len(_TABLE.findall(chinese)) > 2
    assert re.findall(r"\d+ \(\d+–\d+\)", english) == re.findall(r"\d+ \(\d+–\d+\)", chinese)
    assert "每秒" in chinese


@pytest.mark.parametrize("name", ["RESULTS.md", "RESULTS.zh-CN.md"])
def test_every_plot_that_a_report_shows_is_there_and_is_svg(written: Path, name: str) -> None:
    shown = re.findall(r"!\[.*]\((.*)\)", (written / name).read_text(encoding="utf-8"))
    assert shown
    for path in shown:
        assert ElementTree.parse(written / path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_bar_is_as_long_as_its_median() -> None:
    bars = [Bar("a & b", Quartiles(40, 50, 60)), Bar("c", Quartiles(100, 100, 100), first=True)]
    root = ElementTree.fromstring(svg("title", "about it", [Panel("p", "more", bars)]))
    background, *drawn = (float(each.attrib["width"]) for each in root.iter("{http://www.w3.org/2000/svg}rect"))
    assert drawn[0] * 2 == pytest.approx(drawn[1])
    assert drawn[1] < background
