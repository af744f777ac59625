"""Dead letters and outbox as a person sees and changes them: queries on the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine.delivery import clearing, desk, tables
from flowengine.delivery.clearing import Left, Meant
from flowengine.delivery.desk import Chosen
from flowengine.delivery.outbox import BYTES, JSON, Row
from flowengine.message import Outcome

LETTER = (
    "INSERT INTO dead (flow, node, device, id, part, reason, attempts, arrived, died, payload, kind, meta, more)"
    " VALUES (?, ?, ?, ?, '', ?, 1, ?, ?, ?, ?, ?, ?)"
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = tables.connect(tmp_path / "flowengine.db")
    tables.prepare(connection, tmp_path / "flowengine.db")
    yield connection
    connection.close()


def letter(
    database: sqlite3.Connection,
    node: str = "f/main/post",
    device: str = "7",
    reason: str = "no",
    died: float = 100.0,
    payload: bytes = b"{}",
    kind: int = JSON,
    meta: bytes = b'{"device":"7"}',
    more: bytes | None = None,
) -> int:
    flow = node.split("/")[0]
    values = (flow, node, device, f"id-{died}", reason, died - 1, died, payload, kind, meta, more)
    return database.execute(LETTER, values).lastrowid or 0


def put(database: sqlite3.Connection, seq: int, action: str = "f/main/a", lane: str = "7", **more: Any) -> Row:
    given = {"id": f"id-{seq}", "part": "", "arrived": float(seq), "payload": b"{}", **more}
    row = Row(
        seq, action, lane, given["id"], given["part"], given["arrived"], None, 2, "busy", given["payload"], JSON,
        b"made for a", BYTES, b'{"device":"7"}', None,
    )  # fmt: skip
    row.checksum = row.sum()
    marks = ", ".join("?" * len(Row.__struct_fields__))
    database.execute(f"INSERT INTO outbox VALUES ({marks})", msgspec.structs.astuple(row))
    return row


def rows(database: sqlite3.Connection) -> list[Row]:
    columns = ", ".join(Row.__struct_fields__)
    return [Row(*values) for values in database.execute(f"SELECT {columns} FROM outbox ORDER BY seq")]


def numbers(database: sqlite3.Connection, chosen: Chosen) -> list[int]:
    return [found.number for found in desk.letters(database, chosen, 100)][::-1]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Chosen(), [1, 2, 3]),
        (Chosen(numbers=[1, 3, 9]), [1, 3]),
        (Chosen(flow="f"), [1, 2]),
        (Chosen(node="g/main/post"), [3]),
        (Chosen(node="post"), [1, 3]),
        (Chosen(node="ost"), []),
        (Chosen(device="8"), [2]),
        (Chosen(reason="ANSWERED 422"), [2]),
        (Chosen(reason="%"), []),
        (Chosen(since=200.0), [2, 3]),
        (Chosen(until=200.0), [1, 2]),
        (Chosen(upto=2, flow="f", since=150.0), [2]),
    ],
)
def test_a_letter_is_chosen_if_all_that_is_asked_for_holds(
    database: sqlite3.Connection, chosen: Chosen, expected: list[int]
) -> None:
    letter(database, "f/main/post")
    letter(database, "f/main/other", device="8", reason="it Answered 422", died=200.0)
    letter(database, "g/main/post", died=300.0)
    assert numbers(database, chosen) == expected
    assert desk.count(database, chosen).letters == len(expected)


@given(text=st.text().filter(lambda text: text.isprintable()))
def test_what_is_searched_for_is_text_and_never_sql(text: str) -> None:
    with sqlite3.connect(":memory:") as database:
        database.executescript(tables.SCHEMA)
        letter(database, reason=f"before {text} behind")
        assert numbers(database, Chosen(reason=text)) == [1]
        assert numbers(database, Chosen(node=f"x{text}", flow=text)) == []
    database.close()


def test_dropping_takes_the_chosen_letters_only_and_ends(database: sqlite3.Connection) -> None:
    for number in range(1200):
        letter(database, device=str(number % 2))
    done = []
    while n := desk.drop(database, Chosen(device="1")):
        done.append(n)
    assert sum(done) == 600 and max(done) <= 500
    assert desk.count(database, Chosen()).letters == 600


@pytest.mark.parametrize(
    ("payload", "kind", "shown", "shown_as"),
    [
        (b'{"n":1}', JSON, {"n": 1}, "json"),
        ("é".encode(), BYTES, "é", "text"),
        (b"\xff\xd8", BYTES, "/9g=", "base64"),
    ],
)
def test_a_payload_is_exported_so_that_nothing_of_it_is_lost(
    database: sqlite3.Connection, payload: bytes, kind: int, shown: Any, shown_as: str
) -> None:
    letter(database, payload=payload, kind=kind)
    [whole] = desk.whole(database, Chosen(), 0, 10, 1000)
    exported = msgspec.json.decode(msgspec.json.encode(whole))
    assert (exported["payload"], exported["payload_as"], exported["meta"]) == (shown, shown_as, {"device": "7"})


def test_metadata_that_is_no_json_spoils_neither_the_export_nor_the_replay(database: sqlite3.Connection) -> None:
    letter(database, meta=b"{'device': <object>}")
    [whole] = desk.whole(database, Chosen(), 0, 10, 1000)
    assert msgspec.json.decode(msgspec.json.encode(whole))["meta"] == "{'device': <object>}"
    [back] = desk.returns(database, Chosen(), 0, 10, 1000)
    assert back.message(Outcome()).meta == {}


def test_a_letter_comes_back_as_the_message_that_it_was(database: sqlite3.Connection) -> None:
    letter(database, payload=b'{"n":1}', more=b'{"result":{"status":200,"headers":{},"body":"yes"},"acted":true}')
    [back] = desk.returns(database, Chosen(), 0, 10, 1000)
    msg = back.message(Outcome())
    assert (msg.payload, msg.meta, msg.id, msg.time, msg.frames) == ({"n": 1}, {"device": "7"}, "id-100.0", 99.0, ())
    assert msg.acted and msg.result is not None and msg.result.body == "yes"


def test_a_batch_of_letters_is_bounded_in_bytes(database: sqlite3.Connection) -> None:
    for _number in range(5):
        letter(database, payload=b'"' + b"x" * 1000 + b'"')
    assert len(desk.returns(database, Chosen(), 0, 100, 1500)) == 2
    assert [back.number for back in desk.returns(database, Chosen(), 2, 100, 10_000)] == [3, 4, 5]


def test_the_outbox_is_listed_by_action_and_lane_with_what_its_head_says(database: sqlite3.Connection) -> None:
    put(database, 1), put(database, 2), put(database, 3, lane="8"), put(database, 4, "g/main/b")
    found = [(lane.action, lane.lane, lane.rows, lane.oldest, lane.last_seq) for lane in clearing.listing(database)]
    assert found == [("f/main/a", "7", 2, 1.0, 2), ("f/main/a", "8", 1, 3.0, 3), ("g/main/b", "7", 1, 4.0, 4)]
    [lane] = clearing.listing(database, "g/main/b")
    assert (lane.attempts, lane.error) == (2, "busy") and lane.bytes > 0


def test_a_batch_leaves_out_what_a_lane_has_in_memory_and_whole_lanes_that_the_engine_does_not_know(
    database: sqlite3.Connection,
) -> None:
    put(database, 1), put(database, 2), put(database, 3, lane="8"), put(database, 4, lane="9")
    found, more = clearing.batch(database, Meant("f/main/a"), 0, {"7": 1, "8": 0})
    assert ([row.seq for row in found], more) == ([2, 3], 0)


def test_batches_go_through_all_rows_and_no_further(database: sqlite3.Connection) -> None:
    for seq in range(1, 1201):
        put(database, seq)
    seen: list[int] = []
    after = 0
    while True:
        found, after = clearing.batch(database, Meant("f/main/a", upto=1100), after, None)
        seen += [row.seq for row in found]
        if not after:
            break
    assert seen == list(range(1, 1101))


def test_rows_move_in_order_with_new_numbers_and_checksums_that_fit(database: sqlite3.Connection) -> None:
    put(database, 1), put(database, 2, payload=b"[2]")
    moved = clearing.move(database, [Left(1, "7"), Left(2, "7")], "f/main/b", 10)
    assert moved == [True, True]
    [first, second] = rows(database)
    assert [first.seq, first.id, second.seq, second.id] == [10, "id-1", 11, "id-2"]
    assert all(row.action == "f/main/b" and row.checksum == row.sum() and row.body is None for row in (first, second))
    assert all((row.attempts, row.first, row.error) == (0, None, None) for row in (first, second))


def test_a_row_that_the_new_owner_has_already_does_not_come_twice(database: sqlite3.Connection) -> None:
    put(database, 1), put(database, 2, "f/main/b", id="id-1")
    assert clearing.move(database, [Left(1, "7")], "f/main/b", 10) == [False]
    assert [row.seq for row in rows(database)] == [2]


def test_a_damaged_row_is_still_damaged_after_it_moved(database: sqlite3.Connection) -> None:
    put(database, 1)
    database.execute("UPDATE outbox SET payload = ?", (b"[666]",))
    clearing.move(database, [Left(1, "7")], "f/main/b", 10)
    [row] = rows(database)
    assert row.checksum != row.sum()


def test_rows_that_waited_too_long_become_letters_with_the_reason(database: sqlite3.Connection) -> None:
    put(database, 1, payload=b'{"n":1}'), put(database, 900)
    found, _more = clearing.batch(database, Meant("f/main/a", before=100.0), 0, None)
    clearing.bury(database, found, clearing.too_old(30))
    assert [row.seq for row in rows(database)] == [900]
    [whole] = desk.whole(database, Chosen(), 0, 10, 1000)
    assert (whole.flow, whole.node, whole.device, whole.id, whole.arrived) == ("f", "f/main/a", "7", "id-1", 1.0)
    assert "30 days" in whole.reason and msgspec.json.encode(whole.payload) == b'{"n":1}'
