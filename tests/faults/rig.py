"""The rig of the fault suite: numbered records from many devices, a real broker, the real engine, a backend that fails on demand.

    async with Rig(tmp_path) as rig:                    # all is up, and the engine subscribed
        async with rig.load(rate=150):                  # records come in all the while
            rig.backend.behave = answers(503)
            await rig.engine.kill()                     # kill -9 ...
            await rig.engine.start()                    # ... and again with the same state, once it says `ready`
            rig.backend.behave = healthy
        await assert_nothing_lost(rig)

The invariants, for every fault:
- A: each record whose PUBACK its publisher got is at the backend or in the dead letters;
- B: first arrivals of a device are in order;
- C: a record that comes again carries the same Idempotency-Key, and no two records share one;
- D: the engine's books balance whenever they are asked for, and what a run carried is what the run before left on the disk.

Faults take a few rounds in `make test` and FAULT_ROUNDS of them in `make faults`; see `rounds` and `full`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Self, TypeVar

from flowengine_simulate.books import EngineBooks
from tests.faults.backend import Backend, Record
from tests.faults.disk import Letter, letters, rows, stored
from tests.faults.publisher import Publisher
from tests.support.broker import MosquittoBroker, free_port
from tests.support.engine import Engine, until

FULL = bool(os.environ.get("FAULT_ROUNDS"))
"""Whether this is the full form."""
ROOMY = "max_queued_messages 0\nmax_inflight_messages 0"
"""Mosquitto that never drops a message for want of room; its defaults are a fault of their own."""
POISON = "it ended the process three times"
SETTLE_S = 240.0 if FULL else 40.0
T = TypeVar("T")


def rounds(quick: int, most: int = 1000) -> int:
    """How often a fault is repeated; in the full form at most so often, where each time takes long."""
    return min(int(os.environ["FAULT_ROUNDS"]), most) if FULL else quick


def full(quick: T, long: T) -> T:
    """`long` in the full form, else `quick`."""
    return long if FULL else quick


def flow(
    name: str = "rig",
    *,
    mqtt: str = "",
    devices: Collection[str] = (),
    steps: Sequence[str] = (),
    path: str = "",
    post: str = "",
    delivery: str = "",
    url: str = "${backend}",
    extra: str = "",
) -> str:
    """The text of a flow from `rig/{device}/up` to the backend.

    mqtt, post, delivery: further options, as in `keepalive: 2s, version: "3.1.1"`; steps: nodes before the POST; path: after
    the backend's URL; extra: lines put at the end, such as further chains (two blanks deep).
    """
    only = f", devices: [{', '.join(devices)}]" if devices else ""
    middle = "".join(f"    - {step}\n" for step in steps)
    return f"""\
flow: {name}
params:
  mqtt: {{env: MQTT_URL}}
  backend: {{env: BACKEND_URL}}
connections:
  broker: {{mqtt: {{url: "${{mqtt}}"{mqtt and ", "}{mqtt}}}}}
chains:
  records:
    - mqtt-in: {{connection: broker, topic: "rig/{{device}}/up", qos: 1{only}}}
    - json-parse
{middle}    - http-post: {{url: "{url}/{path}"{post and ", "}{post}}}
      delivery: {{id_from: "{{device}}/{{payload.number}}"{delivery and ", "}{delivery}}}
{extra}"""


class RigEngine(Engine):
    """The engine, whose books are checked whenever they are seen (invariant D).

    prefix: a program that runs it in its own place, such as `unshare`, so that signals reach the engine.
    """

    def __init__(
        self,
        flows: Path,
        *,
        state: Path,
        env: Mapping[str, str],
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(flows, state=state, env=env)
        self._command = [*prefix, *self._command, *options]
        self.carries: int | None = 0
        """How many rows the present run found at its start, or None where a test has made that unknowable."""

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def env(self) -> dict[str, str]:
        """Its environment, from the next start on."""
        return self._env

    async def launch(self) -> None:
        self.carries = stored(self.state)
        await super().launch()

    async def ask_books(self) -> EngineBooks:
        return self._checked(await super().ask_books())

    async def stop(self, number: Signals = Signals.SIGTERM) -> int:
        """Send a signal and wait for the end; after a stop of its own accord, the final books are checked."""
        status = await super().stop(number)
        if number is not Signals.SIGKILL and status == 0:
            books = self._checked(self.books)
            left = stored(self.state)
            assert left <= books.pending, f"{left} rows are on the disk, of which {books} know less"
        return status

    def _checked(self, books: EngineBooks) -> EngineBooks:
        assert books.balanced, f"the books do not balance: {books}\n{self.log[-4000:]}"
        if self.carries is not None:
            assert books.carried == self.carries, f"{books}, but {self.carries} rows were on the disk at the start"
        return books


class Rig:
    """Everything at work. Leaving ends it all, whatever state it is in.

    folder: an empty folder. flows: texts of flow files by name (see `flow`); changed with `write`. devices: how many, or which.
    broker: one to use that runs already, or options of mosquitto.conf. env, options, prefix: of the engine. plugins: source
    files put where the engine finds them, by name. size: bytes that each record is padded with. mqtt_url: where the engine
    finds the broker, if something stands between; the publisher always speaks to the broker itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        flows: Mapping[str, str] | None = None,
        devices: int | Sequence[str] = 6,
        broker: MosquittoBroker | str = ROOMY,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        plugins: Mapping[str, str] | None = None,
        size: int = 0,
        mqtt_url: str | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.devices = [f"d{n:04d}" for n in range(devices)] if isinstance(devices, int) else list(devices)
        self.broker = MosquittoBroker(broker) if isinstance(broker, str) else broker
        self.backend = Backend()
        self.listen = f"127.0.0.1:{free_port()}"
        """For flows that take commands by HTTP: the variable COMMAND_LISTEN."""
        self.publisher = Publisher(self.broker.port, self.devices, size=size)
        self.rate = 150.0
        self._own_broker = isinstance(broker, str)
        self._stack = AsyncExitStack()
        self._flows = {"rig": flow()} if flows is None else dict(flows)
        self._plugins = plugins or {}
        self._env = {"COMMAND_LISTEN": self.listen, "MQTT_URL": mqtt_url or self.broker.url, **(env or {})}
        self._options = options
        self._prefix = prefix
        self.engine: RigEngine

    def write(self, name: str, text: str) -> None:
        """Put a flow file in place of the one of this name; the engine reads it at its next start."""
        (self.folder / "flows" / f"{name}.yaml").write_text(text, encoding="utf-8")

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _open(self) -> None:
        for part in ("flows", "plugins"):
            (self.folder / part).mkdir(exist_ok=True)
        for name, text in self._flows.items():
            self.write(name, text)
        for name, text in self._plugins.items():
            (self.folder / "plugins" / f"{name}.py").write_text(text, encoding="utf-8")
        if self._own_broker:
            self._stack.enter_context(self.broker)
        await self._stack.enter_async_context(self.backend)
        env = {"BACKEND_URL": self.backend.url, **self._env}
        self.engine = RigEngine(
            self.folder / "flows", state=self.state, env=env, options=self._options, prefix=self._prefix
        )
        await self._stack.enter_async_context(self.engine)
        await self._stack.enter_async_context(self.publisher)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def load(self, rate: float | None = None, *, warm: int = 30, after: int = 30) -> AsyncIterator[None]:
        """Records come in at a steady rate. The block begins once `warm` of them were sent to the backend; when it ends, `after`
        more are sent, and the broker's PUBACK for each is waited for."""
        reporting = asyncio.create_task(self.publisher.steady(rate or self.rate))
        try:
            before = self.backend.requests
            await until(lambda: self.backend.requests >= before + warm, f"{warm} records at the backend")
            yield
            goal = len(self.publisher.sent) + after
            await until(lambda: len(self.publisher.sent) >= goal, f"{after} records more")
        finally:
            reporting.cancel()
            await asyncio.wait([reporting])
        await self.publisher.all_acknowledged()

    def dead(self) -> list[Letter]:
        """The dead letters, oldest first."""
        return letters(self.state)

    def rows(self) -> list[Record]:
        """The records in the outbox, in the order of their rows."""
        return rows(self.state)

    @property
    def stored(self) -> int:
        """How many rows the outbox has."""
        return stored(self.state)

    def missing(self) -> set[Record]:
        """The records that the broker has acknowledged and that are neither at the backend nor in the dead letters."""
        absent = set(self.publisher.acknowledged) - self.backend.times.keys()
        return absent - {letter.record for letter in self.dead()} if absent else absent

    async def arrived(self, within: float = SETTLE_S) -> None:
        """Return once nothing is missing (A)."""
        deadline = time.monotonic() + within
        while absent := self.missing():
            if time.monotonic() > deadline or not self.engine.running:
                why = f"not within {within:g} s" if self.engine.running else "the engine has ended"
                raise AssertionError(f"{why}: {len(absent)} records are lost or late, such as {sorted(absent)[:10]}")
            await asyncio.sleep(0.02 if len(absent) < 2000 else 0.2)

    @property
    def repeats(self) -> int:
        """Arrivals beyond the first of each record."""
        return sum(self.backend.times.values()) - len(self.backend.times)


async def assert_nothing_lost(
    rig: Rig, *, repeats: bool = True, dead: int | None = 0, within: float = SETTLE_S
) -> None:
    """Wait until everything has settled, stop the engine, and check A, B, C and D.

    repeats: whether at-least-once may have made any. dead: how many dead letters there must be; None: any number, each for having
    been in flight at three ends of the process that a test has caused, since the engine cannot know better.
    """
    await rig.publisher.all_acknowledged()
    await rig.arrived(within)
    await rig.engine.until_books(lambda books: not books.pending, "nothing pending")
    assert await rig.engine.stop() == 0
    assert rig.rows() == [], "rows stayed in the outbox though everything has arrived"
    if dead is None:
        assert {letter.reason for letter in rig.dead()} <= {POISON}, rig.dead()[:5]
    else:
        assert len(rig.dead()) == dead, rig.dead()[:5]
    assert_in_order(rig)
    assert_keys(rig)
    assert set(rig.backend.times) <= set(rig.publisher.sent), "records at the backend that nobody has sent"
    if not repeats:
        again = [record for record, times in rig.backend.times.items() if times > 1]
        assert not again, f"{len(again)} records came again without need, such as {again[:10]}"


def assert_in_order(rig: Rig) -> None:
    """B: the first arrivals of each device are in order."""
    for device, numbers in rig.backend.arrived.items():
        first = list(dict.fromkeys(numbers))
        wrong = [(a, b) for a, b in itertools.pairwise(first) if a > b]
        assert not wrong, f"device {device}: {wrong[:5]} came in the wrong order"


def assert_keys(rig: Rig) -> None:
    """C: one Idempotency-Key for each record, over all its attempts, and none for two."""
    owners: Counter[str | None] = Counter()
    for record, keys in rig.backend.keys.items():
        assert len(keys) == 1, f"{record} came with the keys {keys}"
        owners.update(keys)
    assert None not in owners, "a record came without an Idempotency-Key"
    shared = [key for key, times in owners.items() if times > 1]
    assert not shared, f"keys of several records: {shared[:5]}"
