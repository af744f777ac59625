"""Which mqtt-in nodes a message is for, found out once for a topic and then remembered."""

from __future__ import annotations

from typing import Any

from flowengine import Emit
from flowengine_mqtt.filters import merge
from flowengine_mqtt.reader import QOS_1, RETAIN
from flowengine_mqtt.topics import TopicPattern

_CACHED_TOPICS = 20_000

Targets = tuple[tuple[Emit, dict[str, Any]], ...]
"""Where a message goes, each with its metadata."""


class Subscriber:
    """One mqtt-in: the pattern it matches, the devices it is for (none: all), where its messages go.

    emit: None where the flow was left out, so that nobody takes them.
    """

    __slots__ = ("devices", "emit", "filters", "pattern", "qos")

    def __init__(self, pattern: TopicPattern, devices: list[str], qos: int, emit: Emit | None) -> None:
        self.pattern = pattern
        self.devices = frozenset(devices)
        self.filters = pattern.filters(devices)
        self.qos = qos
        self.emit = emit

    def match(self, topic: str) -> dict[str, str] | None:
        """What the topic gives each name of the pattern, or None where the message is not for this one."""
        names = self.pattern.match(topic)
        if names is None or (self.devices and names.get("device") not in self.devices):
            return None
        return names


class Dispatch:
    """The subscribers of one connection."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self._found = tuple(_Found(self, flags) for flags in range(_FLAGS + 1))

    def add(self, subscriber: Subscriber) -> None:
        """Have messages that match go to a subscriber from now on."""
        self._subscribers.append(subscriber)
        for found in self._found:
            found.clear()

    def targets(self, flags: int, topic: bytes) -> Targets:
        """Where a message goes. flags: as in `reader`. Raises UnicodeDecodeError for what is no topic."""
        return self._found[flags & _FLAGS][topic]

    def awaited(self, topic: bytes) -> bool:
        """Whether a message that has no target is for a flow that was left out."""
        text = topic.decode()
        return any(s.emit is None and s.match(text) is not None for s in self._subscribers)

    def filters(self, *, left_out: bool) -> dict[str, int]:
        """The union of the filters, each at the highest QoS asked for. left_out: those of flows that were left out, too."""
        wanted: dict[str, int] = {}
        for subscriber in self._subscribers:
            if subscriber.emit is not None or left_out:
                for topic_filter in subscriber.filters:
                    wanted[topic_filter] = max(subscriber.qos, wanted.get(topic_filter, 0))
        return merge(wanted)

    def find(self, flags: int, topic: str) -> Targets:
        """As `targets`, of a topic that is not remembered."""
        known = {"topic": topic, "qos": 1 if flags & QOS_1 else 0, "retained": bool(flags & RETAIN)}
        matched = ((s.emit, s.match(topic)) for s in self._subscribers if s.emit is not None)
        return tuple((emit, {**known, **names}) for emit, names in matched if names is not None)


_FLAGS = RETAIN | QOS_1  # what metadata tells of the flags


class _Found(dict[bytes, Targets]):
    """The targets of the topics that have been seen with certain flags; not of more than a bounded number."""

    def __init__(self, dispatch: Dispatch, flags: int) -> None:
        self._dispatch = dispatch
        self._flags = flags

    def __missing__(self, topic: bytes) -> Targets:
        targets = self._dispatch.find(self._flags, topic.decode())
        if len(self) >= _CACHED_TOPICS:
            self.clear()
        self[topic] = targets
        return targets
