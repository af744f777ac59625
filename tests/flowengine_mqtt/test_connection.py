"""The connection `mqtt`: who gets a message, and when it is acknowledged."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.typing import EventDict

from flowengine import Busy, Outcome, Stopping
from flowengine.testing import FlowError, make
from flowengine_mqtt.connection import MqttConnection
from flowengine_mqtt.dispatch import Subscriber
from flowengine_mqtt.reader import DUP, QOS_1
from flowengine_mqtt.topics import TopicPattern
from tests.flowengine_mqtt.stand_in import connection


class Chain:
    """An `emit` that notes outcomes, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.outcomes: list[Outcome] = []
        self.pressed = 0

    def __call__(self, _payload: Any, _meta: Any, settled: Any = None, **_how: Any) -> Outcome:
        if self.error is not None:
            raise self.error
        self.outcomes.append(Outcome(settled))
        return self.outcomes[-1]

    def press(self) -> None:
        self.pressed += 1


def subscribe(gate: MqttConnection, chain: Any, pattern: str = "up/{device}") -> None:
    gate.subscribe(Subscriber(TopicPattern(pattern), [], 1, chain))


def test_a_message_of_two_chains_is_acknowledged_when_both_have_settled_it() -> None:
    gate, session = connection()
    one, two = Chain(), Chain()
    subscribe(gate, one)
    subscribe(gate, two, "up/+")
    gate._on_message(1, QOS_1, 5, b"up/7", b"x")
    one.outcomes[0].close_part()
    assert session.acknowledged == []
    two.outcomes[0].close_part()
    assert session.acknowledged == [5]


def test_what_comes_for_a_flow_that_was_left_out_stays_with_the_broker_and_is_in_nobodys_way() -> None:
    gate, session = connection()
    subscribe(gate, None, "lost/{device}")
    chain = Chain()
    subscribe(gate, chain)
    assert set(gate.filters()) == {"lost/+", "up/+"}
    gate._on_message(1, QOS_1, 5, b"lost/7", b"x")
    gate._on_message(1, QOS_1, 6, b"up/7", b"y")
    chain.outcomes[0].close_part()
    assert (session.acknowledged, gate.unmatched) == ([6], 0)
    gate._on_up(2, True)
    gate._on_message(2, QOS_1 | DUP, 5, b"lost/7", b"x")
    assert session.acknowledged == [6]


def test_when_half_of_the_window_waits_for_a_left_out_flow_its_filters_are_given_up(logs: list[EventDict]) -> None:
    gate, session = connection()
    session.window = 4
    subscribe(gate, None, "lost/{device}")
    subscribe(gate, Chain())
    gate._on_message(1, QOS_1, 1, b"lost/7", b"x")
    assert session.filters == {}
    gate._on_message(1, QOS_1, 2, b"lost/7", b"y")
    assert session.filters == {"up/+": 1}
    assert session.acknowledged == []
    assert [entry["log_level"] for entry in logs if "could not start" in entry["event"]] == ["error"]


def test_what_comes_for_a_flow_that_stopped_alone_does_not_hold_up_the_others() -> None:
    gate, session = connection()
    chain = Chain()
    subscribe(gate, Chain(Stopping("flow")), "stopped/+")
    subscribe(gate, chain)
    gate._on_message(1, QOS_1, 5, b"stopped/7", b"x")
    gate._on_message(1, QOS_1, 6, b"up/7", b"y")
    chain.outcomes[0].close_part()
    assert session.acknowledged == [6]


def test_a_message_that_matches_nothing_is_acknowledged_and_counted() -> None:
    gate, session = connection()
    subscribe(gate, Chain())
    gate._on_message(1, QOS_1, 5, b"down/7", b"x")
    assert (session.acknowledged, gate.unmatched) == ([5], 1)


def test_what_comes_while_the_flow_stops_stays_with_the_broker() -> None:
    gate, session = connection()
    subscribe(gate, Chain(Stopping("flow")))
    gate._on_message(1, QOS_1, 5, b"up/7", b"x")
    assert session.acknowledged == []


def test_without_room_the_connection_is_closed_and_comes_back_with_a_smaller_window() -> None:
    gate, session = connection()
    subscribe(gate, Chain(Busy("flow")))
    gate._on_message(1, QOS_1, 5, b"up/7", b"x")
    gate._on_message(1, QOS_1, 6, b"up/7", b"y")
    assert (session.acknowledged, session.came_back) == ([], [256])


def test_room_is_asked_for_when_three_quarters_of_the_window_are_used() -> None:
    gate, session = connection()
    session.window = 4
    gate._on_up(2, False)
    chain = Chain()
    subscribe(gate, chain)
    for mid in (1, 2):
        gate._on_message(2, QOS_1, mid, b"up/7", b"%d" % mid)
    assert chain.pressed == 0
    gate._on_message(2, QOS_1, 3, b"up/7", b"3")
    assert chain.pressed == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{url: 'mqtt://h', tls: {ca: ca.pem}}", "TLS needs a URL that begins with mqtts://"),
        ("{url: 'embedded:', username: a}", "the embedded broker knows no users"),
        ("http://h", "begins with mqtt:// or mqtts://"),
        ("embedded:0", "takes a port from 1 to 65535"),
    ],
)
def test_options_that_clash_are_said(options: str, said: str) -> None:
    with pytest.raises(FlowError, match=said):
        make(MqttConnection, options)


def test_two_connections_with_one_client_id_at_one_broker_make_the_same_claim() -> None:
    one, two = (make(MqttConnection, "{url: 'mqtt://h', client_id: gate}") for _ in range(2))
    assert [key for key, _words in one.claims()] == [key for key, _words in two.claims()]
    assert not list(make(MqttConnection, "mqtt://h").claims())
