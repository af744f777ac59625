"""Results on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results import Ceiling, Results, Writer, read
from tests.benchmarks.batches import MACHINE, batch


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "new" / "a.jsonl")
    writer.add(MACHINE)
    writer.add(batch("limit", 100))
    ceiling = Ceiling("sink", "records-1.5k", 60_000, {"sink": 15})
    writer.add(ceiling)
    assert read([tmp_path / "new" / "a.jsonl"]) == Results([MACHINE], [batch("limit", 100)], [ceiling])


def test_a_line_that_was_cut_short_by_an_interruption_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Writer(path).add(batch("limit", 100))
    Writer(path).add(batch("limit", 200, round=2))
    path.write_bytes(path.read_bytes()[:-10])
    assert read([path]).batches == [batch("limit", 100)]


def test_rounds_of_several_runs_are_not_mixed_up(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        Writer(path).add(batch("limit", 100))
        Writer(path).add(batch("limit", 100, round=2))
    assert [found.round for found in read(paths).batches] == [1, 2, 3, 4]


def test_a_damaged_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match="JSON"):
        read([tmp_path / "a.jsonl"])
