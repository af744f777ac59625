"""The node `json-parse`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from flowengine import Message, Reject, Step, _
from flowengine_nodes._oneline import one_line

_decode = msgspec.json.Decoder().decode
_ENCODED = (bytes, str, bytearray, memoryview)
_BOM = b"\xef\xbb\xbf"
_AROUND = 20
_POSITION = re.compile(r" \(byte (\d+)\)$")


class JsonParse(Step):
    """Reads the payload as JSON.

    Bytes, which must be UTF-8 (RFC 8259 section 8.1), or a text become what they say: an object, a list, a
    text, a number, true, false or null. A payload that is something else already is passed on as it is, so a
    second json-parse does no harm after an object or a list.

    A byte order mark at the start is skipped. Of a key that an object has twice the last one counts. A whole
    number keeps all its digits; a fraction has the precision of a double (IEEE 754). NaN, Infinity, comments,
    single quotes and trailing commas are not JSON. Lists and objects may be nested some hundreds deep, far
    deeper than any device writes.

    Guarantees:
        Keeps order, id and metadata; never more than one message out for one in. What is not UTF-8 or not
        JSON fails this message alone, with a reason that says where (line and column) and shows what stands
        there; a number that is too large and nesting that is too deep fail it too, without the place.
        `on_error` has the payload as it came.

    Example:
        - json-parse
        - log: "{device} says {payload.cmd}"
    """

    type = "json-parse"

    def process(self, msg: Message) -> Message:
        payload = msg.payload
        if not isinstance(payload, _ENCODED):
            return msg
        try:
            return msg.with_payload(_decode(payload))
        except (ValueError, RecursionError) as error:
            return msg.with_payload(_second_try(payload, error))


def _second_try(payload: Any, error: Exception) -> Any:
    """Read what begins with a byte order mark without it; raise Reject for anything else."""
    raw = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else bytes(payload)
    if raw.startswith(_BOM):
        raw = raw[len(_BOM) :]
        try:
            return _decode(raw)
        except (ValueError, RecursionError) as again:
            error = again
    raise Reject(_reason(raw, error)) from None


def _reason(raw: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return _("the payload is nested too deeply")
    if not raw.strip():
        return _("the payload is not JSON: it is empty")
    try:
        raw.decode()
    except UnicodeDecodeError as broken:
        return _("the payload is not UTF-8: byte 0x{value:02x} at {where}, in '{near}'").format(
            value=raw[broken.start], where=_where(raw, broken.start), near=_near(raw, broken.start)
        )
    what = str(error).removeprefix("JSON is malformed: ")
    position = _POSITION.search(what)
    if position is not None:
        what, at = what[: position.start()], int(position[1])
        at -= what == "trailing characters"  # there msgspec counts one too many
    elif "truncated" in what:
        what, at = _("it ends too early"), len(raw)
    else:
        return _("the payload is not JSON that can be read: {what}").format(what=what)
    return _("the payload is not JSON: {what} at {where}, in '{near}'").format(
        what=what, where=_where(raw, at), near=_near(raw, at)
    )


def _where(raw: bytes, at: int) -> str:
    start = raw.rfind(b"\n", 0, at) + 1
    column = len(raw[start:at].decode("utf-8", "replace")) + 1
    return _("line {line}, column {column}").format(line=raw.count(b"\n", 0, at) + 1, column=column)


def _near(raw: bytes, at: int) -> str:
    """What stands around a position: whole characters, and what is not UTF-8 as `\\xd6`."""
    start = max(0, at - _AROUND)
    while 0 < start < at and raw[start] & 0xC0 == 0x80:
        start += 1
    end = at + _AROUND
    while at < end < len(raw) and raw[end] & 0xC0 == 0x80:
        end -= 1
    return one_line(raw[start:end].decode("utf-8", "backslashreplace"))
