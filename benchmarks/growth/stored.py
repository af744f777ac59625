"""A state folder with messages that wait in it, written without an engine: one would take minutes to store so many."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec

from benchmarks.payloads import DEVICE, around_number
from flowengine.delivery import tables
from flowengine.delivery.outbox import JSON, Row

_FIELDS = {"user_id": "num", "name": "name", "img": "liveImageBase64", "verifiedCode": "verifiedCode"}
_INSERT = f"INSERT INTO outbox VALUES ({', '.join('?' * len(Row.__struct_fields__))})"


def fill(state: Path, action: str, rows: int, lanes: int, batch: int) -> None:
    """Make the state folder, with so many records of 1.5 KB for this action, of so many devices in turn. Their numbers are of
    this batch of the board."""
    state.mkdir()
    path = state / "flowengine.db"
    database = tables.connect(path)
    tables.prepare(database, path)
    before, after = around_number("record", batch)
    (record,) = json.loads(before + b"00000000" + after)["data"]
    body = json.dumps({name: record[source] for name, source in _FIELDS.items()}, separators=(",", ":")).encode()
    head, _zeros, tail = body.partition(b"00000000")
    now = time.time()
    database.execute("BEGIN")
    for number in range(rows):
        device = str(DEVICE + number % lanes)
        row = Row(
            number + 1, action, device, f"{device}/{number}", "0", now, None, 0, None, head + b"%08d" % number + tail, JSON,
            None, None, json.dumps({"device": device, "topic": f"fungxi_{device}_upLink"}).encode(), None,
        )  # fmt: skip
        row.checksum = row.sum()
        database.execute(_INSERT, msgspec.structs.astuple(row))
    tables.begin(database)
    database.execute("COMMIT")
    tables.end(database)
    database.close()
