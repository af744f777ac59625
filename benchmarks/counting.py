"""Counts what Python does: bytecode instructions, calls, objects made. Counts, and not times: a busy machine changes nothing.

Python compiles the same source to the same bytecode on every machine, whatever the interpreter was built with, so a count is
the same wherever the minor version is (3.11). It sees every line that is added to the path of a message, also in libraries
written in Python. It does not see what a C function does inside: a slower JSON codec is for the benchmarks to find.
"""

from __future__ import annotations

import asyncio
import dis
import selectors
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

_LEFT_OUT = (str(Path(asyncio.__file__).parent), str(Path(selectors.__file__)), str(Path(__file__).parent))
"""The event loop, which is uvloop's in a run and all C there, and the stand-ins for the far ends."""
_LIBRARIES = (
    str(Path(sysconfig.__file__).parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)
_MAKES = ("BUILD_", "MAKE_FUNCTION", "RETURN_GENERATOR", "LIST_TO_TUPLE", "FORMAT_")


class Count(NamedTuple):
    """What one message costs.

    instructions: bytecodes executed, also in libraries. calls: what flowengine and the node packs call, in Python and in C.
    objects: the lists, dicts, tuples, texts, functions and coroutines that their bytecode makes itself.
    """

    instructions: float
    calls: float
    objects: float


class _Function:
    """One function: its bytecode, and how often each opcode in it was executed."""

    __slots__ = ("bytecode", "executed", "own", "place")

    def __init__(self, code: CodeType) -> None:
        self.bytecode = code.co_code
        self.own = not code.co_filename.startswith(_LIBRARIES)
        self.place = f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno} {code.co_qualname}"
        self.executed: Counter[int] = Counter()

    def times(self, *prefixes: str) -> int:
        """How often opcodes with these beginnings were executed."""
        return sum(times for opcode, times in self.executed.items() if dis.opname[opcode].startswith(prefixes))


class Counting:
    """Counts in this thread inside `with counting.on():`, added up over several such blocks.

    A frame that was entered before the block is counted once it is entered again, as a coroutine is.
    """

    def __init__(self) -> None:
        self._functions: dict[CodeType, _Function | None] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count until the end of the block. What traced before (a debugger, coverage) sees nothing meanwhile."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def count(self, messages: int) -> Count:
        """What was counted so far, for each of so many messages."""
        functions = [function for function in self._functions.values() if function is not None]
        own = [function for function in functions if function.own]
        return Count(
            instructions=sum(function.executed.total() for function in functions) / messages,
            calls=sum(function.times("CALL") - function.times("CALL_INTRINSIC") for function in own) / messages,
            objects=sum(function.times(*_MAKES) for function in own) / messages,
        )

    def places(self, messages: int) -> list[tuple[str, float]]:
        """Where the instructions were executed, the most first: the function, and how many for each of so many messages."""
        found = [(f.place, f.executed.total() / messages) for f in self._functions.values() if f is not None]
        return sorted(found, key=lambda place: -place[1])

    def _enter(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        code = frame.f_code
        if code not in self._functions:
            self._functions[code] = None if code.co_filename.startswith(_LEFT_OUT) else _Function(code)
        function = self._functions[code]
        if function is None:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        bytecode, executed = function.bytecode, function.executed

        def execute(frame: FrameType, event: str, _arg: Any) -> Any:
            if event == "opcode":
                executed[bytecode[frame.f_lasti]] += 1
            return execute

        return execute
