"""Logs: lines that can be trusted, whatever is in them."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from flowengine import i18n, logs, shorten

LONG = "x" * 300_000


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def written(event: str, *, as_json: bool, level: str = "info", **values: Any) -> str:
    out = io.StringIO()
    logs.configure("info", json=as_json, stream=out)
    getattr(structlog.get_logger("x"), level)(event, **values)
    return out.getvalue()


CHILD = """
import structlog
from flowengine import logs
logs.configure()
structlog.get_logger("x").warning("ready", count=1)
"""


def child(stderr: int, **environment: str) -> None:
    subprocess.run([sys.executable, "-c", CHILD], stderr=stderr, env={**os.environ, **environment}, check=True)


def test_on_a_terminal_values_keep_their_order_and_lists_of_texts_read_as_lists() -> None:
    line = written("books", as_json=False, received=1, delivered=0, flows=["b", "a"])
    assert line.endswith("books received=1 delivered=0 flows='b, a'\n")


def test_a_pipe_gets_json() -> None:
    read, write = os.pipe()
    child(write, LANGUAGE="zh_CN")
    os.close(write)
    with os.fdopen(read) as pipe:
        line = json.loads(pipe.read())
    assert (line["event"], line["level"], line["count"]) == ("ready", "warning", 1)
    assert "T" in line["timestamp"]


def test_a_terminal_gets_text() -> None:
    ours, theirs = pty.openpty()
    child(theirs)
    os.close(theirs)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "ready" in text and "count" in text and not text.startswith("{")


def test_on_a_terminal_an_event_is_in_the_readers_language_and_in_json_it_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_", lambda text: {"ready": "就绪"}.get(text, text))
    assert "就绪" in written("ready", as_json=False)
    assert json.loads(written("ready", as_json=True))["event"] == "ready"


def test_the_chinese_catalogue_is_used_where_the_reader_is_chinese() -> None:
    code = "from flowengine.i18n import _; print(_('no flow could be started'))"
    environment = {**os.environ, "LANGUAGE": "zh_CN", "LANG": "zh_CN.UTF-8", "PYTHONIOENCODING": "utf-8"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    ).stdout.decode()
    if not any(Path(i18n.LOCALE_DIR).glob("zh*/LC_MESSAGES/*.mo")):
        pytest.skip("the catalogue is not compiled")
    assert said.strip() != "no flow could be started"


VALUES: dict[str, Any] = {
    "text": LONG,
    "bytes": b"\xff" * 300_000,
    "list": [LONG] * 1000,
    "object": {f"{n}{LONG}": LONG for n in range(1000)},
    "nested": {str(n): {str(m): [LONG] * 20 for m in range(50)} for n in range(50)},
    "set": {LONG},
    "exception": ValueError(LONG),
    "bytearray": bytearray(300_000),
    "number": 10**4000,
}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_no_line_prints_a_long_text(name: str, as_json: bool) -> None:
    text = written("it came", as_json=as_json, value=VALUES[name])
    assert len(text) < 30_000 and text.count("\n") == 1
    if isinstance(VALUES[name], str):
        assert "300 KB, sha1" in text and len(text) < 300


@pytest.mark.parametrize("as_json", [True, False])
def test_no_traceback_prints_a_long_text(as_json: bool) -> None:
    text = written("it failed", as_json=as_json, level="error", exc_info=ValueError(LONG + "\n" * 10_000))
    assert "ValueError" in text and len(text) < 30_000


FORGED = [
    "a\n2026-01-01 [info] forged",
    "a\r\nforged",
    "\x1b[2J\x1b[1;31mred",
    "\x85forged",
    "\u2028forged",
    "\x9b2J",
    "\x00",
]


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("text", FORGED)
def test_a_value_makes_no_line_and_controls_no_terminal(text: str, as_json: bool) -> None:
    for line in (
        written("it came", as_json=as_json, value=text),
        written(text, as_json=as_json),
        written("it came", as_json=as_json, value={text: [text]}),
    ):
        assert len(line.splitlines()) == 1 or as_json
        assert line.count("\n") == 1 and "\x1b" not in line and "\x00" not in line
        assert as_json or "\x9b" not in line


def test_a_traceback_makes_no_line_that_looks_like_one_of_ours() -> None:
    text = written("it failed", as_json=False, level="error", exc_info=ValueError("a\n12:00:00 [info] forged\x1b[2J"))
    first, *others = text.splitlines()
    assert "it failed" in first and all(line.startswith("  ") for line in others if line) and "\x1b" not in text


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


ODD: dict[str, Any] = {
    "an object without repr": Odd(),
    "as key and value": {Odd(): Odd()},
    "in a list": [Odd()],
    "a circle": CYCLE,
    "a key that is no text": {("a", 1): 1},
    "half a pair": "\ud800",
    "no number": float("nan"),
    "more digits than Python prints": 10**5000,
}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_nothing_that_is_logged_fails_whoever_logs(name: str, as_json: bool) -> None:
    assert "it came" in written("it came", as_json=as_json, value=ODD[name])


class Gone(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("as_json", [True, False])
def test_a_stream_that_is_gone_fails_nobody_who_logs(as_json: bool) -> None:
    logs.configure("info", json=as_json, stream=Gone())
    structlog.get_logger("x").error("it came")
    closed = io.StringIO()
    logs.configure("info", json=as_json, stream=closed)
    closed.close()
    structlog.get_logger("x").error("it came")


def test_what_libraries_log_and_warn_of_are_lines_like_ours() -> None:
    out = io.StringIO()
    logs.configure("info", json=True, stream=out)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("failed %s", "\nhere")
    logging.getLogger("aiohttp.server").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (first["logger"], first["event"], first["level"]) == ("aiohttp.server", "failed \nhere", "error")
    assert "ValueError: odd" in first["exception"]
    assert second["logger"] == "py.warnings" and "old" in second["event"]


def test_less_important_lines_are_left_out() -> None:
    out = io.StringIO()
    logs.configure("warning", json=True, stream=out)
    structlog.get_logger("x").info("chatter")
    structlog.get_logger("x").warning("look")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["look"]


def test_a_long_text_is_its_head_length_and_hash() -> None:
    assert shorten("ab") == "ab"
    assert shorten("x" * 250) == "x" * 40 + "… (250 B, sha1 " + shorten("x" * 250)[-9:]
    assert shorten(b"caf\xc3\xa9") == "café"
    assert shorten({"a": 1, "b": None, "c": True, "d": 1.5}) == {"a": 1, "b": None, "c": True, "d": 1.5}


def test_long_lists_and_objects_are_cut_and_say_how_long_they_were() -> None:
    assert shorten(list(range(100))) == [*range(20), "… (100)"]
    assert shorten({str(n): n for n in range(100)}) == {**{str(n): n for n in range(50)}, "…": 100}


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=150)
)


def _within(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5)


@given(st.recursive(SCALARS, _within, max_leaves=20))
def test_what_is_short_stays_as_it_is(value: Any) -> None:
    if _depth(value) <= 5:
        assert repr(shorten(value)) == repr(value)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
