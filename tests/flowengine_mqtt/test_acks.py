"""The acknowledgement ledger, against a model of a broker that keeps its session or loses it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowengine_mqtt.acks import AckLedger, Entry


class Wire:
    """Takes PUBACKs; what is scheduled runs when told."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[int]]] = []
        self.scheduled: list[Callable[[], None]] = []
        self.ledger = AckLedger(lambda generation, mids: self.sent.append((generation, mids)), self.scheduled.append)

    def turn(self) -> None:
        """One turn of the event loop."""
        due, self.scheduled[:] = self.scheduled[:], []
        for callback in due:
            callback()

    def receive(self, mid: int, payload: bytes = b"", *, generation: int = 1, dup: bool = False) -> Entry | None:
        return self.ledger.received(generation, mid, b"t", payload, dup)

    def take(self, mid: int, payload: bytes = b"", *, generation: int = 1) -> Entry:
        entry = self.receive(mid, payload, generation=generation)
        assert entry is not None
        return entry


def connected() -> Wire:
    wire = Wire()
    wire.ledger.connected(1, session_present=False)
    return wire


def test_pubacks_go_out_in_the_order_of_arrival_whatever_the_order_of_settling() -> None:
    wire = connected()
    first, second, third = wire.take(1), wire.take(2), wire.take(3)
    third.settle()
    second.settle()
    wire.turn()
    assert wire.sent == []
    first.settle()
    wire.turn()
    assert wire.sent == [(1, [1, 2, 3])]


def test_a_message_for_which_there_was_no_room_is_handed_on_when_it_comes_again() -> None:
    wire = Wire()
    wire.ledger.connected(1, session_present=False)
    first, refused = wire.receive(1), wire.receive(2)
    assert first is not None and refused is not None
    wire.ledger.refused(refused)
    wire.ledger.connected(2, session_present=True)
    assert wire.receive(1, generation=2, dup=True) is None
    again = wire.receive(2, generation=2, dup=True)
    assert again is not None
    first.settle()
    again.settle()
    wire.turn()
    assert wire.sent == [(2, [1, 2])]


def test_many_settled_in_one_turn_are_flushed_once() -> None:
    wire = connected()
    entries = [wire.take(mid) for mid in range(1, 101)]
    for entry in entries:
        entry.settle()
    assert len(wire.scheduled) == 1
    wire.turn()
    assert wire.sent == [(1, list(range(1, 101)))]


def test_flush_sends_at_once_what_is_settled() -> None:
    wire = connected()
    wire.take(1).settle()
    wire.ledger.flush()
    wire.turn()
    assert wire.sent == [(1, [1])]


def test_settling_twice_acknowledges_once() -> None:
    wire = connected()
    entry = wire.take(1)
    entry.settle()
    entry.settle()
    wire.turn()
    entry.settle()
    wire.turn()
    assert wire.sent == [(1, [1])]


def test_an_acknowledgement_does_not_reach_the_next_connection() -> None:
    wire = connected()
    old = wire.take(1, b"old")
    wire.ledger.connected(2, session_present=True)
    wire.take(1, b"new", generation=2)
    old.settle()
    wire.turn()
    assert wire.sent == []


def test_a_redelivery_joins_the_pending_first_copy_and_takes_its_new_place() -> None:
    wire = connected()
    old, other = wire.take(7, b"x"), wire.take(8, b"y")
    wire.ledger.connected(2, session_present=True)
    assert wire.receive(8, b"y", generation=2, dup=True) is None
    assert wire.receive(7, b"x", generation=2, dup=True) is None
    old.settle()
    wire.turn()
    assert wire.sent == []
    other.settle()
    wire.turn()
    assert wire.sent == [(2, [8, 7])]


def test_a_redelivery_of_what_was_settled_while_offline_is_acknowledged_and_not_handed_on() -> None:
    wire = connected()
    entry = wire.take(7, b"x")
    wire.ledger.disconnected()
    entry.settle()
    wire.turn()
    wire.ledger.connected(2, session_present=True)
    assert wire.receive(7, b"x", generation=2, dup=True) is None
    wire.turn()
    assert wire.sent == [(2, [7])]


def test_a_settled_acknowledgement_that_could_not_be_sent_any_more_is_sent_on_the_redelivery() -> None:
    wire = connected()
    wire.take(7, b"x").settle()
    wire.ledger.disconnected()
    wire.turn()
    assert wire.sent == []
    wire.ledger.connected(2, session_present=True)
    assert wire.receive(7, b"x", generation=2, dup=True) is None
    wire.turn()
    assert wire.sent == [(2, [7])]


def test_another_message_under_a_used_packet_id_is_handed_on() -> None:
    wire = connected()
    wire.take(7, b"x")
    wire.ledger.connected(2, session_present=True)
    assert wire.receive(7, b"other", generation=2, dup=True) is not None


def test_a_packet_id_that_was_used_again_is_forgotten() -> None:
    """The third message is new to us although it comes with DUP: its first copy was lost with the connection."""
    wire = connected()
    wire.take(7, b"x")
    wire.ledger.connected(2, session_present=True)
    wire.take(7, b"y", generation=2).settle()
    wire.turn()
    wire.ledger.connected(3, session_present=True)
    assert wire.receive(7, b"x", generation=3, dup=True) is not None


def test_a_message_without_dup_is_handed_on_even_if_it_is_equal() -> None:
    wire = connected()
    wire.take(7, b"x")
    wire.ledger.connected(2, session_present=True)
    assert wire.receive(7, b"x", generation=2) is not None


def test_nothing_joins_when_the_broker_lost_the_session() -> None:
    wire = connected()
    wire.take(7, b"x")
    wire.ledger.connected(2, session_present=False)
    assert wire.receive(7, b"x", generation=2, dup=True) is not None


def test_a_redelivery_joins_over_several_reconnects() -> None:
    wire = connected()
    entry = wire.take(7, b"x")
    wire.ledger.connected(2, session_present=True)
    wire.ledger.connected(3, session_present=True)
    assert wire.receive(7, b"x", generation=3, dup=True) is None
    wire.ledger.connected(4, session_present=True)
    assert wire.receive(7, b"x", generation=4, dup=True) is None
    entry.settle()
    wire.turn()
    assert wire.sent == [(4, [7])]


def test_a_copy_sent_again_on_the_same_connection_joins() -> None:
    wire = connected()
    entry = wire.take(7, b"x")
    assert wire.receive(7, b"x", dup=True) is None
    entry.settle()
    wire.turn()
    assert wire.sent == [(1, [7])]


def test_a_message_of_a_past_connection_is_not_taken() -> None:
    wire = connected()
    wire.ledger.connected(2, session_present=True)
    assert wire.receive(1, generation=1) is None
    assert len(wire.ledger) == 0


def test_statistics_count_what_is_unacknowledged_and_what_is_owed() -> None:
    wire = connected()
    wire.take(1)
    wire.take(2)
    assert wire.ledger.statistics() == {"unacknowledged": 2, "owed": 0}
    wire.ledger.disconnected()
    assert wire.ledger.statistics() == {"unacknowledged": 0, "owed": 2}
    assert len(wire.ledger) == 0


class Broker(RuleBasedStateMachine):
    """A broker with 5 messages in flight, which redelivers in order after a reconnect (MQTT 5 section 4.4)."""

    @initialize()
    def begin(self) -> None:
        self.wire = Wire()
        self.generation = 1
        self.wire.ledger.connected(1, session_present=False)
        self.online = True
        self.in_flight: dict[int, tuple[int, bytes]] = {}  # packet id to message number and payload, in order
        self.sent_order: list[int] = []  # packet ids sent on this connection and not acknowledged
        self.number = 0
        self.pending: dict[int, Entry] = {}  # message number to what the engine holds
        self.settled: set[int] = set()
        self.acknowledged: set[int] = set()
        self.handed_on: list[int] = []
        self.seen = 0

    def deliver(self, mid: int, dup: bool) -> None:
        number, payload = self.in_flight[mid]
        entry = self.wire.ledger.received(self.generation, mid, b"t", payload, dup)
        if mid not in self.sent_order:
            self.sent_order.append(mid)
        if entry is None:
            assert number in self.pending, "a message was swallowed that the engine does not hold"
        else:
            assert number not in self.pending, "a redelivery was handed on again"
            self.handed_on.append(number)
            self.pending[number] = entry
            self.settled.discard(number)

    @precondition(lambda self: self.online and len(self.in_flight) < 5)
    @rule(payload=st.sampled_from([b"a", b"b"]), mid=st.integers(1, 6))
    def publish(self, payload: bytes, mid: int) -> None:
        if mid in self.in_flight:
            return
        self.number += 1
        self.in_flight[mid] = (self.number, payload)
        self.deliver(mid, dup=False)

    @precondition(lambda self: self.online and len(self.in_flight) < 5)
    @rule(payload=st.sampled_from([b"a", b"b"]), mid=st.integers(1, 6))
    def publish_and_drop(self, payload: bytes, mid: int) -> None:
        """The message is lost with the connection; its first copy to arrive is a redelivery."""
        if mid not in self.in_flight:
            self.number += 1
            self.in_flight[mid] = (self.number, payload)
            self.drop()

    @precondition(lambda self: self.online and self.sent_order)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        self.deliver(data.draw(st.sampled_from(self.sent_order)), dup=True)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.pending)))
        self.settled.add(number)
        self.pending[number].settle()

    @rule()
    def turn(self) -> None:
        self.wire.turn()
        self.take_acknowledgements()

    @precondition(lambda self: self.online)
    @rule()
    def drop(self) -> None:
        self.wire.ledger.disconnected()
        self.online = False
        self.sent_order.clear()

    @precondition(lambda self: not self.online)
    @rule(session_present=st.booleans(), redeliver=st.integers(0, 5))
    def reconnect(self, session_present: bool, redeliver: int) -> None:
        self.generation += 1
        self.online = True
        if not session_present:
            self.in_flight.clear()
        self.wire.ledger.connected(self.generation, session_present)
        for mid in list(self.in_flight)[:redeliver]:
            self.deliver(mid, dup=True)
        if redeliver < len(self.in_flight):  # the connection broke before all were sent again
            self.drop()

    def take_acknowledgements(self) -> None:
        for generation, mids in self.wire.sent[self.seen :]:
            assert generation == self.generation and self.online
            for mid in mids:
                assert self.sent_order and mid == self.sent_order.pop(0), "out of order"
                number, _payload = self.in_flight.pop(mid)
                assert number in self.settled, "acknowledged but not settled"
                self.acknowledged.add(number)
        self.seen = len(self.wire.sent)

    @invariant()
    def nothing_settled_at_the_head_stays_unacknowledged(self) -> None:
        if self.online and self.sent_order and not self.wire.scheduled:
            number, _payload = self.in_flight[self.sent_order[0]]
            assert number not in self.settled

    def teardown(self) -> None:
        """All are settled at last, and acknowledged, over one more connection."""
        if not hasattr(self, "wire"):
            return
        if not self.online:
            self.reconnect(session_present=True, redeliver=5)
        for number in sorted(self.pending):
            self.settled.add(number)
            self.pending[number].settle()
        self.turn()
        assert not self.in_flight, "an acknowledgement was lost"


Broker.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAcknowledgementsAcrossReconnects = Broker.TestCase


def test_a_redelivery_costs_the_same_whatever_is_pending() -> None:
    """A broker that does not mind our window may redeliver tens of thousands at once."""

    def calls(pending: int) -> int:
        wire = connected()
        for mid in range(1, pending + 1):
            wire.take(mid)
        made = 0

        def count(*_event: object) -> None:
            nonlocal made
            made += 1

        sys.setprofile(count)
        try:
            assert wire.receive(1, dup=True) is None
            assert wire.receive(pending + 1, dup=True) is not None
        finally:
            sys.setprofile(None)
        return made

    assert calls(10_000) == calls(10)
