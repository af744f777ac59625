"""mqttwarn, which passes MQTT messages on to services, here to HTTP; installed by pip from a lock into a venv of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import ClassVar

from benchmarks.systems.system import CACHE, OPPONENTS, Ability, NotInstalled, Place, System

_FILES = OPPONENTS / "mqttwarn"
_VENV = CACHE / "mqttwarn"
_SETTINGS = """
[defaults]
hostname = '127.0.0.1'
port = {port}
clientid = 'bench-mqttwarn'
cleansession = False
protocol = 4
lwt = None
loglevel = WARN
filteredmessagesloglevel = DEBUG
functions = 'facegate.py'
launch = http
num_workers = 32

[config:http]
timeout = 60
targets = {{
    'backend': ['post', '{backend}', ['user_id', 'name', 'img', 'verifiedCode', 'bot_time', 'personType'], None, True],
    }}

[uplink]
topic = +
qos = 1
filter = other_than_record()
alldata = fields()
format = post
targets = http:backend
"""


class MqttWarn(System):
    """It acknowledges a message when it gets it; 32 threads post without regard to order, each time over a new connection."""

    name = "mqttwarn"
    abilities: ClassVar[frozenset[Ability]] = frozenset({"records", "many devices", "session"})

    def install(self) -> None:
        lock = _FILES / "requirements.lock"
        done = _VENV / ".installed"
        if done.exists() and done.read_bytes() == lock.read_bytes():
            return
        shutil.rmtree(_VENV, ignore_errors=True)
        pip = [str(_VENV / "bin" / "python"), "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", str(_VENV)],
            [*pip, "install", "--require-hashes", "--requirement", str(lock)],
        ):
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                raise NotInstalled(f"mqttwarn: {made.stderr.strip()[-500:]}")
        shutil.copy(lock, done)

    def version(self) -> str:
        pins = (_FILES / "requirements.lock").read_text(encoding="utf-8")
        named = dict(line.split(" ")[0].split("==") for line in pins.splitlines() if "==" in line and line[0] != " ")
        return f"mqttwarn {named['mqttwarn']}, paho-mqtt {named['paho-mqtt']}"

    def command(self, place: Place) -> list[str]:
        shutil.copy(_FILES / "facegate.py", place.folder)
        settings = _SETTINGS.format(port=place.broker_port, backend=place.backend)
        (place.folder / "mqttwarn.ini").write_text(settings, encoding="utf-8")
        return [str(_VENV / "bin" / "mqttwarn")]

    def env(self, place: Place) -> dict[str, str]:
        return {"MQTTWARNINI": str(place.folder / "mqttwarn.ini"), "PYTHONPATH": os.devnull}
