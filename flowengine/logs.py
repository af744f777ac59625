"""Structured logs: sentences with names beside them on a terminal, JSON lines otherwise. No line prints a long text.

An event is an English sentence; on a terminal it is shown in the reader's language, in JSON it stays as it is. Whatever a value
holds, it makes no line of its own and no writing fails: a log that cannot be written does not disturb what it tells of.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import sys
from typing import Any, TextIO

import structlog

from flowengine.i18n import _

LIMIT = 200
SENTENCE_LIMIT = 1000
"""For events and reasons: advice is of no use without its end."""
LEVELS = ("debug", "info", "warning", "error")
_DEEP = 6
_PIECES = 200
_FRAMES = 60
_BITS = 1000
_SHOWN = 1000
# C0 controls as their pictures (a line feed as `␊`), C1 controls and what else ends a line (Unicode 15 section 5.8) as `�`.
_CONTROLS = {c: 0x2400 + c for c in range(0x20)} | dict.fromkeys((*range(0x7F, 0xA0), 0x2028, 0x2029), 0xFFFD)


def shorten(value: Any, limit: int = LIMIT) -> Any:
    """Long texts as head, length and hash: an image in base64 becomes `/9j/4AAQ… (27 KB, sha1 0beec7b5)`.

    Looks inside lists and objects, which are cut where they are long, deep or hold very much; other values come back unchanged.
    """
    return _shorten(value, limit, _DEEP, [_PIECES])


def _shorten(value: Any, limit: int, deep: int, left: list[int]) -> Any:
    if isinstance(value, str):
        return value if len(value) <= limit else _short(value, value.encode("utf-8", "replace"))
    if isinstance(value, bytes):
        text = value[: limit * 4].decode("utf-8", "replace")
        return text if len(value) <= limit else _short(text, value)
    if not isinstance(value, dict | list | tuple):
        if isinstance(value, int) and value.bit_length() > _BITS:
            return f"… ({value.bit_length()} bit)"  # Python refuses to print more than some 14000
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)  # JSON has no such number (RFC 8259 section 6)
        return value
    size, many = len(value), 50 if isinstance(value, dict) else 20
    many = min(many, left[0]) if deep else 0
    left[0] -= min(many, size)
    if isinstance(value, dict):
        items = list(value.items())[:many]
        kept = {
            _shorten(k if type(k) is str else _shown(k), limit, 0, left): _shorten(v, limit, deep - 1, left)
            for k, v in items
        }
        return kept if size <= many else {**kept, "…": size}
    found = [_shorten(v, limit, deep - 1, left) for v in value[:many]]
    return found if size <= many else [*found, f"… ({size})"]


def _short(text: str, raw: bytes) -> str:
    size = f"{len(raw)} B" if len(raw) < 10_000 else f"{len(raw) // 1000} KB"
    return f"{text[:40]}… ({size}, sha1 {hashlib.sha1(raw, usedforsecurity=False).hexdigest()[:8]})"


def _shown(value: Any) -> str:
    """Any object as a text, also one whose `repr` fails."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _shortened(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if key == "exception":
            lines = [line for line in str(value).splitlines() if line.strip()][-_FRAMES:]
            event[key] = "\n".join("  " + shorten(line.translate(_CONTROLS), 2 * LIMIT) for line in lines)
        else:
            event[key] = shorten(value, SENTENCE_LIMIT if key in ("event", "reason") else LIMIT)
    return event


def _translated(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["event"] = _(str(event["event"]))
    return event


def _on_one_line(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if key != "exception":
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                value = ", ".join(value)
            text = value if isinstance(value, str) else _shown(value)
            event[key] = (text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…").translate(_CONTROLS)
    return event


class _Lines:
    """What structlog writes to. A stream that is closed, full or gone fails nobody who logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


class _FromOthers(logging.Handler):
    """What libraries say with `logging`, as lines like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        log = structlog.get_logger(record.name)
        log.log(max(record.levelno, logging.DEBUG), text, logger=record.name, exc_info=record.exc_info)


def configure(level: str = "info", *, json: bool | None = None, stream: TextIO | None = None) -> None:
    """Set logging up, once per process. json: None means JSON unless `stream` (standard error) is a terminal."""
    out = stream or sys.stderr
    as_json = not out.isatty() if json is None else json
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=False),
        structlog.processors.format_exc_info,
        _shortened,
    ]
    if as_json:
        processors.append(structlog.processors.JSONRenderer(ensure_ascii=False, default=lambda v: shorten(_shown(v))))
    else:
        show = structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=0, sort_keys=False)
        processors += [_translated, _on_one_line, show]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_names: _Lines(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_FromOthers()], force=True)
    logging.captureWarnings(True)
