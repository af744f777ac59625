"""Threads for actions whose `deliver` is a plain function."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

from flowengine.message import Message

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[Message], Any], Message]


class Threads:
    """At most so many threads that make calls for the event loop; whoever calls keeps to that number.

    They are daemons, unlike those of a ThreadPoolExecutor: a call that never returns (a request without a timeout) does
    not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._calls = 0

    async def call(self, function: Callable[[Message], Any], msg: Message) -> Any:
        """What `function(msg)` returns or raises. When this is cancelled, the call goes on, and its end is lost."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._calls += 1
        if self._calls > self._threads:
            self._threads += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        self._jobs.put((loop, answer, function, msg))
        try:
            return await answer
        finally:
            self._calls -= 1

    def close(self) -> None:
        """Let the threads end, each when its call has returned."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, answer, function, msg = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(msg)
            except StopIteration as stop:  # a future takes it for its own end (PEP 479)
                error = RuntimeError(f"StopIteration: {stop}")
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(_give, answer, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _give(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
