"""Whether the books of a demo agree."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec
import pytest

from flowengine_simulate.books import Books, EngineBooks
from flowengine_simulate.terminals import TerminalCounts

ENGINE = EngineBooks(carried=0, received=9, replayed=0, delivered=8, dropped=1, dead=0, pending=0)


def books(*, terminals: dict[str, int] | None = None, **changes: Any) -> Books:
    """Books that agree, but for `changes`."""
    counts = {
        "heartbeats": 5,
        "replies": 5,
        "record_messages": 1,
        "records": 2,
        "strangers": 1,
        "acknowledged": 7,
    }
    records = {("1", "08:00"), ("2", "08:01")}
    agreed: dict[str, Any] = {
        "terminals": TerminalCounts(**{**counts, "commands": 3, **(terminals or {})}),
        "sent": records,
        "arrived": Counter(records),
        "commands_posted": 3,
        "engine": ENGINE,
        "engine_exit": 0,
    }
    return Books(**{**agreed, **changes})


def test_books_that_agree_have_no_disagreement() -> None:
    assert books().disagreements() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arrived": Counter([("1", "08:00")])}, "records that were sent and did not arrive: 1"),
        ({"arrived": Counter({("1", "08:00"): 3, ("2", "08:01"): 1})}, "records that arrived again: 2"),
        ({"sent": {("1", "08:00")}}, "records that arrived and were never sent: 1"),
        ({"terminals": {"replies": 4}}, "heartbeats without a reply in time: 1"),
        ({"terminals": {"replies_unasked": 1}}, "replies too late or unasked: 1"),
        ({"terminals": {"replies_malformed": 1}}, "replies malformed: 1"),
        ({"terminals": {"acknowledged": 6}}, "messages that were not acknowledged: 1"),
        ({"commands_posted": 4}, "commands taken: 4, but received by terminals: 3"),
        ({"commands_refused": 1}, "commands that were not taken: 1"),
        ({"engine": None}, "the engine printed no books"),
        ({"engine": msgspec.structs.replace(ENGINE, received=10)}, "the engine's books do not balance"),
        ({"engine": msgspec.structs.replace(ENGINE, dropped=0, dead=1)}, "the engine has dead letters"),
        (
            {"engine": msgspec.structs.replace(ENGINE, dropped=0, pending=1)},
            "the engine ended with messages pending",
        ),
        ({"engine_exit": 1}, "the engine ended with status 1"),
    ],
)
def test_each_disagreement_is_named(changes: dict[str, Any], sentence: str) -> None:
    assert books(**changes).disagreements() == [sentence]


def test_a_run_in_which_nothing_was_sent_proves_nothing() -> None:
    nothing = Books(TerminalCounts(), engine=ENGINE, engine_exit=0)
    assert nothing.disagreements() == ["nothing was sent"]


def test_the_table_shows_all_sides() -> None:
    text = books().table()
    assert re.search(r"verified records +2 +2  at the backend", text)
    assert "9 received" in text
    assert "8 delivered + 1 dropped + 0 dead + 0 pending" in text
