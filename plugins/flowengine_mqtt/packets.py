"""Writing packets: PUBLISH and PUBACK (MQTT 5 sections 3.3 and 3.4), of which there are many."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from flowengine_mqtt.filters import check_topic
from flowengine_mqtt.reader import PUBLISH, QOS_1, RETAIN

_CACHED_TOPICS = 20_000
_LONGEST_EXPIRY = 0xFFFF_FFFF
_expiry = struct.Struct("!BBI").pack  # length of the properties, Message Expiry Interval (section 3.3.2.3.3), seconds


def pubacks(packet_ids: Iterable[int]) -> bytes:
    """A PUBACK that says yes (section 3.4.2.1) for each packet id, in this order."""
    return b"".join([(0x4002_0000 | packet_id).to_bytes(4, "big") for packet_id in packet_ids])


def publish_head(
    version: str, topic: bytes, size: int, packet_id: int = 0, retain: bool = False, expiry: int | None = None
) -> bytes:
    """A PUBLISH up to its payload of `size` bytes; its QoS is 1 if it has a packet id.

    topic: as `topic_name` gives it. expiry: after how many seconds the broker need not deliver it any more; MQTT 5 only.
    """
    first = PUBLISH | RETAIN if retain else PUBLISH
    if packet_id:
        first |= QOS_1
        topic += packet_id.to_bytes(2, "big")
    if version == "5":
        topic += b"\0" if expiry is None else _expiry(5, 0x02, min(expiry, _LONGEST_EXPIRY))
    length = len(topic) + size
    if length < 128:
        return bytes((first, length)) + topic
    return bytes((first,)) + variable_byte_integer(length) + topic


@lru_cache(_CACHED_TOPICS)
def topic_name(topic: str) -> bytes:
    """A topic as a PUBLISH has it (section 1.5.4). Raises ValueError if nothing can be published to it."""
    check_topic(topic)
    text = topic.encode()
    return len(text).to_bytes(2, "big") + text


def variable_byte_integer(number: int) -> bytes:
    """A length as packets have it (section 1.5.5)."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
