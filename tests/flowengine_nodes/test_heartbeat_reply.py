from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flowengine import Message
from flowengine.testing import FlowError, make, message, process
from flowengine_nodes import heartbeat_reply
from flowengine_nodes.heartbeat_reply import HeartbeatReply

FORMAT = "%Y-%m-%d %H:%M:%S"


def answer(node: HeartbeatReply, payload: Any = None) -> dict[str, str]:
    (made,) = process(node, message(payload))
    assert isinstance(made, Message) and isinstance(made.payload, dict)
    return made.payload


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(heartbeat_reply, "now", lambda: seconds)


def test_the_answer_is_cmd_then_the_machines_time_as_the_script_sent_it() -> None:
    before = datetime.now().replace(microsecond=0)
    made = answer(make(HeartbeatReply), {"cmd": "heartU"})
    after = datetime.now()
    assert list(made) == ["cmd", "time"]
    assert made["cmd"] == "heartD"
    assert before <= datetime.strptime(made["time"], FORMAT) <= after


def test_cmd_and_format_are_options() -> None:
    made = answer(make(HeartbeatReply, "{cmd: 0042, time_format: '%Y年%m月%d日'}"))
    assert made["cmd"] == "0042"
    assert made["time"] == datetime.strptime(made["time"], "%Y年%m月%d日").strftime("%Y年%m月%d日")


@pytest.mark.parametrize(
    ("zone", "written"),
    [
        ("Asia/Shanghai", "2023-11-15 06:13:20"),
        ("UTC", "2023-11-14 22:13:20"),
        ("America/New_York", "2023-11-14 17:13:20"),
        ("Asia/Kathmandu", "2023-11-15 03:58:20"),
    ],
)
def test_a_time_zone_is_kept_whatever_the_machines_is(monkeypatch: pytest.MonkeyPatch, zone: str, written: str) -> None:
    at(monkeypatch, 1_700_000_000)
    assert answer(make(HeartbeatReply, f"{{timezone: {zone}}}"))["time"] == written


def test_summer_time_begins_and_ends_while_the_node_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    node = make(HeartbeatReply, "{timezone: Europe/Berlin, time_format: '%H:%M %z'}")
    change = datetime(2024, 3, 31, 1, tzinfo=ZoneInfo("UTC"))
    at(monkeypatch, (change - timedelta(minutes=1)).timestamp())
    assert answer(node)["time"] == "01:59 +0100"
    at(monkeypatch, change.timestamp())
    assert answer(node)["time"] == "03:00 +0200"


def test_the_time_moves_on_with_the_clock_and_back_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    node = make(HeartbeatReply, "{timezone: UTC}")
    for seconds, written in (
        (100.0, "00:01:40"),
        (100.999, "00:01:40"),
        (101.0, "00:01:41"),
        (99.9, "00:01:39"),
    ):
        at(monkeypatch, seconds)
        assert answer(node)["time"] == f"1970-01-01 {written}"


def test_a_format_with_parts_of_a_second_is_never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    node = make(HeartbeatReply, "{timezone: UTC, time_format: '%S.%f'}")
    for seconds, written in ((100.25, "40.250000"), (100.5, "40.500000")):
        at(monkeypatch, seconds)
        assert answer(node)["time"] == written


@pytest.mark.parametrize("payload", [None, b"\xff", [], {"cmd": "heartU"}, 7])
def test_every_payload_is_answered_and_its_device_stays_known(payload: Any) -> None:
    msg = message(payload, device="d1")
    (made,) = process(make(HeartbeatReply), msg)
    assert isinstance(made, Message)
    assert (made.meta, made.id, made.outcome) == (msg.meta, msg.id, msg.outcome)


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Asia/Shangai", "; did you mean 'Asia/Shanghai'?"),
        ("asia/shanghai", "; did you mean 'Asia/Shanghai'?"),
        ("Shanghai", "; did you mean 'Asia/Shanghai'?"),
        ("new york", "; did you mean 'America/New_York'?"),
        ("Asia/Beijing", ""),
        ("UTC+8", ""),
        ("../zone", ""),
        ("/etc/localtime", ""),
        ("Asia", ""),
        ("''", ""),
    ],
)
def test_an_unknown_time_zone_is_refused_at_its_place_with_a_near_name(zone: str, hint: str) -> None:
    with pytest.raises(FlowError) as caught:
        make(HeartbeatReply, f"{{timezone: {zone}}}")
    name = zone.strip("'")
    said = f"no time zone is called '{name}': write an IANA name such as Asia/Shanghai{hint}"
    assert str(caught.value).splitlines()[0] == f"test.yaml:1:12: heartbeat-reply: {said}"


@pytest.mark.parametrize(("time_format", "wrong"), [("%Y-%m-%d %H:%i:%S", "%i"), ("%-d", "%-"), ("at 100%", "%")])
def test_what_is_no_time_format_everywhere_is_refused(time_format: str, wrong: str) -> None:
    with pytest.raises(FlowError, match=f"'{wrong}' is no part of a time format"):
        make(HeartbeatReply, f"{{time_format: '{time_format}'}}")
