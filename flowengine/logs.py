"""Structured logs: sentences with names beside them on a terminal, JSON lines otherwise. No line prints a long text.

An event is an English sentence; on a terminal it is shown in the reader's language, in JSON it stays as it is.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from typing import Any, TextIO

import structlog

from flowengine.i18n import _

LIMIT = 200
LEVELS = ("debug", "info", "warning", "error")


def shorten(value: Any, limit: int = LIMIT) -> Any:
    """Long texts as head, length and hash: an image in base64 becomes `/9j/4AAQ… (27 KB, sha1 0beec7b5)`.

    Looks inside lists and objects; other values come back unchanged.
    """
    if isinstance(value, str) and len(value) > limit:
        return _short(value, value.encode("utf-8", "replace"))
    if isinstance(value, bytes):
        text = value[: limit * 4].decode("utf-8", "replace")
        return text if len(value) <= limit else _short(text, value)
    if isinstance(value, dict):
        kept = {k: shorten(v, limit) for k, v in list(value.items())[:50]}
        return kept if len(value) <= 50 else {**kept, "…": len(value)}
    if isinstance(value, list | tuple):
        items = [shorten(v, limit) for v in value[:20]]
        return items if len(value) <= 20 else [*items, f"… ({len(value)})"]
    return value


def _short(text: str, raw: bytes) -> str:
    size = f"{len(raw)} B" if len(raw) < 10_000 else f"{len(raw) // 1000} KB"
    return f"{text[:40]}… ({size}, sha1 {hashlib.sha1(raw, usedforsecurity=False).hexdigest()[:8]})"


def _shortened(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if key != "exception":
            event[key] = shorten(value, 1000 if key == "event" else LIMIT)
    return event


def _translated(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["event"] = _(str(event["event"]))
    return event


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
        processors.append(structlog.processors.JSONRenderer(ensure_ascii=False))
    else:
        processors += [_translated, structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=0, sort_keys=False)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=out, format="%(name)s: %(message)s", force=True)
