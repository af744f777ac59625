"""Acknowledgements: in the order of arrival, many at a time, on the connection that brought the message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec


class Entry(msgspec.Struct, eq=False):
    """One received QoS 1 message. Call `settle()` once when the sender may be told that we have it."""

    _ledger: AckLedger
    mid: int
    body: object
    live: bool = True
    settled: bool = False

    def settle(self, _outcome: object = None) -> None:
        """The message is settled or stored: its PUBACK goes out once all before it are settled, too."""
        self.settled = True
        if self.live:
            self._ledger.settled()


class AckLedger:
    """The unacknowledged messages of one session in the order of arrival.

    PUBACKs are sent in that order (MQTT 5 section 4.6), as many as stand settled at the head, at most once a
    turn of the loop. An acknowledgement belongs to the connection that brought the message: a packet id means
    another message on the next one, so what is unacknowledged when a connection ends waits for its
    redelivery. A redelivery (section 4.4: same packet id, DUP set) of a message that is still pending joins
    it: it takes its new place in the order and is not handed on again; if it was settled meanwhile, it is
    acknowledged at once. Since brokers give packet ids to other messages later, topic and payload must be the
    same as well.

    `send(generation, mids)` writes PUBACKs; `schedule` is the loop's `call_soon`.
    """

    def __init__(
        self,
        send: Callable[[int, list[int]], object],
        schedule: Callable[[Callable[[], None]], object],
    ) -> None:
        self._send = send
        self._schedule = schedule
        self._generation = 0
        self.pending: deque[Entry] = deque()
        """The unacknowledged messages of the live connection, in the order of arrival."""
        self._mids: set[int] = set()
        """Their packet ids."""
        self._owed: dict[int, Entry] = {}
        self._scheduled = False

    def __len__(self) -> int:
        """How many messages of the live connection are unacknowledged: how much of the window is used."""
        return len(self.pending)

    def statistics(self) -> dict[str, int]:
        """`unacknowledged` on the live connection; `owed`: came on an earlier one and not again yet."""
        return {"unacknowledged": len(self.pending), "owed": len(self._owed)}

    def connected(self, generation: int, session_present: bool) -> None:
        """A new connection is up. Without a session at the broker nothing will be redelivered."""
        self.disconnected()
        self._generation = generation
        if not session_present:
            self._owed.clear()

    def disconnected(self) -> None:
        """The connection is gone, and the acknowledgements of its messages with it."""
        for entry in self.pending:
            entry.live = False
            entry.body = hash(entry.body)  # a digest is enough from here, and lets the payload go
            self._owed[entry.mid] = entry
        self.pending.clear()
        self._mids.clear()

    def received(self, generation: int, mid: int, topic: bytes, payload: bytes, dup: bool) -> Entry | None:
        """Note a QoS 1 message; None if it joined one that is pending and must not be handed on.

        Until it is acknowledged the payload is kept, to be compared with a redelivery.
        """
        if generation != self._generation:
            return None
        if dup and self._joins(mid, (topic, payload)):
            return None
        if self._owed:
            self._owed.pop(mid, None)  # the broker gave the packet id to another message
        entry = Entry(self, mid, (topic, payload))
        self.pending.append(entry)
        self._mids.add(mid)
        return entry

    def refused(self, entry: Entry) -> None:
        """The last message found no room and nobody has it: forget it, so that its redelivery is handed on."""
        if self.pending and self.pending[-1] is entry:
            self.pending.pop()
            self._mids.discard(entry.mid)
            entry.live = False

    def settled(self) -> None:
        """Some entry was settled: send what can be sent, once, later in this turn of the loop."""
        if not self._scheduled and self.pending and self.pending[0].settled:
            self._scheduled = True
            self._schedule(self.flush)

    def flush(self) -> None:
        """Send the PUBACKs of the settled messages at the head now. Call it before a disconnect."""
        self._scheduled = False
        order = self.pending
        mids: list[int] = []
        while order and order[0].settled:
            entry = order.popleft()
            entry.live = False
            mids.append(entry.mid)
        if mids:
            self._mids.difference_update(mids)
            self._send(self._generation, mids)

    def _joins(self, mid: int, body: tuple[bytes, bytes]) -> bool:
        if mid in self._mids:
            # A packet id is in use until its PUBACK (section 2.2.1), so this is the same message sent twice,
            # as some 3.1.1 brokers do.
            return True
        entry = self._owed.get(mid)
        if entry is None or entry.body != hash(body):
            return False
        del self._owed[mid]
        entry.body, entry.live = body, True
        self.pending.append(entry)
        self._mids.add(mid)
        self.settled()
        return True


def when_all(entry: Entry, count: int) -> Callable[[object], None]:
    """Settle the entry when as many outcomes are settled as there are chains that had the message."""
    left = count

    def settled(_outcome: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            entry.settle()

    return settled
