"""The engine: what is started and stopped in which order, and what it does with what fails on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import pytest
from structlog.testing import capture_logs

from flowengine import Action, Connection, Emit, Message, Meta, NodeOptions, Ref, Reject, Source, StartError, Stopping
from flowengine.flowfile import project
from flowengine.node import Part
from flowengine.plugins import Plugin, Registry
from flowengine.runtime import engine as engine_module
from flowengine.runtime import flow as flow_module
from flowengine.runtime.engine import Engine
from flowengine.testing import running

Event = tuple[str, str]
EVENTS: list[Event] = []
FAULTS: dict[Event, Callable[[], Awaitable[None]]] = {}


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    EVENTS.clear()
    FAULTS.clear()


async def happens(part: Part, what: str) -> None:
    """Note it, and fail if the test says so."""
    EVENTS.append((part.context.name, what))
    fault = FAULTS.get((part.context.name, what))
    if fault is not None:
        await fault()


def raises(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def fault() -> None:
        raise error

    return fault


async def hangs() -> None:
    await asyncio.get_running_loop().create_future()


class Line(Connection):
    """Notes what is done with it."""

    type = "line"

    async def open(self) -> None:
        await happens(self, "open")

    async def start(self) -> None:
        await happens(self, "start")

    async def stop(self) -> None:
        await happens(self, "stop")

    async def close(self) -> None:
        await happens(self, "close")


class In(Source):
    """Notes what is done with it."""

    type = "in"
    emit: Emit

    class Options(NodeOptions):
        connection: Annotated[Ref[Line] | None, Meta(description="A line")] = None

    def metadata(self) -> Iterable[str]:
        return ("device",)

    async def open(self) -> None:
        await happens(self, "open")

    async def run(self, emit: Emit) -> None:
        self.emit = emit
        await happens(self, "run")
        await asyncio.get_running_loop().create_future()

    def left_out(self) -> None:
        EVENTS.append((self.context.name, "left out"))

    async def close(self) -> None:
        await happens(self, "close")


class Out(Action):
    """Notes what is done with it; delivers as the test says."""

    type = "out"

    class Options(NodeOptions):
        connection: Annotated[Ref[Line] | None, Meta(description="A line")] = None

    async def open(self) -> None:
        await happens(self, "open")

    async def deliver(self, msg: Message) -> None:
        await happens(self, "deliver")

    async def close(self) -> None:
        await happens(self, "close")


def engine_of(folder: Path, *texts: str, state: Path | None = None) -> Engine:
    """An engine for flow files of these texts."""
    registry = Registry()
    registry.nodes.update({cls.type: cls for cls in (In, Out)})
    registry.connections["line"] = Line
    registry.plugins.append(Plugin("test", "test"))
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    return Engine(project.load([folder], registry).checked(), state)


def flow(name: str, line: str = "") -> str:
    uses = f"{{connection: {line}}}" if line else "{}"
    own = f"connections: {{{line}: {{line: {{}}}}}}\n" if line and line != "shared" else ""
    nodes = f"    - in: {uses}\n      name: {name}-in\n    - out: {uses}\n      name: {name}-out\n"
    return f"flow: {name}\n{own}chains:\n  main:\n{nodes}"


SHARED = "connections: {shared: {line: {}}}"


def node(engine: Engine, name: str) -> Any:
    return next(n.node for run in engine.flows for n in run.flow.nodes() if n.name == name)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_connections_open_then_nodes_then_sources_run_then_messages_come_in(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, flow("a", "line"))
    await engine.start()
    assert EVENTS == [("line", "open"), ("a-in", "open"), ("a-out", "open"), ("a-in", "run"), ("line", "start")]
    EVENTS.clear()
    await engine.stop()
    assert EVENTS == [("line", "stop"), ("a-out", "close"), ("a-in", "close"), ("line", "close")]


async def test_a_shared_connection_is_opened_and_started_once(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, SHARED, flow("a", "shared"), flow("b", "shared"))
    await engine.start()
    await engine.stop()
    assert [what for name, what in EVENTS if name == "shared"] == ["open", "start", "stop", "close"]


@pytest.mark.parametrize(
    "error", [StartError("the port is taken"), ValueError("odd"), SystemExit(1), asyncio.CancelledError()]
)
@pytest.mark.parametrize("where", [("la", "open"), ("la", "start"), ("a-in", "open"), ("a-out", "open")])
async def test_a_flow_that_cannot_start_is_said_and_left_out_and_the_others_go_on(
    tmp_path: Path, where: Event, error: BaseException
) -> None:
    FAULTS[where] = raises(error)
    engine = engine_of(tmp_path, flow("a", "la"), flow("b", "lb"))
    with capture_logs() as logs:
        await engine.start()
    assert [run.flow.name for run in engine.running()] == ["b"]
    [said] = [line for line in logs if "cannot start" in line["event"]]
    assert str(error) in said["reason"] and said["flow"] == "a"
    assert ("lb", "start") in EVENTS
    assert (("la", "start") in EVENTS) == (where == ("la", "start"))  # nothing comes in where nobody listens
    outcome = node(engine, "b-in").emit(1, {})
    assert (await outcome).state == "delivered"
    await engine.stop()
    assert {("la", "close"), ("lb", "close")} <= set(EVENTS)


async def test_before_a_shared_connection_starts_the_sources_of_a_flow_that_cannot_are_told_that_it_is_left_out(
    tmp_path: Path,
) -> None:
    FAULTS["a-out", "open"] = raises(StartError("no"))
    engine = engine_of(tmp_path, SHARED, flow("a", "shared"), flow("b", "shared"))
    await engine.start()
    assert [name for name, what in EVENTS if what == "left out"] == ["a-in"]
    assert EVENTS.index(("a-in", "left out")) < EVENTS.index(("shared", "start"))
    await engine.stop()


async def test_a_source_that_fails_when_it_is_left_out_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_source: In) -> None:
        raise ValueError("odd")

    monkeypatch.setattr(In, "left_out", fails)
    FAULTS["a-out", "open"] = raises(StartError("no"))
    engine = engine_of(tmp_path, flow("a"), flow("b"))
    await engine.start()
    assert [run.flow.name for run in engine.running()] == ["b"]
    await engine.stop()


async def test_a_flow_whose_connection_fails_to_start_takes_nothing(tmp_path: Path) -> None:
    FAULTS["la", "start"] = raises(StartError("no"))
    engine = engine_of(tmp_path, flow("a", "la"), flow("b"))
    await engine.start()
    with pytest.raises(Stopping):
        node(engine, "a-in").emit(1, {})
    await engine.stop()


async def test_a_broken_shared_connection_is_tried_once_and_named_to_each_flow(tmp_path: Path) -> None:
    FAULTS["shared", "open"] = raises(StartError("nobody there"))
    engine = engine_of(tmp_path, SHARED, flow("a", "shared"), flow("b", "shared"), flow("c"))
    with capture_logs() as logs:
        await engine.start()
    assert EVENTS.count(("shared", "open")) == 1
    assert ["nobody there" in line["reason"] for line in logs if "cannot start" in line["event"]] == [True, True]
    await engine.stop()


async def test_if_no_flow_can_start_that_is_an_error(tmp_path: Path) -> None:
    FAULTS["la", "open"] = raises(StartError("no"))
    engine = engine_of(tmp_path, flow("a", "la"))
    with pytest.raises(StartError):
        await engine.start()
    await engine.stop()
    assert ("la", "close") in EVENTS


async def test_it_is_ready_when_all_connections_of_running_flows_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening: dict[str, str] = {}
    monkeypatch.setattr(Line, "ready", lambda self: listening.get(self.context.name))
    FAULTS["a-out", "open"] = raises(StartError("no"))
    engine = engine_of(tmp_path, flow("a", "la"), flow("b", "lb"))
    await engine.start()
    ready = asyncio.create_task(engine.until_ready())
    assert engine.not_ready() == ["b/lb"]
    listening["lb"] = "tcp:1"
    assert await ready == ["tcp:1"] and engine.not_ready() == []
    await engine.stop()


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(1), asyncio.CancelledError()])
async def test_a_source_that_fails_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(flow_module, "_SOURCE_BACKOFF", (0.001, 0.01))
    FAULTS["a-in", "run"] = raises(error)
    engine = engine_of(tmp_path, flow("a"))
    with capture_logs() as logs:
        await engine.start()
        await until(lambda: EVENTS.count(("a-in", "run")) >= 5)
        FAULTS.clear()
        await asyncio.sleep(0.02)
    assert [line["log_level"] for line in logs if line["event"].startswith("a source failed")][:4] == ["error"] * 4
    assert (await node(engine, "a-in").emit(1, {})).state == "delivered"
    await engine.stop()


async def test_a_stop_lets_what_is_in_flight_go_through_also_to_later_actions(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def wait() -> None:
        await go.wait()

    FAULTS["first", "deliver"] = wait
    text = "flow: a\nchains:\n  main:\n    - in\n    - out:\n      name: first\n    - out:\n      name: second\n"
    engine = engine_of(tmp_path, text)
    await engine.start()
    outcomes = [node(engine, "in").emit(n, {"device": "7"}) for n in range(3)]
    await until(lambda: ("first", "deliver") in EVENTS)
    stopping = asyncio.create_task(engine.stop())
    await until(lambda: engine.flows[0].stopping)
    with pytest.raises(Stopping):
        node(engine, "in").emit(1, {})
    go.set()
    await stopping
    assert [outcome.state for outcome in outcomes] == ["delivered"] * 3
    assert EVENTS.count(("second", "deliver")) == 3 and EVENTS.index(("second", "close")) > EVENTS.index(
        ("second", "deliver")
    )
    assert engine.books().balance(engine.pending()) and engine.pending() == 0


async def test_what_is_not_through_when_the_time_is_over_stays_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "DRAIN", 0.05)
    FAULTS["a-out", "deliver"] = hangs
    engine = engine_of(tmp_path, flow("a"))
    await engine.start()
    outcomes = [node(engine, "a-in").emit(n, {"device": "7"}) for n in range(3)]
    await engine.stop()
    assert [outcome.state for outcome in outcomes] == ["pending"] * 3
    assert engine.pending() == 3 and engine.books().balance(3)
    assert len(asyncio.all_tasks()) == 1


async def test_a_second_signal_hurries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DRAIN", 3600.0)
    FAULTS["a-out", "deliver"] = hangs
    engine = engine_of(tmp_path, flow("a"))
    await engine.start()
    node(engine, "a-in").emit(1, {})
    stopping = asyncio.create_task(engine.stop())
    await until(lambda: engine.flows[0].stopping)
    assert not stopping.done()
    engine.hurry.set()
    await stopping
    assert engine.pending() == 1


@pytest.mark.parametrize("fault", [raises(ValueError("odd")), raises(SystemExit(1)), hangs])
@pytest.mark.parametrize("where", [("la", "stop"), ("a-out", "close"), ("la", "close")])
async def test_what_fails_or_hangs_while_stopping_does_not_keep_the_rest_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Event, fault: Callable[[], Awaitable[None]]
) -> None:
    monkeypatch.setattr(engine_module, "_CLOSE_WITHIN", 0.05)
    FAULTS[where] = fault
    engine = engine_of(tmp_path / "flows", flow("a", "la"), state=tmp_path / "state")
    await engine.start()
    with capture_logs() as logs:
        await engine.stop()
    assert [line["node"] for line in logs if line["event"] == "failed while stopping"] == [
        "a/la" if where[0] == "la" else "a/main/a-out"
    ]
    assert {("a-in", "close"), ("a-out", "close"), ("la", "close")} <= set(EVENTS)
    again = engine_of(tmp_path / "flows", flow("a", "la"), state=tmp_path / "state")
    await again.start()
    await again.stop()


async def test_a_close_that_is_no_coroutine_does_not_keep_the_rest_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Out, "close", lambda _self: 1 / 0)
    engine = engine_of(tmp_path, flow("a", "la"))
    await engine.start()
    await engine.stop()
    assert ("la", "close") in EVENTS


async def test_one_failing_flow_does_not_disturb_another(tmp_path: Path) -> None:
    FAULTS["a-out", "deliver"] = raises(Reject("no"))
    engine = engine_of(tmp_path, flow("a"), flow("b"))
    await engine.start()
    dead, fine = node(engine, "a-in").emit(1, {}), node(engine, "b-in").emit(1, {})
    assert ((await dead).state, (await fine).state) == ("dead", "delivered")
    assert [(run.books.dead, run.books.delivered) for run in engine.flows] == [(1, 0), (0, 1)]
    with capture_logs() as logs:
        engine.log_books()
    assert [line["event"] for line in logs] == ["books of the flow", "books of the flow", "books"]
    assert (logs[-1]["received"], logs[-1]["dead"], logs[-1]["pending"]) == (2, 1, 0)
    await engine.stop()


async def test_a_store_that_cannot_be_opened_is_a_start_error(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "flowengine.db").mkdir(parents=True)
    engine = engine_of(tmp_path / "flows", flow("a"), state=state)
    with pytest.raises(StartError, match=r"flowengine\.db"):
        await engine.start()
    await engine.stop()


async def test_a_second_engine_on_a_state_folder_is_refused(tmp_path: Path) -> None:
    async with running("{flow: f, chains: {main: [test-in, test-out]}}", state=tmp_path / "state"):
        with pytest.raises(StartError, match="process id"):
            engine_of(tmp_path / "flows", flow("a"), state=tmp_path / "state")
