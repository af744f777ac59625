from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Message, Reject
from flowengine.testing import make, message, process
from flowengine_nodes.json_parse import JsonParse

node = make(JsonParse)


def parse(payload: Any) -> Any:
    (made,) = process(node, message(payload))
    assert isinstance(made, Message)
    return made.payload


def reason(payload: Any) -> str:
    with pytest.raises(Reject) as caught:
        parse(payload)
    return caught.value.reason


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"cmd": "heartU"}', {"cmd": "heartU"}),
        ('{"name": "张三"}'.encode(), {"name": "张三"}),
        ('{"name": "张三"}', {"name": "张三"}),
        (b"[1, 2]", [1, 2]),
        (b" 12.5 ", 12.5),
        (b'"text"', "text"),
        (b"true", True),
        (b"null", None),
        (b'"\\ud83d\\ude00"', "😀"),
    ],
)
def test_any_json_is_read_from_bytes_and_from_text(payload: bytes | str, value: Any) -> None:
    assert parse(payload) == value


@pytest.mark.parametrize("payload", [{"cmd": "heartU"}, [1], 7, 1.5, True, None])
def test_what_is_decoded_already_passes_as_it_is(payload: Any) -> None:
    msg = message(payload, device="d1")
    assert process(node, msg) == [msg]


def test_id_time_and_metadata_stay() -> None:
    msg = message(b"{}", device="d1", topic="t")
    (made,) = process(node, msg)
    assert isinstance(made, Message)
    assert (made.id, made.time, made.meta, made.outcome) == (msg.id, msg.time, msg.meta, msg.outcome)
    assert msg.payload == b"{}"


@pytest.mark.parametrize("payload", [b"\xef\xbb\xbf[1]", "\ufeff[1]"])
def test_a_byte_order_mark_is_skipped(payload: bytes | str) -> None:
    assert parse(payload) == [1]


def test_positions_count_from_behind_a_byte_order_mark() -> None:
    assert "line 1, column 4, in '[1,]'" in reason(b"\xef\xbb\xbf[1,]")


@pytest.mark.parametrize("payload", [b"", b" \r\n", ""])
def test_an_empty_payload_is_called_empty(payload: bytes | str) -> None:
    assert reason(payload) == "the payload is not JSON: it is empty"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b'{"a": 1,\n "b": }', 'invalid character at line 2, column 7, in \'{"a": 1,\\n "b": }\''),
        ('{"名字": "张" 1}'.encode(), 'at line 1, column 12, in \'{"名字": "张" 1}\''),
        (b"{'a': 1}", "object keys must be strings at line 1, column 2"),
        (b'{"a": [1, 2', "it ends too early at line 1, column 12"),
        (b"NaN", "invalid character at line 1, column 1"),
        (b"0012", "invalid number at line 1, column 2"),
        (b"{} trailing", "trailing characters at line 1, column 4, in '{} trailing'"),
        (b'"a\tb"', "invalid character at line 1, column 3"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place_and_what_stands_there(payload: bytes, words: str) -> None:
    assert reason(payload).startswith("the payload is not JSON: ")
    assert words in reason(payload)


def test_bytes_that_are_not_utf8_are_refused_with_their_place() -> None:
    said = reason(b'{\n"name": "' + "张三".encode("gbk") + b'"}')
    assert said.startswith("the payload is not UTF-8: byte 0xd5 at line 2, column 10, in ")
    assert "\\xd5" in said


def test_half_a_surrogate_pair_is_refused() -> None:
    assert "the payload is not" in reason("\ud800")
    assert "surrogate" in reason(b'"\\ud800 and more"')


def test_an_image_in_a_broken_payload_does_not_reach_the_reason() -> None:
    assert len(reason(b'{"img": "' + b"/9j/4AAQ" * 40_000 + b'" 1}')) < 150


def test_deep_nesting_is_refused_and_two_hundred_levels_are_not_deep() -> None:
    assert parse(b"[" * 200 + b"]" * 200) == json.loads("[" * 200 + "]" * 200)
    assert reason(b"[" * 200_000) == "the payload is nested too deeply"
    assert reason(b'{"a":' * 200_000 + b"1" + b"}" * 200_000) == "the payload is nested too deeply"


def test_whole_numbers_keep_all_their_digits() -> None:
    assert parse(b"123456789012345678901234567890") == 123456789012345678901234567890


@pytest.mark.parametrize("payload", [b"1e999", b"9" * 5000])
def test_a_number_that_is_too_large_is_refused(payload: bytes) -> None:
    assert "out of range" in reason(payload)


def test_of_a_key_given_twice_the_last_counts() -> None:
    assert parse(b'{"a": 1, "a": 2}') == {"a": 2}


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_read_as_python_reads_them_or_refused_on_one_line(payload: bytes) -> None:
    try:
        value = parse(payload)
    except Reject as refused:
        assert len(refused.reason.splitlines()) == 1
    else:
        assert value == json.loads(payload.removeprefix(b"\xef\xbb\xbf").decode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_python_writes_as_json_is_read_back(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False, indent=1)) == value
