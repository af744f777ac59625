"""A folder of flow files for one test, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flowengine import plugins
from flowengine.flowfile import project
from flowengine.flowfile.problems import Problem
from flowengine.flowfile.project import Loaded
from flowengine.plugins import Registry

REGISTRY = plugins.load()
SHARED = """\
connections:
  gate: {mqtt: {url: "mqtt://broker"}}
  web: {http-listener: {listen: "127.0.0.1:6699"}}
"""
HEAD = """\
flow: a
chains:
  c:
    - mqtt-in: {connection: gate, topic: "t/{device}"}
"""
"""A flow that is good once an action or a log stands below."""
MARK = "¦"


def load(
    folder: Path,
    files: Mapping[str, str | bytes],
    environ: Mapping[str, str] | None = None,
    registry: Registry = REGISTRY,
) -> Loaded:
    """What a folder with these files gives."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return project.load([folder], registry, environ=environ or {})


def said(
    folder: Path, text: str | bytes, environ: Mapping[str, str] | None = None, registry: Registry = REGISTRY
) -> list[Problem]:
    """What is said of one flow that stands beside the shared connections `gate` and `web`."""
    return load(folder, {"a.yaml": text, "shared.yaml": SHARED}, environ, registry).problems


def short(folder: Path, problem: Problem) -> str:
    """The headline, with the path as a person in that folder sees it."""
    return problem.headline.replace(f"{folder.as_posix()}/", "")


def marked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and the line and column of each, from 1."""
    places = []
    clean = ""
    for piece in text.split(MARK)[:-1]:
        clean += piece
        places.append((clean.count("\n") + 1, len(clean) - clean.rfind("\n")))
    return clean + text.split(MARK)[-1], places
