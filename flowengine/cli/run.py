"""`flowengine run`: check the flow files, run them until a signal, print the books."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import structlog

from flowengine import logs
from flowengine.cli.common import (
    DEFAULT_STATE,
    DURATION,
    EX_CONFIG,
    EX_IOERR,
    default_flows,
    flows_argument,
    plugins_option,
    show_broken,
    show_problems,
    with_local_plugins,
)
from flowengine.errors import StartError
from flowengine.flowfile import project
from flowengine.flowfile.model import Project
from flowengine.i18n import _
from flowengine.runtime.engine import Engine

_KEPT_BYTES = 16 << 20
_SWITCH = 0.0005
"""Seconds after which the event loop gives the interpreter to a thread that waits for it. With Python's 5 ms, a flood that keeps
the loop busy fills the memory before it is on the disk."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_STILL = 5.0
"""Seconds after which it is said what is not ready yet."""


@click.command(
    short_help=_("Run flow files"),
    help=_("Run flow files until Ctrl-C or SIGTERM, then print the books. Exits with 78 if a flow file has an error."),
)
@flows_argument
@plugins_option
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_STATE,
    show_default=True,
    metavar="DIR",
    help=_("The folder for what must outlive a restart."),
)
@click.option(
    "--retention",
    type=DURATION,
    default="30d",
    show_default=True,
    metavar="TIME",
    help=_("How long dead letters are kept, and how long messages wait in the outbox before they are dead letters."),
)
@click.option(
    "--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True, help=_("How much is said.")
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    show_default=True,
    help=_("Text for people, JSON for programs; auto: text on a terminal."),
)
def run(
    flows: tuple[Path, ...],
    plugin_folders: tuple[Path, ...],
    state: Path,
    retention: float,
    log_level: str,
    log_format: str,
) -> None:
    """Run flow files."""
    logs.configure(log_level, json=None if log_format == "auto" else log_format == "json")
    paths = default_flows(flows)
    registry = with_local_plugins(paths, plugin_folders)
    loaded = project.load(paths, registry, state=state)
    show_broken(registry)
    show_problems(loaded.problems)
    if loaded.errors:
        click.echo(_("errors: {n}; nothing was started").format(n=len(loaded.errors)), err=True)
        sys.exit(EX_CONFIG)
    if not loaded.project.flows:
        click.echo(_("these files hold no flow that runs (a template runs where a flow uses it)"), err=True)
        sys.exit(EX_CONFIG)
    sys.exit(_loop(loaded.project, state, retention))


def _loop(flows: Project, state: Path, retention: float) -> int:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(flows, state, retention))


async def _run(flows: Project, state: Path, retention: float) -> int:
    log: Any = structlog.get_logger("flowengine")
    stop = asyncio.Event()
    try:
        engine = Engine(flows, state, retention=retention)
    except StartError as error:
        log.error("cannot start", reason=str(error))
        return 1

    def on_signal(name: str) -> None:
        if stop.is_set():
            log.warning("stopping at once", signal=name)
            engine.hurry.set()
        else:
            log.info("stopping", signal=name)
        stop.set()

    _on_signals(on_signal, engine)
    try:
        await engine.start()
    except StartError as error:
        log.error("cannot start", reason=str(error))
        await engine.stop()
        return 1
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH)
    _keep_freed_memory()
    ready = asyncio.create_task(_say_ready(engine, log))
    await asyncio.wait(
        [asyncio.create_task(stop.wait()), asyncio.create_task(engine.failed.wait())],
        return_when=asyncio.FIRST_COMPLETED,
    )
    ready.cancel()
    await engine.stop()
    engine.log_books()
    return EX_IOERR if engine.failed.is_set() else 0


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory of up to 16 MB for what comes next (mallopt(3)).

    It would map each block of more than 128 KB anew, and give back what is free at the end of its heap: the kernel clears every
    page of both, which costs a record of 60 KB an eighth of its time.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        c_library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _on_signals(on_signal: Callable[[str], None], engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM"):
        try:
            loop.add_signal_handler(getattr(signal, name), on_signal, name)
        except NotImplementedError:  # Windows
            signal.signal(getattr(signal, name), functools.partial(_from_outside, loop, on_signal, name))
    if hasattr(signal, "SIGUSR1"):
        loop.add_signal_handler(signal.SIGUSR1, engine.log_books)


def _from_outside(loop: asyncio.AbstractEventLoop, on_signal: Callable[[str], None], name: str, *_: Any) -> None:
    loop.call_soon_threadsafe(on_signal, name)


async def _say_ready(engine: Engine, log: Any) -> None:
    """The one `ready` line; until then, what is waited for."""
    waiting = asyncio.create_task(engine.until_ready())
    while not waiting.done():
        await asyncio.wait([waiting], timeout=_STILL)
        if not waiting.done():
            log.warning("not ready yet", waiting_for=engine.not_ready())
    left_out = [run.flow.name for run in engine.flows if run.failed_to_start]
    flows = [run.flow.name for run in engine.running()]
    more = {"left_out": left_out} if left_out else {}
    log.info("ready", flows=flows, listening=waiting.result(), **more)
