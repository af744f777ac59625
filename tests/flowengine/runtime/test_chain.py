"""How a message goes through chains, and what becomes of it when a node does not do as it should."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from flowengine import Drop, Message, Outcome, Reject, Route
from flowengine.testing import RunningFlow, running
from tests.flowengine.runtime.nodes import SCRIPTED, Told

DO = """
flow: f
chains:
  main:
    - test-in
    - do
    - test-out
"""


@asynccontextmanager
async def flow_of(chains: str, state: Path | None = None) -> AsyncIterator[RunningFlow]:
    async with running("flow: f\nchains:\n" + chains, plugins=SCRIPTED, state=state) as flow:
        yield flow


def letters(state: Path) -> list[tuple[str, str]]:
    """Node and reason of the dead letters of a state folder."""
    with sqlite3.connect(state / "flowengine.db") as database:
        found = database.execute("SELECT node, reason FROM dead ORDER BY number").fetchall()
    database.close()
    return found


async def sent(flow: RunningFlow, payload: Any, **meta: Any) -> Outcome:
    async with asyncio.timeout(10):
        return await flow.send(payload, **meta)


class Own:
    """An object that is nothing the engine knows."""


def half_way(msg: Message) -> Any:
    yield msg
    raise Reject("half way")


NONSENSE: dict[str, tuple[Callable[[Message], Any], str]] = {
    "a text": (lambda _msg: "text", "str"),
    "an empty text": (lambda _msg: "", "str"),
    "an object": (lambda _msg: {"a": 1}, "dict"),
    "an empty object": (lambda _msg: {}, "dict"),
    "bytes": (lambda _msg: b"ab", "bytes"),
    "a number": (lambda _msg: 1, "int"),
    "an object of its own": (lambda _msg: Own(), "Own"),
    "a list of texts": (lambda msg: [msg, "text"], "str"),
    "a route for nothing": (lambda _msg: Route("drop").to(None), "NoneType"),  # type: ignore[arg-type]
    "a part routed for nothing": (lambda msg: [msg, Route("drop").to(None)], "NoneType"),  # type: ignore[arg-type]
    "another message": (lambda msg: Message(1, {}, "id", msg.time, Outcome()), "with_payload"),
    "another message routed": (lambda msg: Route("next").to(Message(1, {}, "id", msg.time, Outcome())), "with_payload"),
    "another message as a part": (lambda msg: [msg, Message(1, {}, "id", msg.time, Outcome())], "with_payload"),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_what_is_no_message_fails_the_message_and_names_the_node(name: str, tmp_path: Path) -> None:
    call, word = NONSENSE[name]
    async with running(DO, plugins=SCRIPTED, state=tmp_path) as flow:
        outcome = await sent(flow, {"do": call})
        assert outcome.state == "dead" and word in outcome.reason
        assert flow.sent == []
    [(node, reason)] = letters(tmp_path)
    assert node == "f/main/do" and word in reason


@pytest.mark.parametrize("made", [None, "a text", Message(1, {}, "id", 0.0, Outcome())], ids=type)
async def test_what_is_no_message_of_this_one_never_reaches_another_chain(made: Any, tmp_path: Path) -> None:
    chains = "  main: [test-in, do, test-out]\n  other: [test-out]\n  way: [test-in, {run: other}]\n"
    async with flow_of(chains, tmp_path) as flow:
        route = Route("other")
        route.target = flow.engine.flows[0].chains["other"]
        outcome = await sent(flow, {"do": lambda _msg: route.to(made)}, into="main")
        assert outcome.state == "dead" and flow.sent == [] and flow.balanced()
    [(node, _reason)] = letters(tmp_path)
    assert node == "f/main/do"


FAULTS: dict[str, Callable[[Message], Any]] = {
    "an exception": lambda _msg: 1 / 0,
    "a generator that fails half way": half_way,
    "sys.exit": lambda _msg: sys.exit(3),
    "a future that somebody cancelled": lambda _msg: (_ for _ in ()).throw(asyncio.CancelledError()),
    "an endless recursion": lambda msg: FAULTS["an endless recursion"](msg),
    "StopIteration": lambda _msg: next(iter(())),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_fails_its_message_alone(name: str) -> None:
    async with running(DO, plugins=SCRIPTED) as flow:
        failed = await sent(flow, {"do": FAULTS[name]})
        assert (failed.state, failed.dead, failed.delivered) == ("dead", 1, 0)
        assert (await sent(flow, {"ok": True})).state == "delivered"


async def test_an_exception_whose_text_cannot_be_made_fails_its_message_alone() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def mute(_msg: Message) -> None:
        raise Mute

    async with running(DO, plugins=SCRIPTED) as flow:
        assert (await sent(flow, {"do": mute})).reason == "Mute: ?"


async def test_a_payload_nested_too_deep_for_the_log_and_for_json_is_a_dead_letter(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    async with running(DO, plugins=SCRIPTED, state=tmp_path) as flow:
        outcome = await sent(flow, {"do": lambda _msg: 1 / 0, "deep": deep})
        assert outcome.state == "dead"
    assert letters(tmp_path) == [("f/main/do", "ZeroDivisionError: division by zero")]


async def test_a_step_that_gives_nothing_or_an_empty_list_drops_the_message_under_its_name() -> None:
    async with running(DO, plugins=SCRIPTED) as flow:
        gives: list[Callable[[Message], Any]] = [lambda _: None, lambda _: [], lambda _: (), lambda _: Drop("because")]
        for give in gives:
            assert (await sent(flow, {"do": give})).state == "dropped"
        assert flow.engine.books().reasons == {"do": 3, "because": 1}


async def test_parts_go_on_in_order_each_to_its_end_before_the_next() -> None:
    chains = """
  main:
    - test-in
    - split
    - split:
      name: again
    - test-out
"""
    async with flow_of(chains) as flow:
        outcome = await sent(flow, [["a", "b"], ["c"]])
        assert outcome.delivered == 3
        assert [(msg.payload, msg.part) for msg in flow.sent] == [("a", "0.0"), ("b", "0.1"), ("c", "1.0")]


async def test_routes_of_parts_are_followed_in_order_and_next_stays_in_the_chain() -> None:
    chains = """
  main:
    - test-in
    - fan: {one: [test-out]}
    - test-out
"""
    async with flow_of(chains) as flow:
        outcome = await sent(flow, [0, 1, 2, 3, 4, 5])
        assert (outcome.delivered, outcome.dropped, outcome.dead, outcome.state) == (4, 1, 1, "dead")
        assert sorted(msg.payload for msg in flow.sent) == [0, 1, 2, 2, 3]
        assert flow.engine.books().reasons == {"fan": 1, "f/main/fan": 1}


async def test_ten_thousand_parts_need_no_deep_stack() -> None:
    chains = """
  main:
    - test-in
    - split
    - copy-to: [inline]
    - inline
"""
    async with flow_of(chains) as flow:
        outcome = await sent(flow, list(range(10_000)))
        assert outcome.delivered == 20_000


async def test_a_chain_of_a_thousand_copies_needs_no_deep_stack() -> None:
    copies = "".join(f"    - copy-to: side\n      name: c{n}\n" for n in range(1000))
    chains = f"""
  main:
    - test-in
{copies}
    - inline
  side:
    - inline
"""
    async with flow_of(chains) as flow:
        assert (await sent(flow, 1)).delivered == 1001


async def test_a_run_within_runs_comes_back_to_each() -> None:
    runs = "".join(
        f"  r{n}:\n    - keep: {{fields: {{k{n}: payload}}}}\n"
        + (f"    - run: r{n + 1}\n" if n < 99 else "")
        + f"    - keep: {{fields: {{b{n}: payload}}}}\n      name: back\n"
        for n in range(100)
    )
    async with flow_of(
        f"  main:\n    - test-in\n    - run: r0\n    - test-out\n{runs}".replace(": payload", ": ''")
    ) as flow:
        outcome = await sent(flow, 1)
        assert outcome.state == "delivered"
        assert {f"b{n}" for n in range(100)} <= set(flow.sent[0].meta)
        assert flow.sent[0].frames == ()


async def test_each_part_of_a_split_inside_a_run_comes_back() -> None:
    chains = """
  main:
    - test-in
    - run: [split]
    - keep: {fields: {after: ""}}
    - test-out
"""
    async with flow_of(chains) as flow:
        assert (await sent(flow, ["a", "b"])).delivered == 2
        assert [(msg.payload, msg.meta["after"]) for msg in flow.sent] == [("a", "a"), ("b", "b")]


async def test_what_is_routed_away_inside_a_run_does_not_come_back() -> None:
    chains = """
  main:
    - test-in
    - run:
        - cmd-filter: {field: cmd, routes: {away: elsewhere}, otherwise: next}
    - inline
  elsewhere:
    - test-out
"""
    async with flow_of(chains) as flow:
        [after_run] = [lanes.action for lanes in flow.engine.flows[0].lanes if isinstance(lanes.action, Told)]
        assert (await sent(flow, {"cmd": "away"})).delivered == 1
        assert (len(flow.sent), len(after_run.attempts)) == (1, 0)
        assert (await sent(flow, {"cmd": "stay"})).delivered == 1
        assert (len(flow.sent), len(after_run.attempts)) == (1, 1)


async def test_when_passes_by_an_action_and_its_lane() -> None:
    chains = """
  main:
    - test-in
    - test-out
      when: payload.wanted == 1
    - inline
"""
    async with flow_of(chains.replace("- test-out\n", "- test-out:\n")) as flow:
        await sent(flow, {"wanted": 0})
        await sent(flow, {"wanted": 1})
        assert [msg.payload for msg in flow.sent] == [{"wanted": 1}]


ON_ERROR = """
  main:
    - test-in
    - do:
      on_error: {target}
    - test-out
  repair:
    - do: {{}}
    - test-out
"""


def fails(_msg: Message) -> None:
    raise Reject("no", status=7)


@pytest.mark.parametrize(
    ("target", "state", "payloads"),
    [("dead", "dead", 0), ("drop", "dropped", 0), ("next", "delivered", 1), ("[test-out]", "delivered", 1)],
)
async def test_on_error_decides_where_a_failed_message_goes(target: str, state: str, payloads: int) -> None:
    async with flow_of(ON_ERROR.format(target=target).partition("  repair")[0]) as flow:
        outcome = await sent(flow, {"do": fails})
        assert outcome.state == state
        assert [msg.error.reason for msg in flow.sent if msg.error] == ["no"] * payloads


async def test_on_error_gets_the_message_as_it_came_with_the_error() -> None:
    async with flow_of(ON_ERROR.format(target="[test-out]").partition("  repair")[0]) as flow:
        payload = {"do": fails}
        await sent(flow, payload)
        [msg] = flow.sent
        assert msg.payload is payload
        assert msg.error is not None
        assert (msg.error.node, msg.error.reason, msg.error.status, msg.error.attempts) == ("f/main/do", "no", 7, 0)


async def test_a_failure_in_the_chain_of_on_error_is_that_nodes_own(tmp_path: Path) -> None:
    async with flow_of(ON_ERROR.format(target="repair"), tmp_path) as flow:
        assert (await sent(flow, {"do": fails})).dead == 1
    assert letters(tmp_path) == [("f/repair/do", "no")]


async def test_an_error_of_before_is_not_the_reason_of_what_is_routed_to_the_dead_letters(tmp_path: Path) -> None:
    chains = """
  main:
    - test-in
    - do:
      on_error: next
    - cmd-filter: {field: cmd, routes: {go: next}, otherwise: dead}
    - test-out
"""
    async with flow_of(chains, tmp_path) as flow:
        assert (await sent(flow, {"do": fails})).dead == 1
    [(node, reason)] = letters(tmp_path)
    assert node == "f/main/cmd-filter" and reason != "no"


async def test_a_route_that_a_node_made_up_is_a_dead_letter_that_says_so(tmp_path: Path) -> None:
    async with running(DO, plugins=SCRIPTED, state=tmp_path) as flow:
        outcome = await sent(flow, {"do": lambda msg: Route("nowhere").to(msg)})
        assert outcome.state == "dead" and "nowhere" in outcome.reason


async def test_a_message_that_no_action_had_is_dropped() -> None:
    async with flow_of("  main:\n    - test-in\n    - inline:\n      when: payload == 1\n") as flow:
        assert (await sent(flow, 2)).state == "dropped"
        assert flow.engine.books().reasons == {"no action had it": 1}
        assert (await sent(flow, 1)).state == "delivered"


async def test_a_failing_node_says_one_line_a_second_and_counts_the_rest() -> None:
    async with running(DO, plugins=SCRIPTED) as flow:
        with capture_logs() as logs:
            for _ in range(50):
                await sent(flow, {"do": fails})
        said = [line for line in logs if line["event"] == "a message failed"]
        assert 1 <= len(said) < 50


async def test_a_source_whose_callback_fails_does_not_unbalance_the_books() -> None:
    async with running(DO, plugins=SCRIPTED) as flow:
        source = next(iter(flow._ins.values()))
        assert source.emit is not None
        outcome = source.emit({}, {}, lambda _outcome: sys.exit(1))
        assert (await outcome).state == "delivered"
        assert flow.balanced()


async def test_a_message_may_come_only_from_the_event_loop() -> None:
    async with running(DO, plugins=SCRIPTED) as flow:
        with pytest.raises(RuntimeError, match="event loop"):
            await asyncio.to_thread(flow.send, 1)
        assert flow.balanced()
