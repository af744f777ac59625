"""How records and counts are shown."""

from __future__ import annotations

import pytest

from flowengine_simulate.backend import Taken
from flowengine_simulate.display import shorten, table, width
from flowengine_simulate.payloads import face
from flowengine_simulate.summary import image_text, record_line

RECORD = {
    "user_id": "42",
    "name": "王伟",
    "verifiedCode": 0,
    "bot_time": "2024-11-30 08:15:30",
    "personType": "1",
}


def test_a_record_is_one_line_without_its_image() -> None:
    line = record_line(Taken({**RECORD, "img": face("medium")}, "key", False, 200))
    assert line == "2024-11-30 08:15:30  42  王伟  verifiedCode 0  personType 1  JPEG 20 KB"


def test_failed_and_repeated_records_say_so() -> None:
    assert record_line(Taken(RECORD, "key", True, 503)).endswith("no image  answered 503  a repeat")


def test_a_record_cannot_control_the_terminal_or_break_the_line() -> None:
    line = record_line(Taken({**RECORD, "name": "\x1b[2J\r\n" + "x" * 1000}, None, False, 200))
    assert line.isprintable()
    assert len(line) < 200


def test_what_is_no_record_of_a_face_is_shown_as_it_came() -> None:
    assert record_line(Taken({"plate": "京A12345"}, "key", False, 200)) == '{"plate": "京A12345"}'


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (None, "no image"),
        ("", "no image"),
        ("***", "no image in base64"),
        (17, "no image in base64"),
        ("aGVsbG8=", "no JPEG, 5 B"),
        (face("small"), "JPEG 3 KB"),
    ],
)
def test_an_image_is_shown_by_kind_and_size(image: object, text: str) -> None:
    assert image_text(image) == text


def test_a_table_is_aligned_also_with_chinese_labels() -> None:
    lines = table([("心跳", 7), ("records", 1234)]).splitlines()
    assert lines == ["心跳        7", "records  1234"]
    assert len({width(line) for line in lines}) == 1


@pytest.mark.parametrize("columns", [1, 2, 3, 9, 10])
def test_a_shortened_text_fits(columns: int) -> None:
    assert width(shorten("识别记录 records", columns)) <= columns
    assert shorten("short", 5) == "short"
