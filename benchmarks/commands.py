"""Clients that post commands, each over a connection of its own that stays open, one command after another.

    python -m benchmarks.commands PLAN          # PLAN is a Plan as JSON; prints a Sample as JSON

A command counts once it was answered with a 2xx; it is lost if it was and no terminal got it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import cast

import msgspec
import uvloop

from benchmarks.packets import Reader, opened
from benchmarks.payloads import around_number, downlink, number_in
from benchmarks.processes import cpu_seconds
from benchmarks.samples import Sample, spread

_ARRIVAL_S = 5.0


class Plan(msgspec.Struct, frozen=True):
    """What to post.

    broker_port: where terminals listen. port: where commands come in. as_string: each as a JSON string instead of an object.
    watch: processes whose CPU is counted.
    """

    broker_port: int
    port: int
    batch: int
    clients: int = 16
    as_string: bool = False
    warm_up: float = 0.3
    seconds: float = 1.0
    watch: tuple[int, ...] = ()


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        head = head.lower()
        if not found or not _complete(head, body):
            return
        self._data = b""
        self._post.answered(self._number, head.split(b" ", 2)[1])
        if b"\r\nconnection: close" in head:
            self._transport.close()  # so does the server; the next command goes over a new connection
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._post.over:
            self._post.open -= 1
        else:
            self._post.connect()

    def _next(self) -> None:
        if self._post.over:
            self._transport.close()
        else:
            self._number = self._post.next()
            self._transport.write(self._post.request(self._number))


def _complete(head: bytes, body: bytes) -> bool:
    if b"\r\ntransfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)


class Post:
    """Makes requests and keeps their times."""

    def __init__(self, plan: Plan) -> None:
        before, after = around_number("command", plan.batch)
        if plan.as_string:
            before, after = (json.dumps(part.decode())[1:-1].encode() for part in (before, after))
            before, after = b'"' + before, after + b'"'
        size = len(before) + 8 + len(after)
        head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        self._before, self._after = head.encode() + before, after
        self.sent: list[float] = []
        self.good: set[int] = set()
        self.times: list[float] = []
        self.arrived: set[int] = set()
        self.repeats = 0
        self.over = False
        self.open = plan.clients
        self._port = plan.port
        self._connecting: set[asyncio.Task[object]] = set()

    def connect(self) -> None:
        """Open a connection and post over it."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: Client(self), "127.0.0.1", self._port)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def next(self) -> int:
        """The number of the next command."""
        self.sent.append(time.monotonic())
        return len(self.sent) - 1

    def request(self, number: int) -> bytes:
        """The request with this command."""
        return b"%b%08d%b" % (self._before, number, self._after)

    def answered(self, number: int, status: bytes) -> None:
        """The command was answered."""
        if status[:1] == b"2":
            self.good.add(number)
            self.times.append(time.monotonic() - self.sent[number])

    def hear(self, payload: bytes) -> None:
        """A terminal got a command."""
        found = number_in(payload)
        if found is not None:
            self.repeats += found[1] in self.arrived
            self.arrived.add(found[1])


async def run(plan: Plan) -> Sample:
    """Carry out a plan."""
    loop = asyncio.get_running_loop()
    post = Post(plan)
    ear = opened(plan.broker_port, f"bench-terminal-{os.getpid()}", [downlink(0)])
    ear.setblocking(False)
    reader = Reader()

    def listen() -> None:
        for first, body in reader.feed(ear.recv(1 << 18)):
            if first & 0xF0 == 0x30:
                post.hear(body)

    loop.add_reader(ear, listen)
    for _ in range(plan.clients):
        post.connect()
    await asyncio.sleep(plan.warm_up)
    start, before, cpu, own = time.monotonic(), len(post.times), cpu_seconds(plan.watch), time.process_time()
    await asyncio.sleep(plan.seconds)
    seconds, count = time.monotonic() - start, len(post.times) - before
    cpu, own = cpu_seconds(plan.watch) - cpu, time.process_time() - own
    post.over = True
    deadline = time.monotonic() + _ARRIVAL_S
    while (post.open or post.good - post.arrived) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    loop.remove_reader(ear)
    ear.close()
    return Sample(
        sent=len(post.sent),
        lost=len(post.good - post.arrived),
        seconds=round(seconds, 4),
        rate=round(count / seconds, 1),
        cpu_us=round(cpu / count * 1e6, 1) if count else 0.0,
        own_cpu=round(own, 4),
        repeats=post.repeats,
        replies=spread(post.times),
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))))
