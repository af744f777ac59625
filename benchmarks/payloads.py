"""What terminals send, with a number in it that tells one record from another."""

from __future__ import annotations

import json
import re
from typing import Literal

Kind = Literal["record", "heartbeat", "stranger", "command"]

DEVICE = 123456789
"""The first terminal, the only one that the seed's script knows"""

MARK = b'"N'
"""Stands before the batch and the number, and nowhere else in a message that is posted"""

NUMBER_OF_ZEROS = b"00000000"


def uplink(device: int) -> str:
    """Where the terminal with this index reports."""
    return f"fungxi_{DEVICE + device}_upLink"


def downlink(device: int) -> str:
    """Where the terminal with this index listens."""
    return f"fungxi_{DEVICE + device}_downLink"


def around_number(kind: Kind, batch: int, size: int = 1500) -> tuple[bytes, bytes]:
    """What stands before and after the number of 8 digits in a payload.

    A record is filled up to `size` bytes, as if by its picture. A heartbeat carries no number: all of it stands before.
    """
    mark = f"N{batch:04d}-{NUMBER_OF_ZEROS.decode()}"
    if kind == "heartbeat":
        return json.dumps({"cmd": "heartU"}, separators=(",", ":")).encode(), b""
    if kind == "command":
        text = json.dumps({"cmd": "openDoor", "id": mark}, separators=(",", ":"))
    else:
        record = {
            "num": mark,
            "name": "王伟",
            "personType": "1",
            "verifiedCode": 0,
            "time": "2024-11-30 08:15:30",
            "liveImageBase64": "",
        }
        cmd = "verifiedRecordU" if kind == "record" else "strangerRecordU"
        text = json.dumps({"cmd": cmd, "data": [record]}, separators=(",", ":"), ensure_ascii=False)
        picture = ("/9j/4AAQSkZJRgAB" * (size // 16 + 1))[: max(size - len(text.encode()), 0)]
        text = text.replace('"liveImageBase64":""', f'"liveImageBase64":"{picture}"')
    before, _, after = text.encode().partition(NUMBER_OF_ZEROS)
    return before, after


def number_in(data: bytes, start: int = 0) -> tuple[int, int] | None:
    """Batch and number of the first record in `data` from there, or None."""
    at = data.find(MARK, start) + 2
    if at < 2:
        return None
    try:
        return int(data[at : at + 4]), int(data[at + 5 : at + 13])
    except ValueError:
        return None


def numbers_in(data: bytes) -> list[tuple[int, int] | None]:
    """Batch and number of each record of an array."""
    starts = [found.start() for found in re.finditer(re.escape(MARK), data)]
    return [number_in(data, start) for start in starts]
