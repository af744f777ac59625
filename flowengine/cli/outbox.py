"""`flowengine outbox`: what waits on the disk for a far end, and what to do where it waits in vain."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from flowengine.cli.asking import ask, confirm, engine_runs, state_option, yes_option
from flowengine.cli.common import json_option
from flowengine.cli.dead import size
from flowengine.delivery.clearing import Meant
from flowengine.i18n import _
from flowengine.logs import shorten
from flowengine.runtime.requests import LaneShown, OutboxDrop, OutboxList, OutboxMove

_LANES = 20
_PREVIEW = 5


class _Outbox(click.Group):
    """`outbox` alone, or with options only, is `outbox list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` in front where no command stands there."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Outbox,
    short_help=_("The outbox: list, move, drop"),
    help=_(
        "The outbox: messages on the disk that wait for a far end. The engine may run or not. Without a command: list."
    ),
)
def outbox() -> None:
    """The outbox."""


def lane_option(command: Any) -> Any:
    """The option --lane."""
    return click.option("--lane", metavar="NAME", help=_("Only this lane: usually the device."))(command)


@outbox.command(
    "list",
    short_help=_("What waits, by action and lane"),
    help=_(
        "What waits, by action and lane: how many, since when, how much, the next attempt, why the last one failed."
    ),
)
@click.argument("action", required=False, metavar="[ACTION]")
@lane_option
@click.option("--all", "everything", is_flag=True, help=_("Every lane, not only those that wait longest."))
@state_option
@json_option
def list_(action: str | None, lane: str | None, everything: bool, state: Path, as_json: bool) -> None:
    """List the outbox."""
    lanes = _lanes(state, action, lane)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(lanes)).decode())
        return
    if not lanes:
        click.echo(_("nothing waits in the outbox"))
    for name, group in itertools.groupby(lanes, key=lambda lane: lane.action):
        _show(name, list(group), None if everything else _LANES)


@outbox.command(
    "move",
    short_help=_("Give messages to another action"),
    help=_(
        "Give what waits for an action to another one, as after a node was renamed. Names are flow/chain/name, as listed."
    ),
)
@click.argument("action", metavar="FROM")
@click.argument("to", metavar="TO")
@lane_option
@yes_option
@state_option
def move(action: str, to: str, lane: str | None, yes: bool, state: Path) -> None:
    """Move rows to another action."""
    if to.count("/") != 2:
        raise click.UsageError(_("'{name}' is no action: they are named flow/chain/name").format(name=to))
    lanes = _previewed(state, action, lane)
    if not lanes:
        return
    if not engine_runs(state):
        click.echo(
            _("no engine runs here: whether there is an action '{name}' will show when it starts").format(name=to)
        )
    rows = sum(lane.rows for lane in lanes)
    confirm(_("Move {n} messages to {to}?").format(n=rows, to=to), yes)
    meant = Meant(action, lane, max(lane.last_seq for lane in lanes))
    done, duplicates = _run(state, OutboxMove(meant, to), rows, _("moving"))
    click.echo(_("{n} messages were moved").format(n=done - duplicates))
    if duplicates:
        click.echo(_("{n} were there already").format(n=duplicates))
    _say_rest(rows - done)


@outbox.command(
    "drop", short_help=_("Delete messages"), help=_("Delete what waits for an action, after showing some and asking.")
)
@click.argument("action", metavar="ACTION")
@lane_option
@yes_option
@state_option
def drop(action: str, lane: str | None, yes: bool, state: Path) -> None:
    """Delete rows."""
    lanes = _previewed(state, action, lane)
    if not lanes:
        return
    rows = sum(lane.rows for lane in lanes)
    confirm(_("Delete {n} messages that were not delivered?").format(n=rows), yes)
    meant = Meant(action, lane, max(lane.last_seq for lane in lanes))
    done, _duplicates = _run(state, OutboxDrop(meant), rows, _("deleting"))
    click.echo(_("{n} messages were deleted").format(n=done))
    _say_rest(rows - done)


def _run(state: Path, request: OutboxMove | OutboxDrop, rows: int, label: str) -> tuple[int, int]:
    done = duplicates = 0
    with click.progressbar(length=rows, label=label) as bar:
        for piece in ask(state, request):
            bar.update(piece.get("done", 0))
            done += piece.get("done", 0)
            duplicates += piece.get("duplicates", 0)
    return done, duplicates


def _say_rest(rest: int) -> None:
    if rest > 0:
        click.echo(_("{n} were not: they were in flight, or went out meanwhile").format(n=rest))


def _lanes(state: Path, action: str | None, lane: str | None) -> list[LaneShown]:
    return [msgspec.convert(piece, LaneShown) for piece in ask(state, OutboxList(action, lane))]


def _previewed(state: Path, action: str, lane: str | None) -> list[LaneShown]:
    lanes = _lanes(state, action, lane)
    if lanes:
        _show(action, lanes, _PREVIEW)
        return lanes
    click.echo(_("nothing waits there"))
    known = sorted({lane.action for lane in _lanes(state, None, None)})
    if known:
        click.echo(_("messages wait for: {actions}").format(actions=", ".join(known)))
    return []


def _show(action: str, lanes: list[LaneShown], limit: int | None) -> None:
    rows, count = sum(lane.rows for lane in lanes), sum(lane.bytes for lane in lanes)
    text = _("{rows} messages, {size}, the oldest {age} old").format(rows=rows, size=size(count), age=_age(lanes))
    owner = click.style(" " + _("no flow that runs has this action"), fg="red") if lanes[0].owner is False else ""
    click.echo(f"{click.style(action, bold=True)}  {text}{owner}")
    for lane in lanes[:limit]:
        parts = [_("{rows} messages, {age}").format(rows=lane.rows, age=_age([lane])), size(lane.bytes)]
        if lane.next_try is not None:
            parts.append(_("next attempt in {time}").format(time=_length(lane.next_try)))
        if lane.error:
            parts.append(shorten(lane.error, 100))
        click.echo(f"  {lane.lane}  {'; '.join(parts)}")
    if limit is not None and len(lanes) > limit:
        click.echo("  " + _("and {n} more lanes").format(n=len(lanes) - limit))


def _age(lanes: list[LaneShown]) -> str:
    return _length(max(0.0, time.time() - min(lane.oldest for lane in lanes)))


def _length(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
