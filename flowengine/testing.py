"""What the author of a node tests with: messages, nodes made from the text of a flow file, no broker and no engine needed.

```python
from flowengine.testing import make, message, process

def test_an_empty_list_gives_nothing():
    split = make(Split, "{path: data}")
    assert process(split, message({"data": []})) == []
```
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from flowengine.flowfile.flow import make as _make
from flowengine.flowfile.problems import FlowError, Problems, Source, ordered
from flowengine.flowfile.reader import Reader, mark_of
from flowengine.flowfile.substitute import Scope
from flowengine.flowfile.tree import Scalar, parse
from flowengine.message import Message, Outcome, new_id
from flowengine.node import Action, Answer, Connection, Context, Drop, Part, Step
from flowengine.options import Routed

__all__ = ["FlowError", "deliver", "make", "message", "process"]

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
    source = Source(Path("test.yaml"), options.splitlines())
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
        part = _make(cls, read, Context(f"test/test/{name}", "test", name, state), tree, (0, 0), problems)
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
