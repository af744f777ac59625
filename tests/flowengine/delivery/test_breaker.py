"""The breaker: when an action fails for everybody, one probe at a time, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flowengine import Action, Message, Retry
from flowengine.delivery import retry
from flowengine.delivery.breaker import FAILURES
from flowengine.testing import running

FLOW = "flow: f\nchains:\n  main: [test-in, {far-end: {}}]\n"


class FarEnd(Action):
    """Fails as it is told to."""

    type = "far-end"
    confirming = True

    def setup(self) -> None:
        self.error: BaseException | None = None
        self.attempts: list[Any] = []

    async def deliver(self, msg: Message) -> None:
        self.attempts.append(msg.payload)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("stored", [False, True])
async def test_the_others_go_on_when_the_probe_ends_without_an_answer_of_the_far_end(
    stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SHORTEST_AFTER", 0.01)
    async with running(FLOW, plugins=[FarEnd], state=tmp_path if stored else None) as flow:
        [lanes] = flow.engine.flows[0].lanes
        far_end = lanes.action
        assert isinstance(far_end, FarEnd)
        far_end.error = Retry("busy", after=0)
        outcomes = [flow.send(device, device=device) for device in "abcdefgh"]
        await flow.until(lambda: lanes.turns.breaker.open)
        assert len(far_end.attempts) >= FAILURES
        far_end.error = ValueError("a fault of the node, which says nothing of the far end")
        dead = len(outcomes)
        await flow.until(lambda: flow.engine.books().dead == dead)
        assert not lanes.waiting()
        far_end.error = None
        assert (await asyncio.wait_for(flow.send("i", device="i"), 5)).state in ("delivered", "stored")
