"""Bodies in JSON: a request's read, with errors that say where; what is posted written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson

from flowengine import _
from flowengine_http.answers import Refused

_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
# What orjson would write in another way than msgspec, or that msgspec refuses.
_LEFT_TO_MSGSPEC = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS


def decode(body: bytes) -> Any:
    """The value. A byte order mark is ignored (RFC 8259 section 8.1).

    Raises Refused (400) that says the line and the column, in characters, both from 1.
    """
    body = body.removeprefix(_BOM)
    try:
        return _decode(body)
    except RecursionError:
        raise Refused(400, _("the body is JSON that is nested too deeply")) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(400, _fault(body)) from None


def encode(value: Any) -> bytes:
    """A value as JSON. Raises what msgspec raises (TypeError, ValueError, RecursionError) where it cannot be written.

    orjson writes a picture of 60 KB in a tenth of msgspec's time, but not all that a node may put in a payload: whole numbers
    beyond 64 bits, keys that are no text, bytes, decimals.
    """
    try:
        return orjson.dumps(value, option=_LEFT_TO_MSGSPEC)
    except orjson.JSONEncodeError:
        return _encode(value)


def _fault(body: bytes) -> str:
    """What is wrong and where. Python's own parser is slow, and the one that knows the place to the
    character."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        before = body[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return _("the body is not UTF-8: line {line}, column {column}").format(line=line, column=column)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        words = _("the body is not JSON: line {line}, column {column}")
        return words.format(line=error.lineno, column=error.colno)
    except ValueError:
        pass  # a number of more digits than Python reads
    return _("the body is JSON with a value that cannot be taken: NaN, a number out of range or half a character")
