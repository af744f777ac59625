"""The load generators against a real Mosquitto, and systems between them and the sink."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any, ClassVar

import pytest
import yaml

from benchmarks import rounds
from benchmarks.ceiling import NoSystem
from benchmarks.processes import family
from benchmarks.results import Batch
from benchmarks.rig import MeasurementFailed, Rig
from benchmarks.systems import SYSTEMS
from benchmarks.systems.flowengine import flow
from benchmarks.systems.limit_script import LimitScript, Script
from benchmarks.systems.system import PYTHON, ROOT, Ability, Place, System
from benchmarks.works import WORKS
from tests.support.broker import wait_until

SHORT: dict[str, Any] = {"warm_up": 0.05, "seconds": 0.2}


@pytest.fixture(scope="module")
def wired() -> Iterator[Rig]:
    """A rig with a system that only acknowledges."""
    with Rig() as rig:
        rig.start(NoSystem(str(rig.board.path)))
        yield rig


@pytest.mark.parametrize("plan", [{}, {"devices": 1}, {"size": 60_000, "window": 16}, {"window": 1}])
def test_every_record_that_is_sent_arrives_and_is_counted_once(wired: Rig, plan: dict[str, Any]) -> None:
    sample = wired.load(**plan, **SHORT)
    assert sample.sent == wired.board.posts == sum(1 for at in wired.board.arrived if at)
    assert (sample.lost, sample.repeats, sample.swapped) == (0, 0, 0)
    assert sample.rate > 0
    assert sample.posts is not None
    assert 0 < sample.posts.p50 <= sample.posts.p99 <= sample.posts.worst


def test_as_many_are_sent_as_were_asked_for(wired: Rig) -> None:
    assert wired.load(count=1234, warm_up=0.0, seconds=0.0).sent == 1234


def test_heartbeats_have_replies_with_times(wired: Rig) -> None:
    sample = wired.load(kinds=("heartbeat",), **SHORT)
    assert sample.sent > 0
    assert sample.lost == 0
    assert sample.replies is not None
    assert wired.board.posts == 0


def test_a_paced_load_sends_no_faster_than_its_rate(wired: Rig) -> None:
    sample = wired.load(kinds=("heartbeat",), rate=100, warm_up=0.1, seconds=0.4)
    assert 0 < sample.sent <= 100 * (0.1 + sample.seconds) + 10


def test_strangers_are_sent_but_not_waited_for(wired: Rig) -> None:
    sample = wired.load(kinds=("record", "stranger"), count=100, warm_up=0.0, seconds=0.0)
    assert sample.sent == 50


def test_heartbeats_can_be_measured_while_records_run(wired: Rig) -> None:
    sample = wired.load(kinds=("heartbeat",), rate=100, beside={"warm_up": 0.05, "seconds": 0.4}, **SHORT)
    assert sample.lost == 0
    assert sample.sent > 0
    assert wired.board.posts > 0


def test_what_nobody_takes_is_lost() -> None:
    with Rig() as rig:
        sample = rig.load(window=10, patience=0.1, **SHORT)
    assert sample.sent == sample.lost == 10


@pytest.mark.parametrize("script", [Script, LimitScript])
def test_the_scripts_do_all_works_in_order_and_lose_nothing(script: type[System]) -> None:
    with Rig() as rig:
        assert rig.start(script()) > 0
        for plan in ({}, {"devices": 1}, {"kinds": ("heartbeat", "record", "stranger")}):
            sample = rig.load(**SHORT, **plan)
            assert (sample.lost, sample.repeats, sample.swapped) == (0, 0, 0)
            assert sample.cpu_us > 0
        sample = rig.commands(**SHORT)
        assert (sample.lost, sample.repeats) == (0, 0)
        assert sample.sent > 16


class Broken(System):
    """A system that ends at its start."""

    name = "broken"
    abilities: ClassVar[frozenset[Ability]] = frozenset({"records", "heartbeats", "many devices"})

    def version(self) -> str:
        return ""

    def command(self, place: Place) -> list[str]:
        return [PYTHON, "-c", "raise SystemExit('no broker for me')"]


def test_a_system_that_does_not_start_is_reported_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "broken", Broken)
    found: list[Batch] = []
    rounds.run(1, ["broken"], [WORKS["start"], WORKS["records-1.5k"], WORKS["commands"]], ["default"], found.append)
    assert [batch.work for batch in found] == ["start", "records-1.5k"]
    assert all("broken ended at its start" in batch.error and "no broker for me" in batch.error for batch in found)


def test_nothing_of_a_rig_outlives_it() -> None:
    with pytest.raises(MeasurementFailed), Rig() as rig:
        rig.start(NoSystem(str(rig.board.path)))
        assert rig.system is not None
        pids = [*family(rig.system.child.pid), rig.sink.pid, rig.broker.pid]
        raise MeasurementFailed
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not rig.folder.exists()


def test_a_run_that_is_terminated_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [
        PYTHON,
        "-m",
        "benchmarks",
        "run",
        "--systems",
        "limit",
        "--works",
        "records-300k",
        "--to",
        str(tmp_path / "results"),
    ]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: len(family(run.pid)) > 4, "the broker, the sink, the system and the generator")
    children = family(run.pid)
    run.terminate()
    assert run.wait(20) == 128 + SIGTERM
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the end of all")


def test_the_flow_that_is_measured_is_the_shipped_one_without_its_log_of_others() -> None:
    shipped = yaml.safe_load((ROOT / "flows" / "facegate.yaml").read_text(encoding="utf-8"))
    assert {name: chain for name, chain in shipped["chains"].items() if name not in ("downlink", "sent")} == flow()[
        "chains"
    ]
    assert flow("unordered")["chains"]["records"][-1]["delivery"]["order_by"] == "none"
