"""Rates of the flow beside those of the script it replaces, taken in turn on this machine.

    python -m benchmarks.compare_script                       # from the top of the tree, with the test dependencies
    python -m benchmarks.compare_script --count 10000 --rounds 9

Records of 1.5 KB come at QoS 1 as fast as they are taken, with `--window` of them under way at most, since a Mosquitto
drops what goes beyond its queue for a QoS 0 subscriber such as the script. They end at a backend that answers at once.
The script knows one terminal, so it gets all from one; the flow is measured with one, where order binds it to a round trip
after another, and with fifty. Rates move with the machine and by half as much again from run to run: look at the ratios, and
at the spread of the rounds before believing in a difference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.differential.sides import DEVICE, SeedScript, record
from tests.support.broker import MosquittoBroker, free_port
from tests.support.engine import Engine
from tests.support.facegate import FLOW

Program = SeedScript | Engine
WARM_UP = 200
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Answering(asyncio.Protocol):
    """Counts requests and answers 200, at a small part of what a web server costs."""

    def __init__(self, count: Any) -> None:
        self._count = count
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(self._data) < end + 4 + size:
                return
            del self._data[: end + 4 + size]
            self._transport.write(_ANSWER)
            self._count.value += 1


def serve(port: int, count: Any) -> None:
    """The backend's process."""

    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Answering(count), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(forever())


class Load:
    """A client that sends as fast as what it sends is dealt with."""

    def __init__(self, broker: MosquittoBroker, window: int) -> None:
        self.replies = 0
        self._window = window
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(0)
        client.on_message = self._on_message
        client.connect(broker.host, broker.port)
        client.subscribe(f"fungxi_{DEVICE}_downLink")
        client.loop_start()

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.replies += 1

    def rate(self, messages: Iterator[tuple[str, bytes]], count: int, done: Callable[[], int]) -> float:
        """Send `count` messages; how many of them a second were `done`."""
        before, sent, start = done(), 0, time.perf_counter()
        while (through := done() - before) < count:
            if sent < count and sent - through < self._window:
                topic, payload = next(messages)
                self._client.publish(topic, payload, 1)
                sent += 1
            else:
                time.sleep(0.0002)
            if time.perf_counter() - start > 120:
                raise SystemExit(f"stuck: {through} of {count} came through within 120 s")
        return count / (time.perf_counter() - start)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def records(devices: list[str]) -> Iterator[tuple[str, bytes]]:
    """Records of 1.5 KB, of each device in turn."""
    number = time.time_ns()
    while True:
        number += 1
        body = {"cmd": "verifiedRecordU", "data": [record(str(number), liveImageBase64="/9j/" * 320)]}
        yield f"fungxi_{devices[number % len(devices)]}_upLink", json.dumps(body).encode()


def heartbeats() -> Iterator[tuple[str, bytes]]:
    """Heartbeats of the script's terminal."""
    while True:
        yield f"fungxi_{DEVICE}_upLink", b'{"cmd":"heartU"}'


@contextmanager
def backend() -> Iterator[tuple[str, Any]]:
    """A backend in a process of its own: its URL and its count."""
    count, port = multiprocessing.Value("q", 0, lock=False), free_port()
    process = multiprocessing.Process(target=serve, args=(port, count), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}/api/user/mqtt_msg", count
    finally:
        process.kill()
        process.join()


async def measure(name: str, devices: list[str], count: int, window: int) -> tuple[float, float]:
    """Start the program `name`, and take its rates of records and of heartbeat replies."""
    with tempfile.TemporaryDirectory() as folder, MosquittoBroker() as broker, backend() as (url, taken):
        port = free_port()
        program: Program
        if name == "script":
            place = {"MQTT_HOST": broker.host, "MQTT_PORT": str(broker.port), "LISTEN_PORT": str(port)}
            program = SeedScript({**place, "BACKEND_URL": url}, port)
        else:
            env = {"MQTT_URL": broker.url, "BACKEND_URL": url, "COMMAND_LISTEN": f"127.0.0.1:{port}"}
            program = Engine(FLOW, state=Path(folder, "state"), env=env)
        await program.start()
        load = Load(broker, window)
        try:
            await asyncio.sleep(0.5)  # the script asks for its topics when it says that it has them
            await asyncio.to_thread(load.rate, records(devices), WARM_UP, lambda: int(taken.value))
            by_records = await asyncio.to_thread(load.rate, records(devices), count, lambda: int(taken.value))
            by_replies = await asyncio.to_thread(load.rate, heartbeats(), count, lambda: load.replies)
        finally:
            load.close()
            await program.stop()
        return by_records, by_replies


def main() -> None:
    """Measure in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="records, and heartbeats, of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often all are measured in turn")
    parser.add_argument("--window", type=int, default=200, help="how many are under way at most")
    options = parser.parse_args()
    fifty = [str(int(DEVICE) + n) for n in range(50)]
    systems = {"script": [DEVICE], "flow": [DEVICE], "flow, 50 terminals": fifty}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for turn in range(options.rounds):
        for name, devices in systems.items():
            found = asyncio.run(measure(name.partition(",")[0], devices, options.count, options.window))
            rates[name].append(found)
            print(
                f"round {turn + 1}  {name:20} {found[0]:8.0f} records/s {found[1]:8.0f} heartbeat replies/s", flush=True
            )
    print("\nmedian of the rounds, and of the ratios to the script in the same round")
    for name, found_ in rates.items():
        cells = []
        for at in (0, 1):
            ratio = statistics.median(mine[at] / its[at] for mine, its in zip(found_, rates["script"], strict=True))
            cells.append(f"{statistics.median(each[at] for each in found_):8.0f} /s {ratio:6.2f} x")
        print(f"{name:20} records {cells[0]}   heartbeat replies {cells[1]}")


if __name__ == "__main__":
    main()
