"""The seed's script and the flow, each between a broker and a backend of its own, and what is seen of them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiohttp

from tests.support.broker import MosquittoBroker, free_port, port_answers
from tests.support.engine import Engine, until
from tests.support.facegate import FLOW
from tests.support.recorder import Posted, Recorder
from tests.support.wiretap import Heard, Wiretap

DEVICE = "123456789"
OTHER = "987654321"
SCRIPT = Path(__file__).parents[1] / "seed" / "app.py"
_SYNC = "sync"


def uplink(device: str = DEVICE) -> str:
    """Where a terminal reports."""
    return f"fungxi_{device}_upLink"


def downlink(device: str = DEVICE) -> str:
    """Where a terminal listens."""
    return f"fungxi_{device}_downLink"


def record(number: str, **fields: Any) -> dict[str, Any]:
    """One entry of `data`, as terminals send it."""
    common = {"personType": "1", "verifiedCode": 0, "time": "2024-11-30 08:15:30", "liveImageBase64": "/9j/4AAQ"}
    return {"num": number, "name": "王伟", **common, **fields}


def report(*records: Any) -> bytes:
    """A message with verified records."""
    return json.dumps({"cmd": "verifiedRecordU", "data": list(records)}).encode()


class Program(Protocol):
    """What is compared: a program that can be started and stopped."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def fallen(self) -> bool:
        """Whether it hears nothing any more."""
        ...

    def said(self) -> list[str]:
        """The lines it has written."""
        ...


class SeedScript:
    """`tests/seed/app.py` as a child process."""

    def __init__(self, env: dict[str, str], port: int) -> None:
        self.output: list[str] = []
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **env}
        self._port = port
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.output = []
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(SCRIPT)),
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=16 * 1024 * 1024,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            await until(lambda: self._says("MQTT连接成功") and port_answers(self._port), "a script that runs")
        except AssertionError as error:
            error.add_note("the script says:\n" + "\n".join(self.output[-40:]))
            raise

    async def stop(self) -> None:
        if self._process is not None and self._reader is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            await self._reader

    def fallen(self) -> bool:
        return self._says("in _thread_main")  # of the traceback that ends paho's thread

    def said(self) -> list[str]:
        return self.output

    def _says(self, text: str) -> bool:
        # Its threads write into each other's lines, but a piece that is written at once stays whole.
        return any(text in line for line in self.output)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            self.output.append(raw.decode("utf-8", "replace").rstrip())


class Flow:
    """The flow, run by `flowengine run`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def start(self) -> None:
        await self.engine.start()

    async def stop(self) -> None:
        if self.engine.running:
            await self.engine.stop()

    def fallen(self) -> bool:
        return not self.engine.running

    def said(self) -> list[str]:
        return self.engine.lines


class Answer(NamedTuple):
    """The answer to an HTTP request."""

    status: int
    kind: str
    text: str


@dataclass
class Seen:
    """What one stimulus has brought about.

    posts: path, Content-Type and content at the backend. published: what went to terminals. answer: the status of an HTTP
    request, and of a good one the body. alive: whether it still hears afterwards.
    """

    posts: list[Any] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)
    answer: tuple[int, str] | None = None
    alive: bool = True

    def brief(self, facet: str) -> Any:
        """A facet in short: the users whose records were posted, the payloads that were published, the answer's status."""
        if facet == "posts":
            return [content["user_id"] for _path, _kind, content in self.posts]
        if facet == "published":
            return [payload for _topic, payload in self.published]
        return self.answer[0] if facet == "answer" and self.answer else getattr(self, facet)


class Side:
    """One program with its surroundings."""

    def __init__(
        self, name: str, program: Program, broker: MosquittoBroker, recorder: Recorder, tap: Wiretap, listen: int
    ) -> None:
        self.name = name
        self.program = program
        self.broker = broker
        self.recorder = recorder
        self.tap = tap
        self.listen = listen
        self._marks = 0

    async def start(self) -> None:
        """Start the program and begin anew with what is seen; returns once it hears."""
        self.forget()
        await self.program.start()
        # The script says that it is connected when it has asked for its topics, not when it has got them.
        async with asyncio.timeout(20):
            while not self.heartbeat_replies():
                await self.tap.publish(uplink(), b'{"cmd": "heartU"}')
                await asyncio.sleep(0.02)
        assert await self.mark()

    def posts(self) -> list[Posted]:
        """The POSTs, but for those of `mark`."""
        return [post for post in self.recorder.posts if b'"mark-' not in post.body]

    def forget(self) -> None:
        """Begin anew with what is seen."""
        self.recorder.posts.clear()
        self.tap.heard.clear()

    def heartbeat_replies(self, device: str = DEVICE) -> list[Heard]:
        """The heartbeat replies that a terminal got."""
        return [heard for heard in self.tap.heard if heard.topic == downlink(device) and b"heartD" in heard.payload]

    async def post(self, body: bytes, path: str = "/", kind: str = "application/json", method: str = "POST") -> Answer:
        """Send a request to the program. A command that was taken has been published when this returns, so that whatever is sent
        then comes behind it, also for a program that hears its own commands."""
        url = f"http://127.0.0.1:{self.listen}{path}"
        heard = len(self.tap.heard)
        async with (
            aiohttp.ClientSession(headers={"Content-Type": kind}) as session,
            session.request(method, url, data=io.BytesIO(body)) as answer,
        ):
            got = Answer(answer.status, answer.content_type, await answer.text())
        if got.status == 200:
            await until(lambda: len(self.tap.heard) > heard, f"{self.name}: the command that was posted to {path}")
        return got

    async def mark(self) -> bool:
        """Return once all that was sent before is dealt with; False if the program hears nothing any more.

        A record goes through behind all others of its device, and then a command behind all replies.
        """
        self._marks += 1
        mark = f"mark-{self._marks}"
        await self.tap.publish(uplink(), report(record(mark)))
        try:
            await until(lambda: self._posted(mark) or self.program.fallen(), f"{self.name}: the record {mark}")
        except AssertionError as error:
            error.add_note(f"{self.name} says:\n" + "\n".join(line[:300] for line in self.program.said()[-40:]))
            raise
        if self.program.fallen():
            await self.tap.publish(_SYNC, mark.encode())
            await until(lambda: Heard(_SYNC, mark.encode()) in self.tap.heard, "the wiretap")
            return False
        assert (await self.post(json.dumps(mark).encode())).status == 200
        await until(lambda: Heard(downlink(), mark.encode()) in self.tap.heard, f"{self.name}: the command {mark}")
        return True

    async def seen(self, answer: Answer | None = None) -> Seen:
        """All that was seen since the last time, once it is complete. A program that has fallen is started again."""
        alive = await self.mark()
        seen = Seen(
            [_post(post) for post in self.posts()],
            [_heard(heard) for heard in self.tap.heard if heard.topic != _SYNC and b"mark-" not in heard.payload],
            answer and (answer.status, answer.text if answer.status == 200 else ""),
            alive,
        )
        if not alive:
            await self.program.stop()
            await self.start()
        self.forget()
        return seen

    def _posted(self, mark: str) -> bool:
        return any(f'"{mark}"'.encode() in post.body for post in self.recorder.posts)


def _post(post: Posted) -> Any:
    return post.path, post.headers["Content-Type"], post.json


def _heard(heard: Heard) -> Any:
    """What was heard; of a heartbeat reply the time is replaced if it is in the script's form."""
    try:
        reply = json.loads(heard.payload)
    except (ValueError, RecursionError):
        return heard
    if not isinstance(reply, dict) or reply.get("cmd") != "heartD":
        return heard
    return heard.topic, {**reply, "time": re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", "NOW", reply["time"])}


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[Side, Side]]:
    """The script and the flow, started."""
    async with AsyncExitStack() as stack:
        sides = []
        for name in ("script", "flow"):
            broker = stack.enter_context(MosquittoBroker())
            recorder = await stack.enter_async_context(Recorder())
            topics = [downlink(), downlink(OTHER), _SYNC]
            tap = await stack.enter_async_context(Wiretap(broker.host, broker.port, topics))
            port = free_port()
            program: Program
            if name == "script":
                script_env = {"MQTT_HOST": broker.host, "MQTT_PORT": str(broker.port), "LISTEN_PORT": str(port)}
                program = SeedScript({**script_env, "BACKEND_URL": recorder.url}, port)
                stack.push_async_callback(program.stop)
            else:
                listen = f"127.0.0.1:{port}"
                env = {"MQTT_URL": broker.url, "BACKEND_URL": recorder.url, "COMMAND_LISTEN": listen, "DEVICE": DEVICE}
                engine = Engine(FLOW, state=folder / "state", env=env)
                stack.push_async_exit(engine)
                program = Flow(engine)
            sides.append(Side(name, program, broker, recorder, tap, port))
        script, flow = sides
        await asyncio.gather(script.start(), flow.start())
        script.forget()
        flow.forget()
        yield script, flow
