"""Lines broken by columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowengine.cli.columns import HelpFormatter, width, wrapped


def test_a_chinese_character_takes_two_columns() -> None:
    assert width("流程 run") == 8


def test_chinese_breaks_between_characters_and_never_before_punctuation() -> None:
    assert wrapped("消息进来，消息出去。", 8) == "消息进\n来，消息\n出去。"


def test_words_stay_whole_within_chinese() -> None:
    assert wrapped("停止 flowengine 之后", 12) == "停止\nflowengine\n之后"


@given(st.text(alphabet="ab 中文，（。"), st.integers(10, 40))
def test_wrapping_loses_nothing_but_blanks(text: str, columns: int) -> None:
    assert "".join(wrapped(text, columns, "  ").split()) == "".join(text.split())


@given(st.text(alphabet="中文字 "), st.integers(10, 40))
def test_no_line_passes_the_edge(text: str, columns: int) -> None:
    assert all(width(line) <= columns for line in wrapped(text, columns, "  ").split("\n"))


def test_what_is_said_of_options_stands_in_one_column() -> None:
    page = HelpFormatter(width=30)
    page.write_dl(
        [("--状态", "目录，存放重启后仍需保留的数据"), ("--a", "短"), ("--name-that-is-too-long-for-it", "低")],
        col_max=10,
    )
    assert page.getvalue() == (
        "--状态      目录，存放重启后仍\n"
        "            需保留的数据\n"
        "--a         短\n"
        "--name-that-is-too-long-for-it\n"
        "            低\n"
    )
