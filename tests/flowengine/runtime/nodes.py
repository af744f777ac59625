"""Nodes that do as they are told: by their options, or by the payload of the message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any, ClassVar

from flowengine import Action, Drop, Message, Meta, NodeOptions, Reject, Result, Retry, Route, Routed, Step, StepResult


class Do(Step):
    """Does what the payload says under `do`: a callable that gets the message; else passes it on."""

    type = "do"

    def process(self, msg: Message) -> StepResult:
        call = msg.payload.get("do") if isinstance(msg.payload, dict) else None
        return call(msg) if call is not None else msg


class Fan(Step):
    """A part for each element of the payload, if that is a list. Lists go on, numbers by routes: 0 goes on, 1 to `one`, 2 through
    `one` and back, 3 to `next`, 4 is dropped, 5 is dead, 6 fails the whole."""

    type = "fan"

    class Options(NodeOptions):
        one: Annotated[Route, Meta(description="Where 1 and 2 go")]

    def process(self, msg: Message) -> StepResult:
        if not isinstance(msg.payload, list):
            return msg
        parts: list[Message | Routed] = []
        for number in msg.payload:
            part = msg.with_payload(number)
            if number == 6:
                raise ValueError("six")
            ways: dict[int, Any] = {
                1: self.options.one.to,
                2: self.options.one.call,
                3: Route("next").to,
                4: Route("drop").to,
                5: Route("dead").to,
            }
            parts.append(ways[number](part) if isinstance(number, int) and number in ways else part)
        return parts


class Told(Action):
    """Delivers as a test tells it. Each attempt takes the next answer; without one it succeeds at once.

    An answer is an exception, a Result, a Drop, or a future to wait for.
    """

    def setup(self) -> None:
        self.answers: list[Any] = []
        self.attempts: list[Message] = []

    def _next(self, msg: Message) -> Any:
        self.attempts.append(msg)
        return self.answers.pop(0) if self.answers else None


class Scripted(Told):
    """Delivers in a worker of the engine."""

    type = "scripted"

    async def deliver(self, msg: Message) -> Result | Drop | None:
        return await answered(self._next(msg))


async def answered(answer: Any) -> Any:
    """What an answer comes to."""
    if isinstance(answer, asyncio.Future):
        answer = await answer
    if isinstance(answer, BaseException):
        raise answer
    return answer


class Inline(Told):
    """Delivers on the spot where it can: only for a future it is waited for."""

    type = "inline"
    inline: ClassVar[bool] = True

    def deliver(self, msg: Message) -> Awaitable[Any] | Any:
        answer = self._next(msg)
        if isinstance(answer, asyncio.Future):
            return answered(answer)
        if isinstance(answer, BaseException):
            raise answer
        return answer


SCRIPTED = (Do, Fan, Scripted, Inline)


def failure(word: str) -> BaseException:
    """An exception by its name in a generated test."""
    return {
        "retry": Retry("busy", after=0),
        "reject": Reject("no"),
        "network": ConnectionResetError("reset"),
        "fault": ValueError("fault"),
        "exit": SystemExit(3),
        "cancelled": asyncio.CancelledError(),
    }[word]
