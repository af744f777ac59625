"""Commands while the broker is away: the caller hears the truth, and a door never opens late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.rig import Rig
from tests.support.engine import until

EXPIRES = 2.0
FLOW = f"""\
flow: doors
params:
  mqtt: {{env: MQTT_URL}}
  listen: {{env: COMMAND_LISTEN}}
connections:
  gate: {{mqtt: {{url: "${{mqtt}}"}}}}
  web: {{http-listener: {{listen: "${{listen}}"}}}}
chains:
  settled:
    - http-in: {{connection: web, path: "/settled/{{device}}", reply: {{body: ok, timeout: 1s}}}}
    - mqtt-out: {{connection: gate, topic: "rig/{{device}}/down", qos: 1}}
      delivery: {{expire_after: {EXPIRES:g}s}}
  stored:
    - http-in: {{connection: web, path: "/stored/{{device}}", reply: {{when: stored}}}}
    - mqtt-out: {{connection: gate, topic: "rig/{{device}}/down", qos: 1}}
      delivery: {{expire_after: {EXPIRES:g}s}}
  patient:
    - http-in: {{connection: web, path: "/patient/{{device}}", reply: {{when: stored}}}}
    - mqtt-out: {{connection: gate, topic: "rig/{{device}}/down", qos: 1}}
"""
"""Commands that somebody waits for, those that may be stored but expire, and those that never do."""


class Door:
    """A terminal that subscribes once: while it is away the broker keeps its commands."""

    def __init__(self) -> None:
        self.commands: list[str] = []


@asynccontextmanager
async def door(rig: Rig) -> AsyncIterator[Door]:
    """A door with a session at the broker that outlives the broker's restart."""
    loop, opened, subscribed = asyncio.get_running_loop(), Door(), asyncio.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="door", clean_session=False)
    client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]

    def on_connect(*_: Any) -> None:
        client.subscribe("rig/d0000/down", qos=1)

    def on_subscribe(*_: Any) -> None:
        loop.call_soon_threadsafe(subscribed.set)

    def on_message(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        loop.call_soon_threadsafe(opened.commands.append, message.payload.decode())

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    await asyncio.to_thread(client.connect, "127.0.0.1", rig.broker.port)
    client.loop_start()
    try:
        await asyncio.wait_for(subscribed.wait(), 10)
        yield opened
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


async def command(rig: Rig, path: str, text: str) -> int:
    """Post a command for the door; the status that its caller hears."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{rig.listen}/{path}/d0000", json=text) as answer,
    ):
        return answer.status


async def old_enough(since: float) -> None:
    """Return when what was sent at `since` has expired."""
    await until(lambda: time.monotonic() > since + EXPIRES + 0.1, "the command's end")


async def until_open(rig: Rig, opened: Door, text: str) -> None:
    """Send commands until one has opened the door: all that would come before it have come."""
    assert await command(rig, "patient", text) == 202
    await until(lambda: text in opened.commands, "the last command at the door")


async def test_a_command_that_cannot_be_sent_in_time_is_answered_504_and_never_sent(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"doors": FLOW}) as rig, door(rig) as opened:
        assert await command(rig, "settled", "first") == 200
        await asyncio.to_thread(rig.broker.stop)
        assert await command(rig, "settled", "late") == 504
        await asyncio.to_thread(rig.broker.start)
        await rig.engine.until("connected to the broker", 2)
        await until_open(rig, opened, "last")
        assert opened.commands == ["first", "last"]
        books = await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
        assert (books.delivered, books.dropped) == (2, 1)


async def test_a_stored_command_is_answered_202_and_never_sent_once_it_has_expired(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"doors": FLOW}) as rig, door(rig) as opened:
        await asyncio.to_thread(rig.broker.stop)
        assert await command(rig, "stored", "late") == 202
        await old_enough(time.monotonic())
        await asyncio.to_thread(rig.broker.start)
        await rig.engine.until("connected to the broker", 2)
        await rig.engine.until_books(lambda books: books.dropped == 1, "the expired command dropped")
        await until_open(rig, opened, "last")
        assert opened.commands == ["last"]
        assert (await rig.engine.ask_books()).balanced
        assert rig.engine.named("books")[-1]["reasons"] == {"expired": 1}


async def test_a_stored_command_that_expires_while_the_engine_is_dead_is_never_sent(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"doors": FLOW}) as rig, door(rig) as opened:
        await asyncio.to_thread(rig.broker.stop)
        assert await command(rig, "stored", "late") == 202
        await rig.engine.kill()
        await old_enough(time.monotonic())
        await asyncio.to_thread(rig.broker.start)
        await rig.engine.start()
        await until_open(rig, opened, "last")
        await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
        assert opened.commands == ["last"]


async def test_a_stored_command_that_does_not_expire_is_sent_once_after_broker_and_engine_were_gone(
    tmp_path: Path,
) -> None:
    async with Rig(tmp_path, flows={"doors": FLOW}) as rig, door(rig) as opened:
        await asyncio.to_thread(rig.broker.stop)
        assert await command(rig, "patient", "first") == 202
        assert await command(rig, "patient", "second") == 202
        await rig.engine.kill()
        await asyncio.to_thread(rig.broker.start)
        await rig.engine.start()
        await until_open(rig, opened, "last")
        assert opened.commands == ["first", "second", "last"]


async def test_a_command_to_a_broker_that_answers_nothing_is_answered_504(tmp_path: Path) -> None:
    async with Rig(tmp_path, flows={"doors": FLOW}) as rig, door(rig) as opened:
        rig.broker.suspend()
        assert await command(rig, "settled", "in flight") == 504
        assert await command(rig, "settled", "late") == 504
        rig.broker.resume()
        await until_open(rig, opened, "last")
        assert "late" not in opened.commands, "it was not in flight when its caller was told that it was withdrawn"
