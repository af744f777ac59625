"""A flow that is edited between stop and start, while rows wait for its actions."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.faults.backend import Backend, answers, healthy
from tests.faults.rig import Rig, assert_in_order, assert_keys, assert_nothing_lost, flow
from tests.support.engine import until

OWNERLESS = "stored messages have no owner: no flow has this action; see 'flowengine outbox'"


async def stopped_with_rows(rig: Rig) -> int:
    """Stop the engine while records wait on the disk; how many."""
    rig.backend.behave = answers(503)
    await rig.publisher.burst(20)
    await until(lambda: rig.stored == len(rig.publisher.sent), "all rows in the outbox")
    assert await rig.engine.stop() == 0
    return rig.stored


async def test_rows_go_to_the_new_url_of_their_action(tmp_path: Path) -> None:
    async with Backend() as new, Rig(tmp_path) as rig:
        await stopped_with_rows(rig)
        old, rig.backend = rig.backend, new
        old.behave = healthy
        asked = old.requests
        rig.write("rig", flow(url=new.url))
        await rig.engine.start()
        await assert_nothing_lost(rig)
        assert old.requests == asked


async def test_rows_go_on_by_the_new_options_and_steps_of_the_chain(tmp_path: Path) -> None:
    """The body waits as it will be sent: a step added before the action is for what comes after."""
    async with Rig(tmp_path) as rig:
        await stopped_with_rows(rig)
        rig.write("rig", flow(steps=["filter: payload.number > 1000000"], path="elsewhere"))
        rig.backend.behave = healthy
        await rig.engine.start()
        await assert_nothing_lost(rig)


async def test_rows_of_a_renamed_action_are_kept_counted_loud_and_movable(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        waiting = await stopped_with_rows(rig)
        rig.write("rig", flow().replace("    - http-post:", "    - name: renamed\n      http-post:"))
        rig.backend.behave = healthy
        await rig.engine.start()
        [said] = rig.engine.named(OWNERLESS)
        assert said["level"] == "error"
        assert (said["action"], said["messages"]) == ("rig/records/http-post", waiting)
        books = await rig.engine.ask_books()
        assert (books.carried, books.pending) == (waiting, waiting)
        assert not rig.backend.times
        # What comes in now goes its way; in each lane a person decides what becomes of the older rows.
        late = [rig.publisher.publish(device) for device in rig.devices]
        await until(lambda: set(late) <= rig.backend.times.keys(), "new records")
        assert rig.stored == waiting
        # The rows outlive another restart, without an owner.
        assert await rig.engine.stop() == 0
        assert rig.engine.books.pending == waiting
        await rig.engine.start()
        assert rig.engine.named(OWNERLESS)
        before = {device: len(numbers) for device, numbers in rig.backend.arrived.items()}
        await moved(rig, "rig/records/http-post", "rig/records/renamed")
        await rig.arrived()
        await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
        assert await rig.engine.stop() == 0
        assert rig.stored == 0
        assert not rig.dead()
        assert set(rig.backend.times.values()) == {1}
        assert all(
            len(keys) <= 2 for keys in rig.backend.keys.values()
        )  # a key names the action: the old one's and the new one's
        for device, numbers in rig.backend.arrived.items():
            rig.backend.arrived[device] = numbers[before[device] :]
        assert_in_order(rig)  # among those that were moved


async def test_rows_of_a_flow_that_is_gone_wait_for_its_return(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await stopped_with_rows(rig)
        rig.write("other", flow("other"))
        (tmp_path / "flows" / "rig.yaml").rename(tmp_path / "rig.away")
        rig.backend.behave = healthy
        await rig.engine.start()
        assert rig.engine.named(OWNERLESS)
        assert await rig.engine.stop() == 0
        assert not rig.backend.times
        (tmp_path / "rig.away").rename(tmp_path / "flows" / "rig.yaml")
        (tmp_path / "flows" / "other.yaml").unlink()
        await rig.engine.start()
        await rig.arrived()
        assert_keys(rig)
        assert_in_order(rig)
        await assert_nothing_lost(rig)


async def moved(rig: Rig, action: str, to: str) -> None:
    """`flowengine outbox move`, while the engine runs."""
    command = [sys.executable, "-m", "flowengine", "outbox", "move", action, to, "--state", str(rig.state), "--yes"]
    process = await asyncio.create_subprocess_exec(
        *command, env=rig.engine.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
