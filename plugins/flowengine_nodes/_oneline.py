"""Texts that come from outside, made safe to stand in a log line or in a reason that a person reads."""

from __future__ import annotations

import re
from typing import Any

from flowengine import as_text, shorten

# C0 and C1 controls (a terminal obeys them), what Unicode counts as a line's end, what turns the direction of
# writing round (Unicode Standard Annex 9), and halves of surrogate pairs, which no stream can encode.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """The text with control characters written out (`\\n`, `\\x1b`): one line that commands no terminal."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def brief(value: Any, limit: int = 60) -> str:
    """A value as it stands in a sentence: a text in quotes, anything else as JSON; one short line."""
    text = one_line(as_text(shorten(value, limit)))
    if len(text) > 2 * limit:
        text = text[: 2 * limit] + "…"
    return f"'{text}'" if isinstance(value, str | bytes) else text
