"""What `flowengine.testing` gives to the author of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowengine import Action, Annotated, Connection, Message, Meta, NodeOptions, Ref, Reject, Result, Retry, Step
from flowengine.testing import FlowError, deliver, make, message, process, running


class Plate(Step):
    """Reads a number plate."""

    type = "plate"

    class Options(NodeOptions):
        upper: Annotated[bool, Meta(description="In capitals")] = True

    def process(self, msg: Message) -> Message:
        return msg.with_payload(msg.payload.upper() if self.options.upper else msg.payload)


class Gate(Connection):
    """Something shared."""

    type = "gate"
    opened = 0

    async def open(self) -> None:
        self.opened += 1


class OpenGate(Action):
    """Opens the gate."""

    type = "open-gate"

    class Options(NodeOptions):
        connection: Annotated[Ref[Gate], Meta(description="The gate")]

    def deliver(self, msg: Message) -> Result:
        return Result(status=self.options.connection.target.opened)


FLOW = """
flow: parking
chains:
  cars:
    - test-in
    - plate
    - test-out
"""


def test_a_step_is_tested_in_two_lines() -> None:
    assert [made.payload for made in process(make(Plate), message("ab"))] == ["AB"]  # type: ignore[union-attr]
    assert [made.payload for made in process(make(Plate, "{upper: false}"), message("ab"))] == ["ab"]  # type: ignore[union-attr]


def test_make_raises_what_check_says() -> None:
    with pytest.raises(FlowError, match="uper"):
        make(Plate, "{uper: false}")


async def test_an_action_is_tested_whichever_way_it_delivers() -> None:
    gate = make(Gate)
    node = make(OpenGate, "{connection: main}", connections={"main": gate})
    assert await deliver(node, message()) == Result(status=0)


async def test_a_flow_runs_in_the_test_and_shows_what_it_sent() -> None:
    async with running(FLOW, plugins=[Plate]) as flow:
        outcome = await flow.send("ab1", device="7")
        assert outcome.state == "delivered"
        assert [(msg.payload, msg.meta) for msg in flow.sent] == [("AB1", {"device": "7"})]


async def test_deliveries_fail_as_told() -> None:
    async with running(FLOW, plugins=[Plate]) as flow:
        flow.fail_next(Retry("busy", after=0), Reject("no room"))
        outcome = await flow.send("ab1")
        assert (outcome.state, outcome.reason) == ("dead", "no room")
        assert (await flow.send("ab2")).state == "delivered"


async def test_connections_are_opened_and_the_state_folder_is_used(tmp_path: Path) -> None:
    text = """
flow: parking
connections: {main: {gate: {}}}
chains:
  cars:
    - test-in
    - open-gate: {connection: main}
    - test-out
"""
    async with running(text, plugins=[Gate, OpenGate], state=tmp_path / "state") as flow:
        await flow.send("ab1")
        assert flow.sent[0].result == Result(status=1)
    assert (tmp_path / "state" / "lock").exists()


async def test_where_several_chains_begin_the_test_says_which() -> None:
    text = """
flow: parking
chains:
  cars: [test-in, test-out]
  bikes: [test-in: {metadata: [plate]}, plate: {upper: false}, test-out]
"""
    async with running(text, plugins=[Plate]) as flow:
        await flow.send(1, into="bikes", plate="x")
        await flow.send(2, into="cars")
        assert [msg.payload for msg in flow.sent] == [1, 2]


async def test_what_check_finds_in_the_flow_is_raised() -> None:
    with pytest.raises(FlowError, match="plaet"):
        async with running(FLOW.replace("- plate", "- plaet"), plugins=[Plate]):
            pass
