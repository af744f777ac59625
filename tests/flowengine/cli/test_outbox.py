"""`flowengine outbox`, beside a running engine and on what a stopped or killed one has left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowengine_simulate.backend import Faults
from tests.flowengine.cli.desk_rig import ACTION, Rig, rig

RENAMED = "gate/records/renamed"


async def lanes(gate: Rig) -> list[tuple[str, str, int]]:
    found: list[dict[str, Any]] = json.loads((await gate.types("outbox", "--json")).stdout)
    return [(lane["action"], lane["lane"], lane["rows"]) for lane in found]


async def test_what_waits_is_shown_by_action_and_lane_with_the_next_attempt_and_the_last_error(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=503) as (gate, _taken):
        assert await gate.send([1, 2]) == [202, 202]
        assert await gate.send([3], device="8") == [202]
        assert sorted(await lanes(gate)) == [(ACTION, "7", 2), (ACTION, "8", 1)]
        for words in (["outbox"], ["outbox", "list", ACTION], ["outbox", "--lane", "7"]):
            shown = (await gate.types(*words)).stdout
            assert ACTION in shown and "answered 503" in shown and "next attempt in" in shown
        assert "nothing waits" in (await gate.types("outbox", "list", "no/such/action")).stdout
        gate.backend.faults = Faults()
        await gate.engine.until_books(lambda books: books.delivered == 3, "all delivered")
        assert "nothing waits" in (await gate.types("outbox")).stdout


async def test_what_is_dropped_by_a_person_is_previewed_and_counted_and_never_sent(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=503) as (gate, taken):
        await gate.send([1, 2])
        await gate.send([3], device="8")
        refused = await gate.types("outbox", "drop", ACTION, status=2)
        assert "3 messages" in refused.stdout and "--yes" in refused.stderr
        await gate.types("outbox", "drop", ACTION, "--lane", "7", "--yes")
        await gate.engine.until_books(lambda books: books.dropped == 2, "both were dropped")
        gate.backend.faults = Faults()
        books = await gate.engine.until_books(lambda books: books.pending == 0, "all ended")
        assert (books.delivered, books.dropped) == (1, 2) and books.balanced
        assert [record.body["n"] for record in taken] == [3]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_what_waits_for_a_renamed_node_is_moved_to_its_new_name_and_goes_out_in_order(
    tmp_path: Path, how: str, running: bool
) -> None:
    async with rig(tmp_path, fail=503) as (gate, taken):
        assert await gate.send(range(5)) == [202] * 5
        await (gate.engine.stop() if how == "stop" else gate.engine.kill())
        gate.write("renamed")
        gate.backend.faults = Faults()
        if running:
            await gate.engine.start()
            books = await gate.engine.ask_books()
            assert (books.carried, books.pending) == (5, 5) and books.balanced
            assert "no flow that runs" in (await gate.types("outbox")).stdout
        moved = await gate.types("outbox", "move", ACTION, RENAMED, "--yes")
        assert "5 messages were moved" in moved.stdout and ("no engine runs" in moved.stdout) is not running
        if not running:
            assert await lanes(gate) == [(RENAMED, "7", 5)]
            await gate.engine.start()
        books = await gate.engine.until_books(lambda books: books.delivered == 5, "all delivered")
        assert (books.carried, books.pending) == (5, 0) and books.balanced
        assert [record.body["n"] for record in taken] == [0, 1, 2, 3, 4]
        assert await lanes(gate) == []


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_what_was_dropped_while_stopped_is_not_carried(tmp_path: Path, how: str) -> None:
    async with rig(tmp_path, fail=503) as (gate, _taken):
        await gate.send([1, 2])
        await (gate.engine.stop() if how == "stop" else gate.engine.kill())
        assert "2 messages were deleted" in (await gate.types("outbox", "drop", ACTION, "--yes")).stdout
        await gate.engine.start()
        books = await gate.engine.ask_books()
        assert (books.carried, books.pending) == (0, 0) and books.balanced


async def test_rows_are_not_moved_to_an_action_that_is_in_no_flow(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=503) as (gate, _taken):
        await gate.send([1])
        assert ACTION in (await gate.types("outbox", "move", ACTION, "gate/records/typo", "--yes", status=1)).stderr
        assert "flow/chain/name" in (await gate.types("outbox", "move", ACTION, "typo", "--yes", status=2)).stderr
        assert await lanes(gate) == [(ACTION, "7", 1)]


async def test_the_retention_given_to_run_sends_what_waits_longer_to_the_dead_letters(tmp_path: Path) -> None:
    async with rig(tmp_path, fail=503) as (gate, _taken):
        await gate.send([1])
        await gate.engine.stop()
        gate.engine._command += ["--retention", "1ms"]
        await gate.engine.start()
        assert gate.engine.named("stored messages are dead: they waited too long")
        books = await gate.engine.ask_books()
        assert (books.carried, books.dead, books.pending) == (1, 1, 0) and books.balanced
