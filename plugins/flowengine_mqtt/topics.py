"""Topic patterns as flow files write them, and the MQTT topic filters they become.

A pattern such as `fungxi_{device}_upLink` may capture a part of a level; MQTT's own wildcards match whole
levels only (MQTT 5 section 4.7.1). So a pattern subscribes to the narrowest filter that MQTT allows, and
`TopicPattern.match` does the rest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator

from flowengine import _
from flowengine_mqtt.filters import check_filter, check_level

#: Names that a message's metadata or the reference language already use; a capture must not take them.
RESERVED: frozenset[str] = frozenset({"topic", "qos", "retained", "message", "payload", "result", "error"})

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+|[{}]", re.DOTALL)


class TopicPattern:
    """A topic filter in which `{name}` captures (a part of) one level.

    `{{` and `}}` stand for braces; `+` and `#` mean what they mean in MQTT. A capture takes one character or
    more and never a `/`; of several captures in one level, each takes as little as it can and the last takes
    the rest.

    Raises ValueError, with one sentence for the person who wrote the pattern, if it is not a legal filter or
    a capture is wrong.
    """

    def __init__(self, text: str, *, reserved: Collection[str] = RESERVED) -> None:
        self.text = text
        self._levels = [list(_level(tokens)) for tokens in _split(_tokens(text))]
        self.names: tuple[str, ...] = tuple(
            token.name for level in self._levels for token in level if isinstance(token, _Capture)
        )
        self._check_names(reserved)
        self.filter: str = "/".join(_level_filter(level) for level in self._levels)
        check_filter(self.filter)
        self._check_wildcards()
        self._match = re.compile(self._expression(), re.DOTALL).fullmatch

    def __repr__(self) -> str:
        return f"TopicPattern({self.text!r})"

    def match(self, topic: str) -> dict[str, str] | None:
        """What `topic` gives each name, or None if it does not fit the pattern."""
        found = self._match(topic)
        return None if found is None else found.groupdict()

    def filters(self, devices: Iterable[str] = ()) -> list[str]:
        """The filters to subscribe to: `[self.filter]`, or with `devices` one for each of them.

        Since filters of several nodes are merged, a topic of another device may still arrive: check what
        `match` gives for `device`. Raises ValueError if the pattern does not capture `device` or a device
        cannot stand in a topic.
        """
        chosen = list(dict.fromkeys(devices))
        if not chosen:
            return [self.filter]
        if "device" not in self.names:
            raise ValueError(
                _("Topic pattern {pattern!r} needs {{device}} where the listed devices stand.").format(
                    pattern=self.text
                )
            )
        for device in chosen:
            check_level(device)
        filters = ["/".join(_level_filter(level, device) for level in self._levels) for device in chosen]
        for concrete in filters:
            check_filter(concrete)
        return filters

    def _check_names(self, reserved: Collection[str]) -> None:
        seen = set()
        for name in self.names:
            if not name:
                raise ValueError(_("Topic pattern {pattern!r} has a capture without a name.").format(pattern=self.text))
            if not _NAME.fullmatch(name):
                raise ValueError(
                    _(
                        "Topic pattern {pattern!r}: {name!r} is no name; use letters, digits and _, and no digit first."
                    ).format(pattern=self.text, name=name)
                )
            if name in reserved:
                raise ValueError(
                    _(
                        "Topic pattern {pattern!r} must not capture {name!r}, which is taken; choose another name."
                    ).format(pattern=self.text, name=name)
                )
            if name in seen:
                raise ValueError(
                    _("Topic pattern {pattern!r} captures {name!r} twice.").format(pattern=self.text, name=name)
                )
            seen.add(name)

    def _check_wildcards(self) -> None:
        for level in self._levels:
            for token, following in itertools.pairwise(level):
                if isinstance(token, _Capture) and isinstance(following, _Capture):
                    raise ValueError(
                        _(
                            "Topic pattern {pattern!r}: nothing stands between {{{first}}} and {{{second}}}, "
                            "so it is not clear which takes what."
                        ).format(pattern=self.text, first=token.name, second=following.name)
                    )
            if any(isinstance(token, _Capture) for token in level):
                literal = "".join(token for token in level if isinstance(token, str))
                if "+" in literal or "#" in literal:
                    raise ValueError(
                        _("Topic pattern {pattern!r}: + and # must be a whole level of their own.").format(
                            pattern=self.text
                        )
                    )
        first = self._levels[0]
        if len(first) > 1 and isinstance(first[0], str) and first[0].startswith("$"):
            # MQTT 5 section 4.7.2: a filter that begins with a wildcard never matches a topic that begins
            # with $
            raise ValueError(
                _(
                    "Topic pattern {pattern!r} can match nothing: a first level that begins with $ must not capture."
                ).format(pattern=self.text)
            )

    def _expression(self) -> str:
        """The regular expression; its atomic groups keep a long level of separators from costing much."""
        expression = "" if self.filter[0] not in "+#" else r"(?!\$)"
        for index, level in enumerate(self._levels):
            slash = "/" if index else ""
            if level == ["#"]:
                # section 4.7.1.2: a/# matches a, too
                expression += "(?:/.*)?" if index else ".+"
            elif level == ["+"]:
                expression += slash + "[^/]*"
            else:
                expression += slash + _level_expression(level)
        return expression


class _Capture:
    """The name between braces in a pattern."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def _tokens(text: str) -> Iterator[str | _Capture]:
    """Text and captures, with doubled braces undone."""
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token in ("{{", "}}"):
            yield token[0]
        elif token in ("{", "}"):
            raise ValueError(
                _(
                    "Topic pattern {pattern!r}: brace without its partner at character {place}; "
                    "write {{{{ or }}}} for a brace."
                ).format(pattern=text, place=found.start() + 1)
            )
        elif found.group(1) is not None:
            yield _Capture(found.group(1))
        else:
            yield token


def _split(tokens: Iterable[str | _Capture]) -> Iterator[list[str | _Capture]]:
    """The tokens of each level."""
    level: list[str | _Capture] = []
    for token in tokens:
        if isinstance(token, _Capture):
            level.append(token)
            continue
        first, *others = token.split("/")
        level.append(first)
        for other in others:
            yield level
            level = [other]
    yield level


def _level(tokens: Iterable[str | _Capture]) -> Iterator[str | _Capture]:
    """The tokens of one level with neighbouring text joined and empty text left out."""
    text = ""
    for token in tokens:
        if isinstance(token, str):
            text += token
            continue
        if text:
            yield text
            text = ""
        yield token
    if text:
        yield text


def _level_filter(level: list[str | _Capture], device: str | None = None) -> str:
    """The level as MQTT can say it; a level that captures becomes +, unless `device` is all it captures."""
    text = ""
    for token in level:
        if isinstance(token, str):
            text += token
        elif token.name == "device" and device is not None:
            text += device
        else:
            return "+"
    return text


def _level_expression(level: list[str | _Capture]) -> str:
    captures = sum(isinstance(token, _Capture) for token in level)
    expression, group = "", ""
    for token in level:
        if isinstance(token, str):
            # A group that took the shortest text up to this separator never needs another try: what follows
            # is at least as long.
            expression += f"(?>{group}{re.escape(token)})" if group else re.escape(token)
            group = ""
            continue
        captures -= 1
        if captures:
            group = f"(?P<{token.name}>[^/]+?)"
        else:
            expression += f"(?P<{token.name}>[^/]+)"
    return expression
