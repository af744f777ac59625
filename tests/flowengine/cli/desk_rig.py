"""A flow between HTTP and a backend that fails as it is told, for the commands `dead` and `outbox`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import aiohttp

from flowengine_simulate import Backend, Taken
from flowengine_simulate.backend import Faults
from tests.flowengine.cli.commands import flowengine
from tests.support.broker import free_port
from tests.support.engine import Engine

FLOW = """
flow: gate
params:
  backend: {{env: BACKEND_URL}}
connections:
  door: {{http-listener: {{listen: "127.0.0.1:{port}"}}}}
chains:
  records:
    - http-in: {{connection: door, method: POST, path: "/{{device}}", reply: {{when: stored}}}}
    - http-post: {{url: "${{backend}}"}}
      name: {name}
"""
ACTION = "gate/records/post"


class Rig:
    """The engine, its backend, and what a person types about them."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.folder = folder
        self.backend = backend
        self.port = free_port()
        self.flow = folder / "gate.yaml"
        self.write("post")
        self.engine = Engine(self.flow, state=folder / ".flowengine", env={"BACKEND_URL": backend.url})

    def write(self, name: str) -> None:
        """Write the flow, with this name for the node that posts."""
        self.flow.write_text(FLOW.format(port=self.port, name=name), encoding="utf-8")

    async def send(self, numbers: Sequence[int], device: str = "7", **more: Any) -> list[int]:
        """Post records; the statuses of the answers."""
        async with aiohttp.ClientSession() as session:
            statuses = []
            for number in numbers:
                url = f"http://127.0.0.1:{self.port}/{device}"
                async with session.post(url, json={"n": number, **more}) as response:
                    statuses.append(response.status)
            return statuses

    async def types(self, *words: str, status: int = 0) -> CompletedProcess[str]:
        """`flowengine WORDS` in the engine's folder, without a terminal; it must end with this status."""
        done = await asyncio.to_thread(flowengine, *words, cwd=self.folder)
        assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
        return done


@asynccontextmanager
async def rig(folder: Path, fail: int) -> AsyncIterator[tuple[Rig, list[Taken]]]:
    """A rig whose backend fails with this status, and what the backend took, in order."""
    taken: list[Taken] = []
    async with Backend(on_record=lambda record: taken.append(record) if record.status == 200 else None) as backend:
        backend.faults = Faults(fail=fail)
        made = Rig(folder, backend)
        async with made.engine:
            yield made, taken
