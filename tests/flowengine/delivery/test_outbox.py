"""Rows in the file, many to a statement."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowengine.delivery import tables
from flowengine.delivery.outbox import BYTES, Outbox, Row, delete, insert
from flowengine.delivery.store import Store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "flowengine.db"
    connection = tables.connect(path)
    tables.prepare(connection, path)
    yield connection
    connection.close()


def row(seq: int, message_id: str) -> Row:
    return Row(seq, "f/main/post", "7", message_id, "", 1.5, None, 0, None, b"payload", BYTES, None, None, b"{}", None)


def numbers(database: sqlite3.Connection) -> list[int]:
    return [seq for (seq,) in database.execute("SELECT seq FROM outbox ORDER BY seq")]


@pytest.mark.parametrize("count", [0, 1, 59, 60, 61, 150])
def test_all_rows_are_written_whatever_their_number(database: sqlite3.Connection, count: int) -> None:
    rows = [row(seq, f"id {seq}") for seq in range(1, count + 1)]
    assert insert(database, rows) == set()
    assert numbers(database) == list(range(1, count + 1))


def test_which_were_there_already_is_known_of_each(database: sqlite3.Connection) -> None:
    insert(database, [row(1, "old"), row(2, "older")])
    rows = [row(seq, f"id {seq}") for seq in range(3, 153)]
    for place, message_id in ((0, "old"), (59, "older"), (60, "id 3000"), (149, "id 3000")):
        rows[place].id = message_id
    assert insert(database, rows) == {3, 62, 152}
    assert numbers(database) == [seq for seq in range(1, 153) if seq not in {3, 62, 152}]


def test_rows_go_and_numbers_that_are_no_more_are_let_pass(database: sqlite3.Connection) -> None:
    insert(database, [row(seq, f"id {seq}") for seq in range(1, 201)])
    delete(database, [seq for seq in range(1, 401) if seq % 2])
    assert numbers(database) == list(range(2, 201, 2))


async def test_what_is_put_in_one_turn_of_the_loop_is_one_change_and_stands_before_its_removal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    told: list[list[bool]] = []
    outbox = Outbox(store, lambda _parcels, new: told.append(new))
    await outbox.open()
    for seq in (1, 2, 3):
        outbox.put([row(seq, f"id {seq}")], [Unended()])  # type: ignore[list-item]
    outbox.remove(2)
    outbox.flush()
    await asyncio.sleep(0)
    await store.close()
    assert told == [[True, True, True]]
    database = sqlite3.connect(tmp_path / "flowengine.db")
    assert numbers(database) == [1, 3]
    database.close()


class Unended:
    ended = False
