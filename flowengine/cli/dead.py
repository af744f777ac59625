"""`flowengine dead`: what was given up, and sending it again."""

from __future__ import annotations

import functools
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from flowengine.cli.asking import Moment, ask, confirm, state_option, yes_option
from flowengine.cli.common import json_option
from flowengine.delivery.desk import Chosen, Count
from flowengine.i18n import _
from flowengine.logs import shorten
from flowengine.runtime.requests import DeadCount, DeadDrop, DeadExport, DeadList, DeadReplay, Replayed

_PREVIEW = 5
_NO_TIME = "%Y-%m-%d %H:%M:%S"


@click.group(
    short_help=_("Dead letters: list, show, replay, drop, export"),
    help=_("Dead letters: messages that were given up, kept with the reason. The engine may run or not."),
)
def dead() -> None:
    """Dead letters."""


def chosen_options(command: Any) -> Any:
    """The numbers and the options that say which letters are meant; the command gets them as one `chosen`."""

    @functools.wraps(command)
    def with_chosen(
        *words: Any,
        numbers: tuple[int, ...],
        flow: str | None,
        node: str | None,
        device: str | None,
        reason: str | None,
        since: float | None,
        until: float | None,
        **more: Any,
    ) -> Any:
        chosen = Chosen(list(numbers) or None, flow, node, device, reason, since, until)
        return command(*words, chosen=chosen, **more)

    decorated: Any = with_chosen
    for option in (
        click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[NUMBER]..."),
        click.option("--flow", metavar="NAME", help=_("Only those of this flow.")),
        click.option("--node", metavar="NAME", help=_("Only those of this node: its name, or flow/chain/name.")),
        click.option("--device", metavar="NAME", help=_("Only those of this device.")),
        click.option("--reason", metavar="TEXT", help=_("Only those whose reason has this text in it.")),
        click.option(
            "--since", type=Moment(), metavar="TIME", help=_("Only those that died since: 2h, 3d, 2025-01-31T08:00.")
        ),
        click.option("--until", type=Moment(), metavar="TIME", help=_("Only those that died before.")),
    ):
        decorated = option(decorated)
    return decorated


def all_option(command: Any) -> Any:
    """The option --all, without which a change must name what it means."""
    return click.option("--all", "everything", is_flag=True, help=_("All of them."))(command)


@dead.command("list", short_help=_("List dead letters"), help=_("List dead letters, the newest last."))
@chosen_options
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help=_("Only the newest N.")
)
@state_option
@json_option
def list_(chosen: Chosen, limit: int, state: Path, as_json: bool) -> None:
    """List dead letters."""
    letters = list(ask(state, DeadList(chosen, limit)))[::-1]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(letters)).decode())
        return
    for letter in letters:
        click.echo(_line(letter))
    count = _count(state, chosen)
    if count.letters > len(letters):
        text = _("and {n} older ones: --limit {all} shows them too")
        click.echo(text.format(n=count.letters - len(letters), all=count.letters))
    elif not letters:
        click.echo(_("no dead letters"))


@dead.command(
    "show", short_help=_("Show one whole"), help=_("Show a dead letter with its payload; long texts are shortened.")
)
@click.argument("number", type=click.IntRange(1), metavar="NUMBER")
@click.option("--full", is_flag=True, help=_("Do not shorten images and other long texts."))
@state_option
@json_option
def show(number: int, full: bool, state: Path, as_json: bool) -> None:
    """Show a dead letter."""
    letters = list(ask(state, DeadExport(Chosen([number]))))
    if not letters:
        raise click.ClickException(_("there is no dead letter {number}").format(number=number))
    letter = (
        letters[0]
        if full
        else {**letters[0], "payload": shorten(letters[0]["payload"]), "meta": shorten(letters[0]["meta"])}
    )
    if as_json:
        click.echo(json.dumps(letter, ensure_ascii=False, indent=2))
        return
    for name, value in (
        (_("number"), letter["number"]),
        (_("reason"), letter["reason"]),
        (_("node"), letter["node"]),
        (_("device"), letter["device"]),
        (_("status"), letter["status"]),
        (_("attempts"), letter["attempts"]),
        (_("arrived"), _time(letter["arrived"])),
        (_("died"), _time(letter["died"])),
        (_("id"), f"{letter['id']} {letter['part']}".rstrip()),
        (_("metadata"), json.dumps(letter["meta"], ensure_ascii=False)),
        (_("replay"), _("it is marked for it") if letter["replay"] else None),
    ):
        if value not in (None, ""):
            click.echo(f"{click.style(name, bold=True)}: {value}")
    as_text = letter["payload_as"] != "json" and isinstance(letter["payload"], str)
    payload = letter["payload"] if as_text else json.dumps(letter["payload"], ensure_ascii=False, indent=2)
    click.echo(f"{click.style(_('payload'), bold=True)}:\n{payload}")


@dead.command(
    "replay",
    short_help=_("Send again"),
    help=_(
        "Let dead letters enter their flows again, each at the node that gave it up, with the same id. A letter goes when its "
        "message is delivered, or in the outbox. Where no engine runs they are marked, and the next start replays them."
    ),
)
@chosen_options
@all_option
@state_option
@json_option
def replay(chosen: Chosen, everything: bool, state: Path, as_json: bool) -> None:
    """Replay dead letters."""
    _need_choice(chosen, everything)
    count = _count(state, chosen)
    total = Replayed()
    bounded = msgspec.structs.replace(chosen, upto=count.highest)
    with click.progressbar(length=count.letters, label=_("replaying"), hidden=as_json) as bar:
        for piece in ask(state, DeadReplay(bounded)) if count.letters else ():
            some = msgspec.convert(piece, Replayed)
            bar.update(some.letters())
            _add(total, some)
    if as_json:
        click.echo(msgspec.json.encode(total).decode())
    else:
        _say_replayed(total)
    if total.no_node or total.unfit:
        raise SystemExit(1)


@dead.command("drop", short_help=_("Delete"), help=_("Delete dead letters, after showing some and asking."))
@chosen_options
@all_option
@yes_option
@state_option
def drop(chosen: Chosen, everything: bool, yes: bool, state: Path) -> None:
    """Delete dead letters."""
    _need_choice(chosen, everything)
    count = _count(state, chosen)
    if not count.letters:
        click.echo(_("no dead letters"))
        return
    bounded = msgspec.structs.replace(chosen, upto=count.highest)
    for letter in list(ask(state, DeadList(bounded, _PREVIEW)))[::-1]:
        click.echo(_line(letter))
    if count.letters > _PREVIEW:
        click.echo(_("and {n} older ones").format(n=count.letters - _PREVIEW))
    confirm(_("Delete {n} dead letters ({size})?").format(n=count.letters, size=size(count.bytes)), yes)
    done = sum(piece["done"] for piece in ask(state, DeadDrop(bounded)))
    click.echo(_("{n} dead letters were deleted").format(n=done))


@dead.command(
    "export",
    short_help=_("Write to a file"),
    help=_(
        "Write dead letters to a file (- for standard output), one a line as JSON; payloads that are no text are in base64."
    ),
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), metavar="FILE")
@chosen_options
@state_option
def export(file: Path, chosen: Chosen, state: Path) -> None:
    """Export dead letters."""
    if str(file) == "-":
        _write(sys.stdout, state, chosen)
        return
    file.touch(0o600)  # what is personal stays its owner's
    with file.open("w", encoding="utf-8") as out:
        n = _write(out, state, chosen)
    click.echo(_("{n} dead letters were written to {file}").format(n=n, file=file))


def _write(out: TextIO, state: Path, chosen: Chosen) -> int:
    count = 0
    for letter in ask(state, DeadExport(chosen)):
        out.write(json.dumps(letter, ensure_ascii=False) + "\n")
        count += 1
    return count


def _need_choice(chosen: Chosen, everything: bool) -> None:
    if chosen == Chosen() and not everything:
        raise click.UsageError(_("say which: numbers, an option such as --node, or --all"))


def _count(state: Path, chosen: Chosen) -> Count:
    [count] = ask(state, DeadCount(chosen))
    return msgspec.convert(count, Count)


def _line(letter: dict[str, Any]) -> str:
    marked = f" [{_('replay')}]" if letter["replay"] else ""
    reason = shorten(letter["reason"], 120)
    number = click.style(str(letter["number"]), bold=True)
    return f"{number}  {_time(letter['died'])}  {letter['node']}  {letter['device']}  {size(letter['bytes'])}  {reason}{marked}"


def _add(total: Replayed, some: Replayed) -> None:
    for name in ("delivered", "stored", "dropped", "dead", "marked", "under_way", "no_node", "unfit"):
        setattr(total, name, getattr(total, name) + getattr(some, name))


def _say_replayed(total: Replayed) -> None:
    texts = (
        (total.delivered, _("{n} were delivered")),
        (total.stored, _("{n} are in the outbox and will be delivered")),
        (total.dropped, _("{n} were dropped by their flow")),
        (total.dead, _("{n} are dead again, with a new number")),
        (total.marked, _("{n} are marked: no engine runs here, its next start replays them")),
        (total.under_way, _("{n} are under way still, and stay until they have ended")),
        (len(total.no_node), _("{n} stay: their node or their flow is no more, or does not run")),
        (len(total.unfit), _("{n} stay: what is left of them is not what came, and is never sent")),
    )
    for n, text in texts:
        if n:
            click.echo(text.format(n=n))
    if not total.letters():
        click.echo(_("no dead letters"))
    for number, node in total.no_node[:_PREVIEW]:
        click.echo(f"    {number}  {node}", err=True)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime(_NO_TIME)


def size(count: int) -> str:
    """Bytes as a person reads them."""
    if count < 10_000:
        return f"{count} B"
    return f"{count // 1000} KB" if count < 10_000_000 else f"{count // 1_000_000} MB"
