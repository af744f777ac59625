"""`flowengine dead`, beside a running engine and on what a stopped or killed one has left."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flowengine_simulate.backend import Faults
from tests.flowengine.cli.commands import flowengine
from tests.flowengine.cli.desk_rig import ACTION, rig

IMAGE = "/9j/" + "A" * 40_000


async def test_letters_are_listed_shown_exported_and_replayed_while_the_engine_runs(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=422) as (gate, taken):
        assert await gate.send([1, 2], image=IMAGE) == [502, 502]
        assert await gate.send([3], device="8") == [502]

        listed = json.loads((await gate.types("dead", "list", "--json")).stdout)
        assert [(found["number"], found["device"], found["node"]) for found in listed] == [
            (1, "7", ACTION), (2, "7", ACTION), (3, "8", ACTION),
        ]  # fmt: skip
        assert (await gate.types("dead", "list", "--device", "8", "--since", "1h")).stdout.count("422") == 1
        assert "no dead letters" in (await gate.types("dead", "list", "--until", "1h")).stdout
        assert "1 older" in (await gate.types("dead", "list", "--device", "7", "--limit", "1")).stdout

        shown = (await gate.types("dead", "show", "1")).stdout
        assert IMAGE not in shown and "/9j/" in shown and ACTION in shown
        assert IMAGE in (await gate.types("dead", "show", "1", "--full")).stdout
        assert "99" in (await gate.types("dead", "show", "99", status=1)).stderr

        await gate.types("dead", "export", "letters.jsonl")
        exported = [json.loads(line) for line in (tmp_path / "letters.jsonl").read_text().splitlines()]
        assert [line["payload"]["n"] for line in exported] == [1, 2, 3] and exported[0]["payload"]["image"] == IMAGE
        assert stat.S_IMODE((tmp_path / "letters.jsonl").stat().st_mode) == 0o600
        assert (await gate.types("dead", "export", "-", "3")).stdout.count("\n") == 1

        keys = {record["id"] for record in listed}
        gate.backend.faults = Faults()
        assert "3 were delivered" in (await gate.types("dead", "replay", "--all")).stdout
        assert [n for n in (record.body["n"] for record in taken) if n != 3] == [1, 2] and len(taken) == 3
        assert all(any(key in (record.key or "") for key in keys) for record in taken)
        assert "no dead letters" in (await gate.types("dead", "list")).stdout
        books = await gate.engine.ask_books()
        assert (books.received, books.replayed, books.delivered, books.dead) == (3, 3, 3, 3) and books.balanced


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_letters_are_replayed_at_the_next_start_after_they_were_marked_while_stopped(
    tmp_path: Path, how: str
) -> None:
    async with rig(tmp_path, fail=422) as (gate, taken):
        await gate.send([1, 2, 3])
        await (gate.engine.stop() if how == "stop" else gate.engine.kill())
        assert len(json.loads((await gate.types("dead", "list", "--json")).stdout)) == 3
        assert "1 were deleted" in (await gate.types("dead", "drop", "2", "--yes")).stdout.replace("dead letters ", "")
        assert "2 are marked" in (await gate.types("dead", "replay", "--all")).stdout
        assert (await gate.types("dead", "list")).stdout.count("[replay]") == 2
        gate.backend.faults = Faults()
        await gate.engine.start()
        said = await gate.engine.until("dead letters replayed")
        assert said["delivered"] == 2 and [record.body["n"] for record in taken] == [1, 3]
        books = await gate.engine.ask_books()
        assert (books.replayed, books.delivered, books.pending) == (2, 2, 0) and books.balanced
        assert "no dead letters" in (await gate.types("dead", "list")).stdout
        assert await gate.engine.stop() == 0


async def test_a_letter_whose_node_was_renamed_stays_and_is_reported(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=422) as (gate, _taken):
        await gate.send([1])
        await gate.engine.stop()
        gate.write("renamed")
        await gate.types("dead", "replay", "1")
        await gate.engine.start()
        said = await gate.engine.until("dead letters cannot be replayed: their node is no more")
        assert said["letters"] == [1] and said["nodes"] == [ACTION]
        done = await gate.types("dead", "replay", "1", status=1)
        assert "1 stay" in done.stdout and ACTION in done.stderr
        assert (await gate.types("dead", "list")).stdout.count("422") == 1


async def test_nothing_is_dropped_without_a_choice_and_a_yes(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=422) as (gate, _taken):
        await gate.send(range(8))
        assert "--all" in (await gate.types("dead", "drop", "--yes", status=2)).stderr
        assert "--all" in (await gate.types("dead", "replay", status=2)).stderr
        refused = await gate.types("dead", "drop", "--all", status=2)
        assert "--yes" in refused.stderr and refused.stdout.count("422") == 5 and "3 older" in refused.stdout
        assert (await gate.types("dead", "list")).stdout.count("422") == 8
        assert "8 dead letters" in (await gate.types("dead", "drop", "--all", "--yes")).stdout
        assert "no dead letters" in (await gate.types("dead", "list")).stdout
        books = await gate.engine.ask_books()
        assert books.dead == 8 and books.balanced


async def test_a_person_at_a_terminal_is_asked(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=422) as (gate, _taken):
        await gate.send([1])
        for answer, left in ((b"n\n", 1), (b"y\n", 0)):
            terminal, end = pty.openpty()
            os.write(terminal, answer)
            command = [sys.executable, "-m", "flowengine", "dead", "drop", "--all"]
            done = subprocess.run(
                command, cwd=tmp_path, stdin=end, capture_output=True, text=True, check=False, timeout=50
            )
            os.close(terminal)
            os.close(end)
            assert done.returncode == left, done.stdout + done.stderr
            assert (await gate.types("dead", "list")).stdout.count("422") == left


def test_a_folder_without_state_is_named_and_not_made(tmp_path: Path) -> None:
    for words in (["dead", "list"], ["dead", "replay", "--all"], ["outbox"], ["outbox", "drop", "a/b/c", "--yes"]):
        done = flowengine(*words, "--state", "nowhere", cwd=tmp_path)
        assert done.returncode == 2 and "nowhere" in done.stderr and "--state" in done.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("time", ["yesterday", "2025-13-01", "-3h"])
def test_a_time_that_is_none_is_refused_with_examples(tmp_path: Path, time: str) -> None:
    done = flowengine("dead", "list", f"--since={time}", cwd=tmp_path)
    assert done.returncode == 2 and "2h" in done.stderr
