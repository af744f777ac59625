"""What the script and the flow are both given, one by one, and where they may differ."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.differential.sides import DEVICE, Answer, Side, downlink, record, report, uplink

Differs = Mapping[str, tuple[str, Any]]
"""The facets of `Seen` that differ: the entry of docs/from-the-script.md that says why, and what is seen of the flow, as
`Seen.brief` tells it."""
NOWHERE: Differs = {}


@dataclass(frozen=True)
class Case:
    """One stimulus."""

    name: str
    do: Callable[[Side], Awaitable[Answer | None]]
    differs: Differs = field(default_factory=dict)


def mqtt(
    name: str, payload: bytes, *, topic: str = uplink(), qos: int = 1, times: int = 1, differs: Differs = NOWHERE
) -> Case:
    """A message to the broker."""

    async def do(side: Side) -> None:
        for _ in range(times):
            await side.tap.publish(topic, payload, qos=qos)

    return Case(name, do, differs)


def http(
    name: str,
    body: bytes,
    *,
    path: str = "/",
    kind: str = "application/json",
    method: str = "POST",
    differs: Differs = NOWHERE,
) -> Case:
    """A request to the program."""
    return Case(name, lambda side: side.post(body, path, kind, method), differs)


async def _retained(side: Side) -> None:
    await side.tap.publish(uplink(), report(record("1")), retain=True)
    await side.tap.publish(uplink(), b"", retain=True)  # deletes it (MQTT 5 section 3.3.1.3)


def _taken(entry: str, payload: bytes) -> Differs:
    """The flow takes a command that the script refuses."""
    return {"answer": (entry, 200), "published": (entry, [payload])}


def _refused(entry: str, status: int) -> Differs:
    """The flow refuses a command that the script takes."""
    return {"answer": (entry, status), "published": (entry, [])}


def _posts(entry: str, *users: str) -> Differs:
    """The flow posts the records of these users, and the script others."""
    return {"posts": (entry, [*users])}


def _sends(entry: str, payload: bytes) -> Differs:
    """The flow publishes this, and the script something else."""
    return {"published": (entry, [payload])}


def _less(*names: str) -> dict[str, Any]:
    return {name: value for name, value in record("1").items() if name not in names}


def _verified(data: Any) -> bytes:
    return json.dumps({"cmd": "verifiedRecordU", "data": data}).encode()


FALLS: Differs = {"alive": ("D-01", True)}
_TAIL = b', "num": "1", "name": "x", "liveImageBase64": "", "verifiedCode": 0, "time": "t", "personType": "1"}]}'
_HEAD = b'{"cmd": "verifiedRecordU", "data": [{"extra": '

CASES = [
    # What terminals send every day
    mqtt("a heartbeat", b'{"cmd": "heartU"}'),
    mqtt("a heartbeat with more in it", b'{"cmd": "heartU", "deviceNo": "1", "data": [1]}'),
    mqtt("three heartbeats", b'{"cmd": "heartU"}', times=3),
    mqtt("a stranger", b'{"cmd": "strangerRecordU", "data": [{"time": "2024-11-30 08:15:30"}]}'),
    mqtt("a verified record", report(record("1"))),
    mqtt("a record of a visitor who did not pass", report(record("1", personType="2", verifiedCode=4))),
    mqtt("a record at QoS 0", report(record("1")), qos=0),
    mqtt("a record at QoS 2", report(record("1")), qos=2),
    mqtt("a heartbeat at QoS 0", b'{"cmd": "heartU"}', qos=0),
    mqtt("a record with an image of 300 KB", report(record("1", liveImageBase64="/9j/4AAQ" * 38_400))),
    mqtt("a record with more fields", report(record("1", temperature=36.6, mask=False, extra={"a": [1]}))),
    mqtt(
        "a record in UTF-8", json.dumps({"cmd": "verifiedRecordU", "data": [record("1")]}, ensure_ascii=False).encode()
    ),
    mqtt("a record with blanks and lines", json.dumps(json.loads(report(record("1"))), indent=2).encode() + b"\r\n"),
    Case("a retained record", _retained),
    mqtt("two records in one message", report(record("1"), record("2")), differs=_posts("D-02", "1", "2")),
    mqtt("a good record and a bad one", report(record("1"), {})),
    mqtt("a bad record and a good one", report({}, record("1")), differs={**FALLS, **_posts("D-02", "1")}),
    # Odd, but what is needed is there
    mqtt("a number as a number", report(record("1", num=17))),
    mqtt("a number of 30 digits", report(record("1", num=10**29 + 7))),
    mqtt("codes as texts and numbers", report(record("1", verifiedCode="0", personType=1))),
    mqtt("fields that are null", report(record("1", name=None, liveImageBase64=None, time=None))),
    mqtt("fields that are lists and objects", report(record("1", name=["a", {"b": None}], time={"at": 1}))),
    mqtt("texts that are empty", report(record("", name="", liveImageBase64="", time=""))),
    mqtt("a text with quotes, lines, NUL and an emoji", report(record("1", name='"\n\0\U0001f600\\'))),
    mqtt("fractions", report(record("1", verifiedCode=0.1, time=-1.5e-7))),
    mqtt("a key twice", b'{"cmd": "strangerRecordU", "cmd": "heartU"}'),
    mqtt("nesting of 200 levels beside the record", _HEAD + b"[" * 200 + b"]" * 200 + _TAIL),
    mqtt("a byte order mark", b"\xef\xbb\xbf" + report(record("1")), differs=_posts("D-03", "1")),
    mqtt("NaN beside the record", _HEAD + b"NaN" + _TAIL, differs=_posts("D-04")),
    mqtt("Infinity beside the record", _HEAD + b"-Infinity" + _TAIL, differs=_posts("D-04")),
    mqtt("a number that no double holds beside the record", _HEAD + b"1e400" + _TAIL, differs=_posts("D-04")),
    mqtt("NaN in the record", report(record("1", verifiedCode=float("nan")))),
    mqtt("half a character", report(record("1", name="\ud83d")), differs=_posts("D-05")),
    # Nothing to do
    mqtt("a command that nobody knows", b'{"cmd": "doorbellU"}'),
    mqtt("a known command with a blank", b'{"cmd": "heartU "}'),
    mqtt("a reply's command from a terminal", b'{"cmd": "heartD"}'),
    mqtt("a command that is a number", b'{"cmd": 1}'),
    mqtt("a command that is null", b'{"cmd": null}'),
    mqtt("a command that is a list", b'{"cmd": ["heartU"]}'),
    mqtt("not JSON", b"hello"),
    mqtt("JSON that ends too early", report(record("1"))[:-3]),
    mqtt("JSON with something behind it", b'{"cmd": "heartU"} {}'),
    mqtt("single quotes", b"{'cmd': 'heartU'}"),
    mqtt("an empty payload", b""),
    mqtt("blanks", b" \r\n"),
    mqtt("a control character in a text", b'{"cmd": "heartU\x01"}'),
    mqtt("UTF-16 without a byte order mark", '{"cmd": "heartU"}'.encode("utf-16-le")),
    # What the script does not survive
    mqtt("a list", b'[{"cmd": "heartU"}]', differs=FALLS),
    mqtt("a number", b"5", differs=FALLS),
    mqtt("a text", b'"heartU"', differs=FALLS),
    mqtt("null", b"null", differs=FALLS),
    mqtt("true", b"true", differs=FALLS),
    mqtt("no command", b'{"data": []}', differs=FALLS),
    mqtt("no data", b'{"cmd": "verifiedRecordU"}', differs=FALLS),
    mqtt("empty data", _verified([]), differs=FALLS),
    mqtt("data that is null", _verified(None), differs=FALLS),
    mqtt("data that is an object", _verified(record("1")), differs=FALLS),
    mqtt("data that is a text", _verified("1"), differs=FALLS),
    mqtt("data with null in it", _verified([None]), differs=FALLS),
    mqtt("a record without a name", _verified([_less("name")]), differs=FALLS),
    mqtt("a record without an image", _verified([_less("liveImageBase64")]), differs=FALLS),
    mqtt("not UTF-8", '{"cmd": "heartU", "name": "王"}'.encode("gbk"), differs=FALLS),
    mqtt("nesting without end", b"[" * 100_000, differs=FALLS),
    mqtt("a number of 5000 digits", b'{"cmd": "heartU", "n": ' + b"7" * 5000 + b"}", differs=FALLS),
    # Somebody else writes to the terminal
    mqtt("another's command to the terminal", b'{"cmd": "openDoorD"}', topic=downlink()),
    mqtt("another's text to the terminal", b"restart", topic=downlink()),
    mqtt("another's list to the terminal", b"[1]", topic=downlink(), differs=FALLS),
    mqtt("another's object without cmd to the terminal", b'{"open": 1}', topic=downlink(), differs=FALLS),
    mqtt("another's bytes to the terminal", b"\xff\x00", topic=downlink(), differs=FALLS),
    # Commands over HTTP
    http("a text", b'"restart"'),
    http("a text that is JSON", json.dumps('{"cmd": "openDoorD", "id": 1}').encode()),
    http("a Chinese text", '"开门"'.encode()),
    http("a Chinese text, escaped", json.dumps("开门").encode()),
    http("an empty text", b'""'),
    http("a text of 300 KB", json.dumps("x" * 300_000).encode()),
    http("a byte order mark before a text", b'\xef\xbb\xbf"restart"'),
    http("a text that is JSON without cmd", json.dumps("{}").encode(), differs=FALLS),
    http("a number", b"42", differs=FALLS),
    http("a fraction", b"-1.5", differs=FALLS),
    http("a number of thousands", b"1e3", differs=FALLS),
    http("a large number", b"1e22", differs={**FALLS, **_sends("D-08", b"1e22")}),
    http("a small number", b"0.00001", differs={**FALLS, **_sends("D-08", b"0.00001")}),
    http("an object", b'{"cmd": "openDoorD", "id": 1}', differs=_taken("D-06", b'{"cmd":"openDoorD","id":1}')),
    http("a nested object", '{"a": [{"b": "门"}]}'.encode(), differs=_taken("D-06", '{"a":[{"b":"门"}]}'.encode())),
    http("a list", b'[1, "two", null]', differs=_taken("D-06", b'[1,"two",null]')),
    http("true", b"true", differs=_sends("D-07", b"true")),
    http("false", b"false", differs=_sends("D-07", b"false")),
    http("null", b"null", differs=_sends("D-07", b"null")),
    http("NaN", b"NaN", differs=_refused("D-09", 400)),
    http("a number that no double holds", b"1e400", differs=_refused("D-09", 400)),
    http("half a character", b'"\\ud83d"', differs={"answer": ("D-05", 400)}),
    http("JSON that does not say so", b'"restart"', kind="text/plain", differs=_taken("D-10", b"restart")),
    http("UTF-16", '"restart"'.encode("utf-16"), differs=_refused("D-11", 400)),
    http("not JSON", b"{cmd: 1}"),
    http("not UTF-8", b'"\xff"'),
    http("nothing", b""),
    http("two megabytes", json.dumps("x" * 2_000_000).encode(), differs=_refused("D-12", 413)),
    http("a GET", b"", method="GET"),
    http("a place that neither knows", b'"restart"', path="/commands"),
    http(
        "a terminal's own place", b'"restart"', path=f"/devices/{DEVICE}/commands", differs=_taken("D-13", b"restart")
    ),
]
