"""What one writes by hand for speed on the packages that flowengine stands on, with no engine in between.

It reads MQTT 5 through paho from one buffer, reads and writes JSON with orjson, posts with a session of aiohttp, and confirms to
the broker once the backend has a record, of one device in order. It does not retry, store or count: what the backend refuses is
lost.

With TUNED=1 it is the limit: it decodes with msgspec into the fields that are passed on and no others, copies those as bytes, and
speaks MQTT 3.1.1, which costs paho some 20 microseconds less a message and leaves how many are in flight to the broker.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from collections import deque
from typing import Any

import aiohttp
import msgspec
import orjson
import paho.mqtt.client as mqtt
import uvloop
from aiohttp import web
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

BROKER_PORT = int(os.environ["BROKER_PORT"])
BACKEND_URL = os.environ["BACKEND_URL"]
LISTEN_PORT = int(os.environ["LISTEN_PORT"])
TUNED = os.environ.get("TUNED", "0") == "1"
ORDERED = os.environ.get("ORDERED", "1") == "1"
DEVICE = "123456789"
WINDOW = 512
WORKERS = 32
READ_BYTES = 256 * 1024
HOUR = 3600


class Record(msgspec.Struct):
    """What is passed on of a record, as the bytes that came."""

    num: msgspec.Raw
    name: msgspec.Raw
    liveImageBase64: msgspec.Raw
    verifiedCode: msgspec.Raw
    time: msgspec.Raw
    personType: msgspec.Raw


class Report(msgspec.Struct):
    """What a terminal sends."""

    cmd: str
    data: msgspec.Raw = msgspec.Raw(b"[]")


class Post(msgspec.Struct):
    """What the backend gets."""

    user_id: msgspec.Raw
    name: msgspec.Raw
    img: msgspec.Raw
    verifiedCode: msgspec.Raw
    bot_time: msgspec.Raw
    personType: msgspec.Raw


def read_plainly(payload: bytes) -> tuple[str, list[bytes]]:
    """What a message is, and the bodies to post."""
    report = orjson.loads(payload)
    if report["cmd"] != "verifiedRecordU":
        return report["cmd"], []
    return report["cmd"], [
        orjson.dumps(
            {
                "user_id": record["num"],
                "name": record["name"],
                "img": record["liveImageBase64"],
                "verifiedCode": record["verifiedCode"],
                "bot_time": record["time"],
                "personType": record["personType"],
            }
        )
        for record in report["data"]
    ]


def read_tuned(payload: bytes) -> tuple[str, list[bytes]]:
    """The same, without looking at what is passed on."""
    report = read_report(payload)
    if report.cmd != "verifiedRecordU":
        return report.cmd, []
    return report.cmd, [
        write(Post(r.num, r.name, r.liveImageBase64, r.verifiedCode, r.time, r.personType))
        for r in read_records(report.data)
    ]


read = read_tuned if TUNED else read_plainly
read_report = msgspec.json.Decoder(Report).decode
read_records = msgspec.json.Decoder(list[Record]).decode
write = msgspec.json.Encoder().encode


class BufferedClient(mqtt.Client):
    """paho's client, reading from one buffer instead of three to four times a packet."""

    _data = b""
    _at = 0

    @property
    def buffered(self) -> bool:
        return self._at < len(self._data)

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.buffered:
            self._data, self._at = b"", 0
            self._data = super()._sock_recv(READ_BYTES)
        data = self._data[self._at : self._at + bufsize]
        self._at += len(data)
        return data


class Gate:
    """Terminals on one side, the backend on the other."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.loop = asyncio.get_running_loop()
        self.session = session
        self.lanes: dict[Any, deque[tuple[list[bytes], int]]] = {}
        self.ready: asyncio.Queue[Any] = asyncio.Queue()
        self.arrived: dict[int, bool] = {}
        self.published: dict[int, asyncio.Future[None]] = {}
        self.second = 0
        self.reply = b""
        self.client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            "bench-limit",
            clean_session=False if TUNED else None,
            protocol=MQTTProtocolVersion.MQTTv311 if TUNED else MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        self.client.max_inflight_messages_set(WINDOW)
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.on_publish = self.on_publish
        self.client.on_socket_open = self.on_socket_open
        self.client.on_socket_close = self.on_socket_close
        self.client.on_socket_register_write = self.on_socket_register_write
        self.client.on_socket_unregister_write = self.on_socket_unregister_write

    def connect(self) -> None:
        if TUNED:
            self.client.connect("127.0.0.1", BROKER_PORT)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = HOUR
        properties.ReceiveMaximum = WINDOW
        self.client.connect("127.0.0.1", BROKER_PORT, clean_start=False, properties=properties)

    def on_socket_open(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.loop.add_reader(sock, self.on_readable)

    def on_socket_close(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self.loop.remove_reader(sock)

    def on_socket_register_write(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self.loop.add_writer(sock, client.loop_write)

    def on_socket_unregister_write(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self.loop.remove_writer(sock)

    def on_readable(self) -> None:
        self.client.loop_read()
        while self.client.buffered:
            self.client.loop_read()

    def on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe("+", 1)

    def on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        topic, mid = message.topic, message.mid
        if topic.startswith("fungxi_") and topic.endswith("_upLink"):
            cmd, bodies = read(bytes(message.payload))
            if bodies:
                self.arrived[mid] = False
                self.hand_over(topic if ORDERED else mid, bodies, mid)
                return
            if cmd == "heartU":
                client.publish(topic[:-6] + "downLink", self.heartbeat_reply())
        if message.qos:
            self.arrived[mid] = False
            self.acknowledge(mid)

    def acknowledge(self, mid: int) -> None:
        """PUBACKs go out in the order of arrival, as MQTT 3.1.1 section 4.6 asks."""
        self.arrived[mid] = True
        for first in list(itertools.takewhile(self.arrived.get, self.arrived)):
            del self.arrived[first]
            self.client.ack(first, 1)

    def heartbeat_reply(self) -> bytes:
        second = int(time.time())
        if second != self.second:
            self.second = second
            self.reply = write({"cmd": "heartD", "time": time.strftime("%Y-%m-%d %H:%M:%S")})
        return self.reply

    def hand_over(self, device: Any, bodies: list[bytes], mid: int) -> None:
        lane = self.lanes.get(device)
        if lane is None:
            self.lanes[device] = deque([(bodies, mid)])
            self.ready.put_nowait(device)
        else:
            lane.append((bodies, mid))

    async def work(self) -> None:
        """Post the next record of the device that has waited longest, for ever."""
        while True:
            device = await self.ready.get()
            lane = self.lanes[device]
            bodies, mid = lane.popleft()
            for body in bodies:
                await self.post(body)
            self.acknowledge(mid)
            if lane:
                self.ready.put_nowait(device)
            else:
                del self.lanes[device]

    async def post(self, body: bytes) -> None:
        try:
            async with self.session.post(BACKEND_URL, data=body) as response:
                await response.read()
                if response.status >= 300:
                    print(f"the backend answers {response.status}", file=sys.stderr)
        except aiohttp.ClientError as error:
            print(error, file=sys.stderr)

    async def on_command(self, request: web.Request) -> web.Response:
        """POST / sends its body to the terminal, and answers once the broker has it."""
        command = msgspec.json.decode(await request.read())
        text = command if isinstance(command, str) else write(command)
        info = self.client.publish(f"fungxi_{DEVICE}_downLink", text, 1)
        taken = self.published[info.mid] = self.loop.create_future()
        await taken
        return web.Response(text="ok")

    def on_publish(self, client: mqtt.Client, userdata: Any, mid: int, *_: Any) -> None:
        taken = self.published.pop(mid, None)  # none for a heartbeat's reply, which is over when it is written
        if taken is not None:
            taken.set_result(None)


async def main() -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Content-Type": "application/json"},
    ) as session:
        gate = Gate(session)
        app = web.Application()
        app.router.add_post("/", gate.on_command)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", LISTEN_PORT).start()
        workers = [asyncio.create_task(gate.work()) for _ in range(WORKERS)]
        gate.connect()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            gate.loop.add_signal_handler(number, stop.set)
        while not stop.is_set():
            gate.client.loop_misc()
            try:
                await asyncio.wait_for(stop.wait(), 1)
            except TimeoutError:
                continue
        for worker in workers:
            worker.cancel()
        gate.client.disconnect()
        await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
