"""Node-RED 4 with the equal flow, installed by npm from a lock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from benchmarks.systems.system import CACHE, OPPONENTS, Ability, NotInstalled, Place, System

_FILES = OPPONENTS / "nodered"
_HOME = CACHE / "node-red"


class NodeRed(System):
    """It acknowledges a message when it gets it, posts without regard to order, and answers a command before it is sent."""

    name = "node-red"
    abilities: ClassVar[frozenset[Ability]] = frozenset(
        {"records", "heartbeats", "commands", "many devices", "session"}
    )

    def install(self) -> None:
        lock = _FILES / "package-lock.json"
        done = _HOME / ".installed"
        if done.exists() and done.read_bytes() == lock.read_bytes():
            return
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise NotInstalled("Node-RED needs node and npm")
        _HOME.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(_FILES / name, _HOME)
        command = [
            npm,
            "--prefix",
            str(_HOME),
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel",
            "error",
        ]
        installed = subprocess.run(
            command, env={**os.environ, "NODE_USE_SYSTEM_CA": "1"}, capture_output=True, text=True
        )
        if installed.returncode:
            raise NotInstalled(f"npm: {installed.stderr.strip()[-500:]}")
        shutil.copy(lock, done)

    def version(self) -> str:
        package = json.loads((_HOME / "node_modules" / "node-red" / "package.json").read_text(encoding="utf-8"))
        node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
        return f"Node-RED {package['version']}, Node.js {node.removeprefix('v')}"

    def command(self, place: Place) -> list[str]:
        for name in ("settings.js", "flows.json"):
            shutil.copy(_FILES / name, place.folder)
        program = _HOME / "node_modules" / "node-red" / "red.js"
        return [_node(), str(program), "--userDir", str(place.folder), "--settings", str(place.folder / "settings.js")]

    def env(self, place: Place) -> dict[str, str]:
        return {
            "BROKER_PORT": str(place.broker_port),
            "BACKEND_URL": place.backend,
            "LISTEN_PORT": str(place.listen_port),
            "NODE_ENV": "production",
        }


def _node() -> str:
    found = shutil.which("node")
    if found is None:
        raise NotInstalled("Node-RED needs node")
    return str(Path(found).resolve())
