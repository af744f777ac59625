"""Reading packets: the stream cut into packets, PUBLISH and PUBACK understood, the rest handed on whole.

Those two are nearly all of the traffic, and to read one through paho costs ten times as much.
"""

from __future__ import annotations

from collections.abc import Callable

from flowengine import _

PUBLISH, PUBACK = 0x30, 0x40
#: What a PUBLISH says in the low half of its first byte (MQTT 5 section 3.3.1).
RETAIN, QOS_1, QOS_2, DUP = 0x01, 0x02, 0x04, 0x08

_BUFFER_BYTES = 256 * 1024

#: Flags of the first byte, packet id (0 at QoS 0), topic as its bytes, payload.
OnPublish = Callable[[int, int, bytes, bytes], object]
#: Packet id, reason code.
OnPuback = Callable[[int, int], object]
#: A packet of another type, whole; False if the connection ended with it.
OnOther = Callable[[bytes], bool]


class Malformed(Exception):
    """The broker sent what is no packet, or what it must not send; the text says what."""


class PacketReader:
    """Write what arrives into `room()`, tell how much with `received(count)`, then call `handle`.

    There is one lasting buffer. A packet that is longer has one of its own, which grows with what really arrives and not with
    what the packet says of its length. version: "5", or "3.1.1", whose packets have no properties.
    """

    def __init__(self, version: str, publish: OnPublish, puback: OnPuback, other: OnOther) -> None:
        self._properties = version == "5"
        self._publish = publish
        self._puback = puback
        self._other = other
        self._lasting = self._data = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._data)  # its slices copy nothing
        self._start = 0  # of the first packet that has not been handled
        self._end = 0  # of what has been received

    def room(self) -> memoryview:
        """Where the next bytes are to be written; never empty once `handle` has returned False."""
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were written into `room()`."""
        self._end += count

    def handle(self, most: int) -> bool:
        """Hand on the packets that are whole; True if it stopped after `most` of them, so that there may be more.

        Raises Malformed; nothing that comes after it can be read.
        """
        data, end = self._data, self._end
        needed = 2
        while end - self._start >= 2:
            start = self._start
            length, body = data[start + 1], start + 2
            if length > 127:
                if end - start > 2 and data[start + 2] < 128:  # two bytes: most of what is longer than a heartbeat
                    length, body = length & 127 | data[start + 2] << 7, start + 3
                else:
                    length, body = variable_byte_integer(data, start + 1, end)
            stop = body + length
            if length < 0 or stop > end:
                needed = stop - start
                break
            if not most:
                return True
            most -= 1
            self._start = stop
            first = data[start]
            if first & 0xF0 == PUBLISH:
                self._read_publish(first & 0x0F, body, stop)
            elif first == PUBACK:
                if length < 2:
                    raise Malformed(_("a PUBACK without a packet id"))
                self._puback(data[body] << 8 | data[body + 1], data[body + 2] if length > 2 else 0)
            elif not self._other(bytes(self._view[start:stop])):
                return False
        self._make_room(needed)
        return False

    def _read_publish(self, flags: int, body: int, stop: int) -> None:
        """Hand on the PUBLISH that lies between these places. Its properties say nothing that we want, and are skipped.

        No topic alias is announced, so a topic is never empty (MQTT 5 section 3.3.2.3.4). QoS 2 is never subscribed to.
        """
        if flags & QOS_2:
            raise Malformed(_("a PUBLISH of QoS 2, which was not asked for"))
        data = self._data
        begin = body + 2
        at = topic_end = begin + (data[body] << 8 | data[body + 1]) if begin <= stop else stop + 1
        packet_id = 0
        if flags & QOS_1:
            at += 2
            if at <= stop:
                packet_id = data[at - 2] << 8 | data[at - 1]
        if self._properties and at < stop:
            length = data[at]
            if length < 128:
                at += 1 + length
            else:
                length, at = variable_byte_integer(data, at, stop)
                at = at + length if length >= 0 else stop + 1
        elif self._properties:
            at = stop + 1
        if at > stop:
            raise Malformed(_("a PUBLISH that is too short"))
        if topic_end == begin:
            raise Malformed(_("a PUBLISH without a topic"))
        if flags & QOS_1 and not packet_id:
            raise Malformed(_("a PUBLISH with the packet id 0"))
        view = self._view
        self._publish(flags, packet_id, view[begin:topic_end].tobytes(), view[at:stop].tobytes())

    def _make_room(self, needed: int) -> None:
        """See that there is room behind what is there of the packet that has begun, which takes `needed` bytes."""
        here = self._end - self._start
        begun = self._view[self._start : self._end]
        if not here:
            self._use(self._lasting)
        elif needed > len(self._data):
            self._use(bytearray(min(needed, 2 * len(self._data))))
        if self._start or begun.obj is not self._data:
            self._view[:here] = begun
        self._start, self._end = 0, here

    def _use(self, buffer: bytearray) -> None:
        if buffer is not self._data:
            self._data, self._view = buffer, memoryview(buffer)


def variable_byte_integer(data: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """The number that is written at this place (MQTT 5 section 1.5.5), and the place behind it; -1 if it is not whole.

    Raises Malformed if it takes more than four bytes.
    """
    number = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        if byte < 128:
            return number | byte << shift, at
        number |= (byte & 127) << shift
        shift += 7
        if shift == 28:
            raise Malformed(_("a length of more than four bytes"))
    return -1, at
