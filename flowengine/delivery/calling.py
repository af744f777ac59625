"""How an action's `deliver` is called, and what its answer means."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from flowengine.delivery.threads import Threads
from flowengine.errors import Retry, reason_of
from flowengine.i18n import _
from flowengine.message import Message, Result
from flowengine.node import Action, Answer, Drop

_NO_RESULT = Result()


def way_of(action: Action) -> tuple[Callable[[Message], Awaitable[Answer]], Threads | None]:
    """How a worker awaits an answer of this action, and the threads that take part in it, if any do."""
    deliver: Any = action.deliver
    if action.inline:

        async def on_the_spot(msg: Message) -> Answer:
            return await _awaited(deliver(msg))

        return on_the_spot, None
    if inspect.iscoroutinefunction(deliver):
        return deliver, None
    threads = Threads(action.context.identity)

    async def in_a_thread(msg: Message) -> Answer:
        return await _awaited(await threads.call(deliver, msg))

    return in_a_thread, threads


async def _awaited(made: Any) -> Answer:
    answer: Answer = await made if inspect.isawaitable(made) else made
    return answer


def answer_of(made: Any) -> Result | Drop:
    """What `deliver` returned. TypeError for what is no answer: a False that was meant as a no is no delivery."""
    if made is None:
        return _NO_RESULT
    if type(made) is Result or type(made) is Drop:
        return made
    raise TypeError(_("deliver() returned {type}, not a Result, a Drop or None").format(type=type(made).__name__))


def as_retry(error: BaseException) -> Retry | None:
    """What `deliver` raised as a reason to try again, or None where it never will go better."""
    if isinstance(error, Retry):
        return error
    if isinstance(error, OSError | asyncio.CancelledError):  # a TimeoutError is an OSError
        return Retry(reason_of(error))
    return None
