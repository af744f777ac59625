"""The load generator: terminals that report over MQTT at QoS 1, at a small part of what any system needs to deal with it.

    python -m benchmarks.load PLAN          # PLAN is a Plan as JSON; prints a Sample as JSON

Packets are put together from ready pieces and many go out with one send; PUBACKs are only counted. Flat out it keeps `window`
messages under way, counted from sending to the effect that a person would see: the POST at the sink, the heartbeat's reply. And
it never goes more than 600 messages beyond the first record that has not arrived, since who acknowledges in order has
acknowledged none of them. So a broker's queue, by default of 1000 messages a client, is never overrun, and a loss is the
system's.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from benchmarks.board import CAPACITY, Board
from benchmarks.packets import PUBACK_SIZE, Reader, acknowledge_quickly, opened, publish_head
from benchmarks.payloads import Kind, around_number, downlink, uplink
from benchmarks.processes import cpu_seconds
from benchmarks.samples import Sample, spread

_SEND_BYTES = 256 * 1024
_NAP_S = 0.0005
_QUEUE = 600
_GIVEN_UP_S = 5.0
"""After so long a record counts as lost, and the generator goes on without it"""
_PIDS = [number.to_bytes(2, "big") for number in range(1, 1 << 16)]


class Plan(msgspec.Struct, frozen=True):
    """What to send.

    port: of the broker. board: of the sink. kinds: of the messages in turn. size: of a record, in bytes. window: under way at
    most. rate: messages a second; 0 is flat out. warm_up, seconds: how long. count: instead of `seconds`, how many after the
    warm-up. patience: how long to wait for what is under way at the end, in seconds. watch: processes whose CPU is counted.
    waits: whether to wait for effects; else all is sent as fast as the broker takes it.
    """

    port: int
    board: str
    batch: int
    devices: int = 50
    kinds: tuple[Kind, ...] = ("record",)
    size: int = 1500
    window: int = 256
    rate: float = 0
    warm_up: float = 0.3
    seconds: float = 1.0
    count: int = 0
    patience: float = 30.0
    watch: tuple[int, ...] = ()
    waits: bool = True


class Terminals:
    """Sends messages, numbered from 0 and over the devices in turn, and hears replies."""

    def __init__(self, plan: Plan, board: Board) -> None:
        self._plan = plan
        self._board = board
        devices = range(plan.devices)
        hears = "heartbeat" in plan.kinds
        self._posts = "record" in plan.kinds  # else what is posted comes from another generator
        self._publisher = opened(plan.port, f"bench-load-{os.getpid()}")
        self._publisher.settimeout(None)  # with a timeout, recv waits in spite of MSG_DONTWAIT
        self._subscriber = (
            opened(plan.port, f"bench-ear-{os.getpid()}", [downlink(device) for device in devices]) if hears else None
        )
        if self._subscriber is not None:
            self._subscriber.setblocking(False)
            acknowledge_quickly(self._subscriber)
        self._pieces = {
            kind: [
                (publish_head(uplink(device), len(before) + 8 * (kind != "heartbeat") + len(after)), before, after)
                for device in devices
            ]
            for kind in set(plan.kinds)
            for before, after in [around_number(kind, plan.batch, plan.size)]
        }
        self._size = max(
            len(head) + len(before) + len(after) for rows in self._pieces.values() for head, before, after in rows
        )
        self._beats: dict[bytes, deque[float]] = {downlink(device).encode(): deque() for device in devices}
        self._beating = list(self._beats.values())
        self._reader = Reader()
        self.numbered = self.sent = self.effects = self.replies = 0
        self._acked_bytes = 0
        self._past = 0
        self.times: list[float] = []
        self.record_numbers: list[int] = []

    def send(self, count: int) -> None:
        """Send so many, or as many as fit into one send."""
        plan, pieces = self._plan, self._pieces
        out: list[bytes] = []
        now = time.monotonic()
        first = self.numbered
        for number in range(first, min(first + min(count, _SEND_BYTES // self._size + 1), CAPACITY)):
            device = number % plan.devices
            kind = plan.kinds[(number + number // plan.devices) % len(plan.kinds)]
            head, before, after = pieces[kind][device]
            out += (head, _PIDS[number % 65535], before)
            if kind == "heartbeat":
                self._beating[device].append(now)
                self.effects += 1
            else:
                out += (b"%08d" % number, after)
                if kind == "record":
                    self._board.sent[number] = now
                    self.record_numbers.append(number)
                    self.effects += 1
            self.numbered = number + 1
        self._publisher.sendall(b"".join(out))

    def done(self) -> int:
        """How many messages have had their effect."""
        return self._board.posts * self._posts + self.replies

    def span(self) -> int:
        """How many messages back the first record is that has not arrived."""
        numbers, board = self.record_numbers, self._board
        long_ago = time.monotonic() - _GIVEN_UP_S
        while self._past < len(numbers):
            number = numbers[self._past]
            if not board.arrived[number] and board.sent[number] > long_ago:
                return self.numbered - number
            self._past += 1
        return 0

    @property
    def acknowledged(self) -> int:
        """How many messages the broker has taken."""
        return self._acked_bytes // PUBACK_SIZE

    def listen(self) -> None:
        """Take what has come in meanwhile."""
        try:
            while data := self._publisher.recv(65536, socket.MSG_DONTWAIT):
                self._acked_bytes += len(data)
        except BlockingIOError:
            pass
        if self._subscriber is None:
            return
        try:
            data = self._subscriber.recv(_SEND_BYTES)
        except BlockingIOError:
            return
        acknowledge_quickly(self._subscriber)
        now = time.monotonic()
        for first, body in self._reader.feed(data):
            if first & 0xF0 == 0x30:
                waiting = self._beats.get(body[2 : 2 + (body[0] << 8 | body[1])])
                if waiting:
                    self.times.append(now - waiting.popleft())
                    self.replies += 1

    def nap(self, seconds: float) -> None:
        """Wait so long, when it is not flat out only until something is heard."""
        if self._subscriber is not None and self._plan.rate:
            select.select([self._subscriber], [], [], seconds)
        else:
            time.sleep(min(seconds, _NAP_S))

    def close(self) -> None:
        """Disconnect."""
        for sock in (self._publisher, self._subscriber):
            if sock is not None:
                sock.close()


def _room(terminals: Terminals, plan: Plan, began: float) -> tuple[int, float]:
    """How many may be sent now, and for how long to wait if none."""
    if not plan.rate:
        if not plan.waits:
            return plan.window - (terminals.numbered - terminals.acknowledged), _NAP_S
        return min(plan.window - (terminals.effects - terminals.done()), _QUEUE - terminals.span()), _NAP_S
    due = (time.monotonic() - began) * plan.rate - terminals.numbered
    return int(due) + (due > 0), max(-due / plan.rate, 0.0001)


def run(plan: Plan) -> Sample:
    """Carry out a plan."""
    board = Board(Path(plan.board))
    terminals = Terminals(plan, board)
    try:
        began = time.monotonic()
        start, end = began + plan.warm_up, began + plan.warm_up + plan.seconds
        marked: tuple[float, int, float, float, int] | None = None
        while True:
            now = time.monotonic()
            if marked is None and now >= start:
                terminals.times.clear()
                marked = now, terminals.done(), cpu_seconds(plan.watch), time.process_time(), terminals.numbered
            over = marked is not None and (terminals.numbered - marked[4] >= plan.count if plan.count else now >= end)
            if over or terminals.numbered == CAPACITY:
                break
            room, wait = _room(terminals, plan, began)
            if plan.count and marked is not None:
                room = min(room, marked[4] + plan.count - terminals.numbered)
            if room > 0:
                terminals.send(room)
            else:
                terminals.nap(min(wait, end - now if not plan.count else wait))
            terminals.listen()
        assert marked is not None
        if plan.count:
            _wait(terminals, plan, time.monotonic() + plan.patience)
        seconds = time.monotonic() - marked[0]
        effects = terminals.done() - marked[1]
        cpu, own = cpu_seconds(plan.watch) - marked[2], time.process_time() - marked[3]
        _wait(terminals, plan, time.monotonic() + plan.patience)
    finally:
        terminals.close()
    arrived = [
        board.arrived[number] - board.sent[number] for number in terminals.record_numbers if board.arrived[number]
    ]
    return Sample(
        sent=terminals.effects,
        lost=max(terminals.effects - terminals.done(), 0) if plan.waits else 0,
        seconds=round(seconds, 4),
        rate=round(effects / seconds, 1),
        cpu_us=round(cpu / effects * 1e6, 1) if effects else 0.0,
        own_cpu=round(own, 4),
        repeats=board.repeats,
        swapped=board.swapped,
        posts=spread(arrived),
        replies=spread(terminals.times),
    )


def _wait(terminals: Terminals, plan: Plan, deadline: float) -> None:
    """Until all that was sent had its effect, or was acknowledged if nobody waits for effects."""
    while time.monotonic() < deadline:
        terminals.listen()
        if terminals.done() >= terminals.effects if plan.waits else terminals.acknowledged >= terminals.numbered:
            return
        time.sleep(_NAP_S)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(run(msgspec.json.decode(sys.argv[1], type=Plan))))
