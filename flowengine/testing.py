"""What the author of a node tests with: messages, nodes made from the text of a flow file, whole flows. No broker is needed.

```python
from flowengine.testing import make, message, process, running

def test_an_empty_list_gives_nothing():
    split = make(Split, "{path: data}")
    assert process(split, message({"data": []})) == []

async def test_in_a_flow():
    async with running("{flow: t, chains: {c: [test-in, split: data, test-out]}}", plugins=[Split]) as flow:
        assert (await flow.send({"data": [1, 2]}, device="7")).state == "delivered"
        assert [msg.payload for msg in flow.sent] == [1, 2]
```
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta, field

from flowengine.flowfile.parts import make as _make
from flowengine.flowfile.problems import FlowError, Problems, ordered
from flowengine.flowfile.problems import Source as SourceText
from flowengine.flowfile.project import load as _load
from flowengine.flowfile.reader import Reader
from flowengine.flowfile.substitute import Scope
from flowengine.flowfile.tree import Scalar, mark_of, parse
from flowengine.message import Message, Outcome, new_id
from flowengine.node import Action, Answer, Connection, Context, Drop, Emit, Node, NodeOptions, Part, Source, Step
from flowengine.options import Routed
from flowengine.plugins import Plugin
from flowengine.plugins import load as _plugins
from flowengine.runtime.engine import Engine

__all__ = ["FlowError", "RunningFlow", "deliver", "make", "message", "process", "running"]

PartT = TypeVar("PartT", bound=Part)


def message(payload: Any = None, **meta: Any) -> Message:
    """A message as a source would give it; keyword arguments are its metadata."""
    return Message(payload, meta, new_id(), time.time(), Outcome())


def make(
    cls: type[PartT],
    options: str = "",
    *,
    name: str = "test",
    connections: Mapping[str, Connection] | None = None,
    state: Path | None = None,
) -> PartT:
    """Make a node or connection from `options`, the text that stands behind its type in a flow file.

    connections: what `connection:` options may name. Raises FlowError with the text that `flowengine check` would print.
    """
    source = SourceText(Path("test.yaml"), options.splitlines())
    problems = Problems(source, where=cls.type)
    tree = parse(options, problems) if options.strip() else Scalar((0, 0), "", True)
    reader = Reader(problems, Scope(Path()), lambda _nodes, where: f"test.{where}")
    read = reader.read(tree, cls.Options, (0, 0)) if tree is not None else None
    part: PartT | None = None
    if read is not None:
        for ref, wanted, mark in reader.found.refs:
            target = (connections or {}).get(ref.text)
            if isinstance(target, wanted):
                ref.bind(target)
            else:
                problems.error(mark, f"make() was given no {wanted.__name__} named {ref.text!r}")
        part = _make(cls, read, Context(f"test/test/{name}", "test", name, state), (0, 0), problems)
    if part is not None and not problems.count():
        for problem in part.check():
            at = mark_of(tree, problem.option.split("."), cls.Options.bare) if problem.option else None
            problems.error(at or (0, 0), problem.text)
    if part is None or problems.count():
        raise FlowError(ordered(problems.found))
    return part


def process(node: Step, msg: Message) -> list[Message | Routed]:
    """What the step makes of a message, always as a list; nothing where it dropped it."""
    made = node.process(msg)
    if made is None or isinstance(made, Drop):
        return []
    return [made] if isinstance(made, Message | Routed) else list(made)


async def deliver(node: Action, msg: Message) -> Answer:
    """Have the action deliver one message, once: what it returns, or the Retry or Reject it raises."""
    if not node.inline and not inspect.iscoroutinefunction(node.deliver):
        made = await asyncio.to_thread(node.deliver, msg)
    else:
        made = node.deliver(msg)
    return await made if inspect.isawaitable(made) else made


class _In(Source):
    """Takes in what a test sends.

    Guarantees:
        None.

    Example:
        - test-in: {metadata: [plate]}
    """

    type = "test-in"

    class Options(NodeOptions):
        metadata: Annotated[list[str], Meta(description="Names that messages know beside device and topic")] = field(
            default_factory=list
        )

    emit: Emit | None = None

    def metadata(self) -> Iterable[str]:
        return ("device", "topic", *self.options.metadata)

    async def run(self, emit: Emit) -> None:
        self.emit = emit
        await asyncio.get_running_loop().create_future()


class _Out(Action):
    """Keeps what it delivers, for a test to see.

    Guarantees:
        It fails when the test says so.

    Example:
        - test-out
    """

    type = "test-out"
    flow: RunningFlow

    async def deliver(self, msg: Message) -> None:
        if self.flow.failures:
            raise self.flow.failures.popleft()
        self.flow.sent.append(msg)


class RunningFlow:
    """A flow at work in the test's event loop: `test-in` and `test-out` are its ends.

    sent: the messages that `test-out` nodes have delivered, in order. failures: what the next deliveries raise. engine: with
    `engine.books()` and `engine.pending()`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sent: list[Message] = []
        self.failures: deque[BaseException] = deque()
        self._ins: dict[str, _In] = {}
        for definition in (node for run in engine.flows for node in run.flow.nodes()):
            if isinstance(definition.node, _In):
                self._ins[definition.chain] = definition.node
            elif isinstance(definition.node, _Out):
                definition.node.flow = self

    def send(self, payload: Any = None, /, *, into: str = "", **meta: Any) -> Outcome:
        """Hand a message in; await the outcome to have all its parts settled. into: the chain, where several have a test-in."""
        source = self._ins[into] if into else next(iter(self._ins.values()))
        assert source.emit is not None, "the flow does not run"
        return source.emit(payload, meta)

    def fail_next(self, *errors: BaseException) -> None:
        """Let the next deliveries of `test-out` raise these: `Retry("busy", after=0)`, `Reject("no")`."""
        self.failures.extend(errors)

    async def until(self, condition: Callable[[], Any], within: float = 10.0) -> None:
        """Return once `condition()` is true; raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.001)

    def balanced(self) -> bool:
        """Whether the books balance."""
        return self.engine.books().balance(self.engine.pending())


class _Given:
    def __init__(self, classes: Iterable[type[Part]]) -> None:
        self._classes: list[type[Part]] = [_In, _Out, *classes]

    def flowengine_nodes(self) -> list[type[Part]]:
        return [cls for cls in self._classes if issubclass(cls, Node)]

    def flowengine_connections(self) -> list[type[Part]]:
        return [cls for cls in self._classes if issubclass(cls, Connection)]


@asynccontextmanager
async def running(
    flow: str,
    *,
    plugins: Iterable[type[Part]] = (),
    environ: Mapping[str, str] | None = None,
    state: Path | None = None,
) -> AsyncIterator[RunningFlow]:
    """Run a flow, given as the text of its file, from its first `ready` until the end of the block.

    plugins: node and connection classes to add to those that are installed. environ: in place of the environment. state: the
    state folder; without one, dead letters are counted and not kept. Raises FlowError with what `flowengine check` says,
    StartError if it cannot start, and AssertionError if the books do not balance at the end.
    """
    registry = _plugins()
    given = Plugin("test", "test")
    registry.add(_Given(plugins), given)
    if given.error:
        raise ValueError(given.error)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "flow.yaml"
        file.write_text(flow, encoding="utf-8")
        engine = Engine(_load([file], registry, environ=environ, state=state).checked(), state)
    running = RunningFlow(engine)
    try:
        await engine.start()
        await engine.until_ready()
        yield running
    finally:
        await engine.stop()
    assert running.balanced(), f"the books do not balance: {engine.books().lines(engine.pending())}"
