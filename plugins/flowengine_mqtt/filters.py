"""Topic filters (MQTT 5 section 4.7): what is legal, what matches what, and a union without overlaps."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flowengine import _

_MAX_BYTES = 65535
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_filter(text: str) -> None:
    """Raise ValueError if `text` is no legal topic filter (section 4.7), or is a shared subscription."""
    _check_text(text)
    levels = text.split("/")
    if levels[0] == "$share":
        raise ValueError(
            _(
                "Topic filter {filter!r} is a shared subscription, which would take messages of one device "
                "out of order; subscribe to the plain topic."
            ).format(filter=text)
        )
    for level in levels:
        if len(level) > 1 and ("+" in level or "#" in level):
            raise ValueError(
                _("Topic filter {filter!r}: + and # must be a whole level of their own.").format(filter=text)
            )
    if "#" in levels[:-1]:
        raise ValueError(_("Topic filter {filter!r}: # must be the last level.").format(filter=text))


def check_topic(text: str) -> None:
    """Raise ValueError if a message cannot be published to `text` (MQTT 5 section 3.3.2.1)."""
    _check_text(text)
    if "+" in text or "#" in text:
        raise ValueError(_("Topic {topic!r} must not hold + or #.").format(topic=text))


def check_level(text: str) -> None:
    """Raise ValueError if `text` must not stand in a level: empty, has `/ + #` or a control character."""
    if not text or _CONTROL.search(text) or any(character in text for character in "/+#"):
        raise ValueError(
            _("{value!r} cannot stand in a topic: it is empty or holds / + # or a control character.").format(
                value=text
            )
        )


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message published to `topic` is matched by `topic_filter`."""
    return covers(topic_filter, topic)


def covers(outer: str, inner: str) -> bool:
    """Whether every topic that `inner` matches is matched by `outer`."""
    outer_levels, inner_levels = _canonical(outer), _canonical(inner)
    if outer_levels[0] in ("+", "#") and inner_levels[0].startswith("$"):
        return False
    for index, level in enumerate(outer_levels):
        if level == "#":
            return True
        if index >= len(inner_levels) or inner_levels[index] == "#":
            return False
        if level not in ("+", inner_levels[index]):
            return False
    return len(outer_levels) == len(inner_levels)


def overlaps(first: str, second: str) -> bool:
    """Whether there is a topic that both filters match."""
    one, other = _canonical(first), _canonical(second)
    for wild, literal in ((one[0], other[0]), (other[0], one[0])):
        if wild in ("+", "#") and literal.startswith("$"):
            return False
    for index in range(max(len(one), len(other))):
        a, b = (levels[index] if index < len(levels) else None for levels in (one, other))
        if a == "#" or b == "#":
            return True
        if a is None or b is None:
            return False
        if a != b and a != "+" and b != "+":
            return False
    return True


def merge(filters: Mapping[str, int]) -> dict[str, int]:
    """The filters (to QoS) to subscribe to, so that all in `filters` are served and no message comes twice.

    A broker may send one copy of a message for each subscription that matches it (MQTT 5 section 3.3.4), so
    no two filters of the result overlap: a filter covered by another is dropped, and of two that overlap
    without one covering the other, such as `a/+` and `+/b`, the narrowest filter that covers both takes the
    place, here `+/+`. That can be much wider: `a/#` and `+/b` become `#`. Each has the highest QoS asked for
    by any that it serves.
    """
    wild: dict[str, int] = {}
    for wanted, wanted_qos in sorted(filters.items()):
        if not _is_wild(wanted):
            continue
        candidate, qos = "/".join(_canonical(wanted)), wanted_qos
        while (rival := next((kept for kept in wild if overlaps(kept, candidate)), None)) is not None:
            qos = max(qos, wild.pop(rival))
            candidate = _cover(rival, candidate)
        wild[candidate] = qos
    merged = dict(wild)
    for topic, qos in sorted(filters.items()):
        if _is_wild(topic):
            continue
        over = next((kept for kept in wild if covers(kept, topic)), topic)
        merged[over] = max(qos, merged.get(over, 0))
    return merged


def _check_text(text: str) -> None:
    if not text:
        raise ValueError(_("A topic must not be empty."))
    if "\0" in text:
        raise ValueError(_("Topic {topic!r} must not hold the null character.").format(topic=text))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(_("Topic {topic!r} is not valid Unicode text.").format(topic=text)) from None
    if size > _MAX_BYTES:
        raise ValueError(
            _("A topic of {size} bytes is too long; MQTT allows {limit}.").format(size=size, limit=_MAX_BYTES)
        )


def _is_wild(text: str) -> bool:
    return text[-1] == "#" or "+" in text


def _canonical(text: str) -> list[str]:
    """The levels; +/# is written #, which matches the same (section 4.7.1.2: # matches the parent, too)."""
    levels = text.split("/")
    return ["#"] if levels == ["+", "#"] else levels


def _cover(first: str, second: str) -> str:
    """The narrowest filter that covers both of two that overlap."""
    levels: list[str] = []
    for a, b in zip(_canonical(first), _canonical(second), strict=False):
        if a == "#" or b == "#":
            levels.append("#")
            break
        levels.append(a if a == b else "+")
    else:
        if len(_canonical(first)) != len(_canonical(second)):
            levels.append("#")  # one is the other's parent: a/# and a
    return "/".join(_canonical("/".join(levels)))
