"""The counts of terminals and backend, and the records, as lines that a person reads."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from flowengine import _
from flowengine_simulate.backend import BackendCounts, Taken
from flowengine_simulate.display import shorten
from flowengine_simulate.terminals import TerminalCounts

Rows = list[tuple[str, int]]

_JPEG = b"\xff\xd8\xff"


def record_line(taken: Taken) -> str:
    """One record that came to the backend: who, when, with what result; the image only by its size. Others as JSON."""
    body = taken.body
    face = [
        *(shorten(str(body[name]), 24) for name in ("bot_time", "device", "user_id", "name") if name in body),
        *(f"{name} {shorten(str(body[name]), 12)}" for name in ("verifiedCode", "personType") if name in body),
    ]
    fields = [*face, image_text(body.get("img"))] if face else [shorten(json.dumps(body, ensure_ascii=False), 160)]
    if taken.status != 200:
        fields.append(_("answered {status}").format(status=taken.status))
    if taken.repeat:
        fields.append(_("a repeat"))
    return "  ".join(fields)


def image_text(image: Any) -> str:
    """`JPEG 20 KB`, or what it is instead."""
    if not image:
        return _("no image")
    try:
        data = base64.b64decode(image, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return _("no image in base64")
    size = f"{len(data)} B" if len(data) < 1024 else f"{len(data) / 1024:.0f} KB"
    return f"JPEG {size}" if data.startswith(_JPEG) else _("no JPEG, {size}").format(size=size)


def terminal_rows(counts: TerminalCounts) -> Rows:
    """What the terminals sent and got, most important first; what should not have been only if it was."""
    return [
        (_("messages sent"), counts.sent),
        (_("  acknowledged by the broker"), counts.acknowledged),
        (_("heartbeats sent"), counts.heartbeats),
        (_("  replies received"), counts.replies),
        (_("  replies missed"), counts.replies_missed),
        *_if_any(_("  replies too late or unasked"), counts.replies_unasked),
        *_if_any(_("  replies malformed"), counts.replies_malformed),
        (_("record messages sent"), counts.record_messages),
        (_("  records in them"), counts.records),
        (_("strangers sent"), counts.strangers),
        (_("commands received"), counts.commands),
        *_if_any(_("connections lost"), counts.connections_lost),
    ]


def backend_rows(counts: BackendCounts) -> Rows:
    """What the backend took; what should not have been only if it was."""
    return [
        (_("requests"), counts.requests),
        (_("  records taken"), counts.records),
        (_("    with a new Idempotency-Key"), counts.distinct),
        (_("    repeats of an Idempotency-Key"), counts.repeats),
        *_if_any(_("    without an Idempotency-Key"), counts.without_key),
        *_if_any(_("  failed as told"), counts.failed),
        *_if_any(_("  came again with the same Idempotency-Key"), counts.retries),
        *_if_any(_("  refused: no JSON object"), counts.refused),
        *_if_any(_("  given up by the client"), counts.abandoned),
    ]


def _if_any(label: str, count: int) -> Rows:
    return [(label, count)] if count else []
