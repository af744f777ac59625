"""Messages, their ids, and what becomes of an arrival."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from flowengine import Message, Outcome
from flowengine.message import new_id
from flowengine.testing import message


def test_nodes_get_a_new_message_and_the_old_one_stays() -> None:
    msg = message({"a": 1}, device="7")
    other = msg.with_payload(2).with_meta(door="b")
    assert (msg.payload, msg.meta) == ({"a": 1}, {"device": "7"})
    assert (other.payload, other.meta) == (2, {"device": "7", "door": "b"})
    assert (other.id, other.time, other.outcome) == (msg.id, msg.time, msg.outcome)
    with pytest.raises(AttributeError):
        msg.payload = 3  # type: ignore[misc]


def test_with_payload_keeps_everything_else() -> None:
    filled = Message(1, {"a": 1}, "id", 2.0, Outcome(), "0.1", None, None, True, ((object(), 1),))
    changed = filled.with_payload(2)
    names = [name for name in Message.__struct_fields__ if name != "payload"]
    assert [getattr(changed, name) for name in names] == [getattr(filled, name) for name in names]


def test_ids_are_uuids_of_version_7_that_sort_by_arrival_and_hold_the_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(10_000)]
    after = time.time_ns() // 1_000_000
    parsed = [uuid.UUID(text) for text in ids]
    assert {(each.version, each.variant) for each in parsed} == {(7, uuid.RFC_4122)}
    assert [str(each) for each in parsed] == ids
    assert len(set(ids)) == len(ids) and sorted(ids) == ids
    assert before <= parsed[0].int >> 80 <= parsed[-1].int >> 80 <= after


def test_ids_stay_in_order_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert new_id() > first


def settle(outcome: Outcome, word: str) -> None:
    setattr(outcome, word, getattr(outcome, word) + 1)
    outcome.close_part()


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        (["delivered"], "delivered"),
        (["dropped"], "dropped"),
        (["dead"], "dead"),
        (["delivered", "dropped"], "delivered"),
        (["dropped", "dead", "delivered"], "dead"),
    ],
)
def test_an_arrival_is_settled_with_its_last_part_and_is_the_worst_that_a_part_came_to(
    parts: list[str], state: str
) -> None:
    told: list[Outcome] = []
    outcome = Outcome(told.append)
    outcome.open = len(parts)
    for word in parts:
        assert outcome.state == "pending" and told == []
        settle(outcome, word)
    assert outcome.state == state and told == [outcome]


def test_what_is_withdrawn_says_so_until_it_is_settled() -> None:
    outcome = Outcome()
    outcome.withdraw()
    states: list[str] = [outcome.state]
    settle(outcome, "dropped")
    states.append(outcome.state)
    assert states == ["withdrawn", "dropped"]


async def test_an_outcome_may_be_awaited_before_and_after_it_is_settled() -> None:
    outcome = Outcome()
    waiting = [asyncio.ensure_future(_wait(outcome)) for _ in range(2)]
    await asyncio.sleep(0)
    settle(outcome, "delivered")
    assert list(await asyncio.gather(*waiting)) == [outcome, outcome]
    assert await outcome is outcome


async def test_one_who_waits_no_longer_does_not_end_the_waiting_of_others() -> None:
    outcome = Outcome()
    other = asyncio.ensure_future(_wait(outcome))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_wait(outcome), 0.01)
    again = asyncio.ensure_future(_wait(outcome))
    await asyncio.sleep(0)
    settle(outcome, "delivered")
    assert list(await asyncio.gather(other, again)) == [outcome, outcome]


async def test_who_waits_hears_it_also_when_the_callback_fails() -> None:
    def fails(_outcome: Outcome) -> None:
        raise ValueError("no")

    outcome = Outcome(fails)
    waiting = asyncio.ensure_future(_wait(outcome))
    await asyncio.sleep(0)
    with pytest.raises(ValueError):
        settle(outcome, "delivered")
    assert await waiting is outcome


async def _wait(outcome: Outcome) -> Outcome:
    return await outcome
