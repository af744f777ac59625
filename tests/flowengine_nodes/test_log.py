from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Message, Result
from flowengine.testing import FlowError, deliver, make, message
from flowengine_nodes.log import Log

IMAGE = "/9j/4AAQSkZJRg" * 20_000


def line(options: str, msg: Message) -> dict[str, Any]:
    """The one line that the node writes, as structlog has it."""
    with structlog.testing.capture_logs() as lines:
        assert asyncio.run(deliver(make(Log, options), msg)) is None
    (written,) = lines
    return dict(written)


def text(options: str, payload: Any, **meta: Any) -> str:
    return str(line(options, message(payload, **meta))["event"])


def test_the_text_stands_in_the_line_with_its_values() -> None:
    assert (
        text('"to {device}: {payload}"', {"cmd": "openDoor", "n": 1}, device="d1") == 'to d1: {"cmd":"openDoor","n":1}'
    )


def test_without_a_text_the_payload_is_written() -> None:
    assert text("", "hello") == "hello"
    assert text("", [1, None]) == "[1,null]"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_line_has_its_level_and_names_its_node(level: str) -> None:
    written = line(f"{{text: hello, level: {level}}}", message())
    assert (written["log_level"], written["node"]) == (level, "test/test/test")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(FlowError, match="did you mean 'warning'"):
        make(Log, "{level: warn}")


@pytest.mark.parametrize(
    "payload", [IMAGE, IMAGE.encode(), {"img": IMAGE}, {"data": [{"liveImageBase64": IMAGE}] * 30}]
)
def test_an_image_is_never_written_wherever_it_is(payload: Any) -> None:
    written = text('"from {device}: {payload}!"', payload, device="d1")
    assert IMAGE[:200] not in written
    assert "sha1" in written and "280 KB" in written
    assert len(written) < 1000
    assert written.startswith("from d1: ")


def test_what_stands_around_an_image_is_still_read() -> None:
    assert text("", {"name": "张三", "img": IMAGE, "num": 7}).endswith('","num":7}')


def test_a_long_line_is_cut_and_says_how_long_it_was() -> None:
    written = text("", {f"key{i}": "x" * 100 for i in range(40)})
    assert len(written) < 1000
    assert written.endswith(" characters)")


def test_a_reference_that_leads_nowhere_is_a_dash() -> None:
    msg = message({"a": None})
    assert line('"{payload.a} {payload.b} {device} {result.status} {error.reason}"', msg)["event"] == "null - - - -"


def test_an_empty_text_is_a_dash() -> None:
    assert text("", "") == "-"


def test_a_device_cannot_forge_a_line_or_command_a_terminal() -> None:
    written = text('"{device}: {payload}"', "a\r\n2026-01-01 [error] b\x1b[2Jc\x9bd\u2028e\u202ef\ud800", device="d\n1")
    assert written == "d\\n1: a\\r\\n2026-01-01 [error] b\\x1b[2Jc\\x9bd\\u2028e\\u202ef\\ud800"


def test_bytes_are_shown_as_text_and_what_is_none_as_a_mark() -> None:
    assert text("", b"caf\xc3\xa9 \xff\x00") == "café \ufffd\\x00"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v) | st.dictionaries(st.binary(), v) | st.tuples(v),
    )
    | st.just({1, 2})
    | st.builds(object)
)
def test_no_payload_fails_here_and_each_gives_one_printable_line(payload: Any) -> None:
    written = text("", payload)
    assert written and "\n" not in written
    written.encode()


def test_a_payload_nested_without_end_does_not_fail() -> None:
    payload: list[Any] = []
    payload.append(payload)
    assert text('"x {payload}"', payload).startswith("x [[[")


def test_the_result_of_the_action_before_may_be_written() -> None:
    msg = message()
    answered = Message(None, {}, msg.id, msg.time, msg.outcome, result=Result(status=201, body={"ok": True}))
    assert line('"{result.status} {result.body.ok}"', answered)["event"] == "201 true"


def test_it_confirms_nothing_and_runs_in_the_loop() -> None:
    node = make(Log)
    assert not node.confirming and node.inline
