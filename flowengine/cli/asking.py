"""How `dead` and `outbox` reach a state folder: by the engine's control socket, or by the file where none runs."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from flowengine.cli.common import DEFAULT_STATE
from flowengine.errors import OptionError, StartError
from flowengine.i18n import _
from flowengine.options import Duration
from flowengine.runtime import control, stopped
from flowengine.runtime.requests import AnyRequest, Refused, answer

EX_USAGE = 2


def state_option(command: Any) -> Any:
    """The option --state of a command that looks into a folder."""
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_STATE,
        show_default=True,
        metavar="DIR",
        help=_("The state folder of the engine, running or not."),
    )(command)


def yes_option(command: Any) -> Any:
    """The option --yes."""
    return click.option("--yes", is_flag=True, help=_("Do not ask: for scripts."))(command)


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A time: ISO 8601, local where it names no zone, or how long ago. Its value is seconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds since the epoch; click's BadParameter for what is no time."""
        try:
            return time.time() - Duration(value).seconds
        except OptionError:
            pass
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            text = _("not a time: write it as 2025-01-31T08:00, or how long ago, as 2h or 3d")
            self.fail(text, param, ctx)


def ask(state: Path, request: AnyRequest) -> Iterator[dict[str, Any]]:
    """The answer, piece by piece; ends the command with a message where there is none."""
    if not (state / "flowengine.db").exists():
        text = _("there is no state folder {path}: name that of your engine with --state DIR")
        raise click.UsageError(text.format(path=state))
    try:
        connection = _connected(state)
        yield from _asked_engine(connection, request) if connection is not None else _asked_file(state, request)
    except (Refused, StartError, sqlite3.Error, OSError) as error:
        raise click.ClickException(str(error)) from None


def engine_runs(state: Path) -> bool:
    """Whether an engine answers for this folder."""
    connection = _connected(state)
    if connection is not None:
        connection.close()
    return connection is not None


def confirm(question: str, yes: bool) -> None:
    """Go on only if a person says so; without one, and without --yes, end with 2."""
    if yes:
        return
    if not sys.stdin.isatty():
        click.echo(_("nothing was changed: there is nobody to ask; say --yes"), err=True)
        sys.exit(EX_USAGE)
    click.confirm(question, abort=True)


def _connected(state: Path) -> socket.socket | None:
    if not hasattr(socket, "AF_UNIX"):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with control.short(state / control.NAME) as address:
            connection.connect(address)
    except OSError:  # none, or one that a killed engine left: the lock says which
        connection.close()
        return None
    return connection


def _asked_engine(connection: socket.socket, request: AnyRequest) -> Iterator[dict[str, Any]]:
    with closing(connection), connection.makefile("rwb") as stream:
        stream.write(msgspec.json.encode(request) + b"\n")
        stream.flush()
        for line in stream:
            piece: dict[str, Any] = json.loads(line)
            if "end" not in piece:
                yield piece
            elif "error" in piece:
                raise click.ClickException(piece["error"])
            else:
                return
    raise click.ClickException(_("the engine went away before it had answered"))


def _asked_file(state: Path, request: AnyRequest) -> Iterator[dict[str, Any]]:
    with stopped.opened(state) as desk, asyncio.Runner() as runner:
        pieces = answer(desk, request)
        try:
            while (piece := runner.run(_next(pieces))) is not None:
                yield json.loads(msgspec.json.encode(piece))
        finally:
            runner.run(pieces.aclose())


async def _next(pieces: AsyncGenerator[Any, None]) -> Any:
    return await anext(pieces, None)
