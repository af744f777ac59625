"""The surroundings of one system: a broker, a sink, the board between them, and a folder."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from benchmarks.board import Board
from benchmarks.broker import BenchBroker, Window
from benchmarks.commands import Plan as CommandsPlan
from benchmarks.load import Plan as LoadPlan
from benchmarks.packets import Reader, opened, publish_head
from benchmarks.payloads import Kind, around_number, downlink, uplink
from benchmarks.processes import Child
from benchmarks.samples import Sample
from benchmarks.systems.system import PYTHON, ROOT, Delivery, Place, System
from tests.support.broker import free_port, port_answers

_START_S = 30.0
_PROBE_EVERY_S = 0.01
_COUNT_S = 600.0
"""How long a count may take to send"""
_GENERATOR_S = 20.0
"""How long a generator may take beyond its plan"""


class MeasurementFailed(Exception):
    """A system or a generator did not do what it must for a figure; the text says what."""


class Rig:
    """A context manager; everything in it is ended with it.

    with Rig() as rig:
        seconds = rig.start(FlowEngine())       # from its start to its first heartbeat reply
        sample = rig.load(devices=50, seconds=1.0)
    """

    def __init__(self, window: Window = "default", *, delivery: Delivery = "ordered") -> None:
        self._stack = ExitStack()
        self._window = window
        self._delivery: Delivery = delivery
        self.system: System | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            self.board = Board(self.folder / "board", create=True)
            self.broker = stack.enter_context(BenchBroker(self._window))
            self.sink_port = free_port()
            command = [PYTHON, "-m", "benchmarks.sink", str(self.board.path), str(self.sink_port)]
            self.sink = stack.enter_context(Child(command, folder=ROOT, log=self.folder / "sink.log"))
            _until(lambda: port_answers(self.sink_port), self.sink, "the sink")
            (self.folder / "system").mkdir()
            self.place = Place(
                folder=self.folder / "system",
                broker_port=self.broker.port,
                backend=f"http://127.0.0.1:{self.sink_port}/api/user/mqtt_msg",
                listen_port=free_port(),
                window=self._window,
                delivery=self._delivery,
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.system is not None and error is not None:
                log = self.place.folder / f"{self.system.name}.log"
                error.add_note(log.read_text(errors="replace")[-2000:] if log.exists() else "no log")
            self.stop()
        finally:
            self._stack.close()

    def start(self, system: System, *, probe: bool = True) -> float:
        """Start the system; how many seconds until it did its first work: answered a heartbeat, or posted a record if it answers
        none. With `probe` off it returns at once."""
        began = time.monotonic()
        self.system = system
        system.start(self.place)
        if probe:
            self._probe("heartbeat" if "heartbeats" in system.abilities else "record")
        return time.monotonic() - began

    def stop(self) -> None:
        """Stop the system."""
        if self.system is not None:
            self.system.stop()
            self.system = None

    def load(self, *, beside: Mapping[str, Any] | None = None, **plan: Any) -> Sample:
        """Run the load generator with these fields of a Plan; its CPU figures are of the system.

        `beside` are the fields of a second Plan that is carried out at the same time and whose Sample is not returned.
        """
        batch = self.board.begin(plan.setdefault("devices", 50))
        watch = tuple(self.system.child.pids()) if self.system is not None else ()
        given = [plan] if beside is None else [plan, {"devices": plan["devices"], **beside}]
        plans = [
            LoadPlan(port=self.broker.port, board=str(self.board.path), batch=batch, watch=watch, **fields)
            for fields in given
        ]
        longest = max(each.warm_up + each.seconds + each.patience + _COUNT_S * (each.count > 0) for each in plans)
        return self._generate("benchmarks.load", plans, longest)

    def commands(self, **plan: Any) -> Sample:
        """Run the clients that post commands, with these fields of their Plan."""
        assert self.system is not None
        whole = CommandsPlan(
            broker_port=self.broker.port,
            port=self.place.listen_port,
            batch=self.board.begin(1),
            as_string=self.system.string_commands,
            watch=tuple(self.system.child.pids()),
            **plan,
        )
        return self._generate("benchmarks.commands", [whole], whole.warm_up + whole.seconds)

    def _generate(self, module: str, plans: Sequence[msgspec.Struct], patience: float) -> Sample:
        """Run generators at the same time; the Sample of the first. Raises MeasurementFailed."""
        running = [
            subprocess.Popen(
                [PYTHON, "-m", module, msgspec.json.encode(plan).decode()],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for plan in plans
        ]
        try:
            said = [process.communicate(timeout=patience + _GENERATOR_S) for process in running]
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"{module} does not come to an end") from None
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.communicate()
        for process, (_out, error) in zip(running, said, strict=True):
            if process.returncode:
                raise MeasurementFailed(f"{module}: {error.decode(errors='replace').strip().splitlines()[-1:]}")
        return msgspec.json.decode(said[0][0], type=Sample)

    def _probe(self, kind: Kind) -> None:
        batch = self.board.begin(1)
        before, after = around_number(kind, batch, 200)
        payload = before if kind == "heartbeat" else before + b"00000000" + after
        packet = publish_head(uplink(0), len(payload)) + b"\0\1" + payload
        sock = opened(self.broker.port, f"bench-probe-{os.getpid()}", [downlink(0)])
        sock.settimeout(_PROBE_EVERY_S)
        reader, deadline = Reader(), time.monotonic() + _START_S
        try:
            while not self.board.posts:
                assert self.system is not None
                if not self.system.child.running:
                    raise MeasurementFailed(f"{self.system.name} ended at its start")
                if time.monotonic() > deadline:
                    raise MeasurementFailed(f"{self.system.name} does no work within {_START_S:g} s")
                sock.sendall(packet)
                try:
                    if any(first & 0xF0 == 0x30 for first, _body in reader.feed(sock.recv(4096))):
                        return
                except TimeoutError:
                    continue
                time.sleep(_PROBE_EVERY_S)
        finally:
            sock.close()


def _until(condition: Any, child: Child, what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        if not child.running or time.monotonic() > deadline:
            raise MeasurementFailed(f"{what} does not start")
        time.sleep(0.005)
