"""Headers that a flow file writes: which names may stand there, and what values may become of the
templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from flowengine import Message, Problem, Reject, Template, _

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = {"connection", "content-length", "host", "transfer-encoding"}


def problems(headers: Mapping[str, Template], *, ours: Mapping[str, str] | None = None) -> Iterator[Problem]:
    """What is wrong with the names (RFC 9110 section 5.1). ours: lower-case names that the node sends itself,
    each with what to do."""
    known = {**dict.fromkeys(_FRAMING, _("it is set by itself")), **(ours or {})}
    seen: set[str] = set()
    for name in headers:
        if _TOKEN.fullmatch(name) is None:
            yield Problem(f"headers.{name}", _("'{name}' is not a header name").format(name=name))
        elif name.lower() in known:
            words = _("the header {name} cannot be set here: {why}").format(name=name, why=known[name.lower()])
            yield Problem(f"headers.{name}", words)
        elif name.lower() in seen:
            yield Problem(f"headers.{name}", _("the header {name} stands here twice").format(name=name))
        seen.add(name.lower())


def render(headers: Mapping[str, Template], msg: Message) -> dict[str, str]:
    """The headers for this message; raises Reject where a value would hold a line break or another control
    character (RFC 9110 section 5.5): it could forge further headers."""
    rendered = {}
    for name, template in headers.items():
        value = template.render(msg)
        if _CONTROL.search(value) is not None:
            raise Reject(_("the header {name} would hold a control character").format(name=name))
        rendered[name] = value
    return rendered
