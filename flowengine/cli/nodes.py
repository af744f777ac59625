"""`flowengine nodes`: what nodes and connections there are, and what one of them does."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from flowengine.cli import columns
from flowengine.cli.common import json_option, plugins_option, show_broken, with_local_plugins
from flowengine.flowfile.describe import Description, Option, describe, flat
from flowengine.flowfile.problems import suggestion
from flowengine.i18n import _
from flowengine.plugins import Registry


@click.command(
    short_help=_("List nodes, or show one"),
    help=_("List the nodes and connections, or show one: its options, guarantees and an example."),
)
@click.argument("node_type", required=False, metavar="TYPE")
@plugins_option
@json_option
def nodes(node_type: str | None, plugin_folders: tuple[Path, ...], as_json: bool) -> None:
    """List or show nodes."""
    registry = with_local_plugins([Path("flows")], plugin_folders)
    every = [describe(cls) for _type, cls in sorted({**registry.nodes, **registry.connections}.items())]
    if node_type is None:
        if not as_json:
            show_broken(registry)
        _list(every, as_json)
        return
    found = next((d for d in every if d.type == node_type), None)
    if found is None:
        _unknown(node_type, every, registry)
    elif as_json:
        _print_json(msgspec.to_builtins(found))
    else:
        _show(found)


def _unknown(node_type: str, every: list[Description], registry: Registry) -> None:
    hint = suggestion(node_type, [d.type for d in every])
    click.echo(_("there is no node '{type}'{hint}").format(type=node_type, hint=hint), err=True)
    show_broken(registry)
    sys.exit(1)


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _list(every: list[Description], as_json: bool) -> None:
    if as_json:
        _print_json([{"type": d.type, "kind": d.kind, "summary": d.summary, "origin": d.origin} for d in every])
        return
    width = max((len(d.type) for d in every), default=0)
    for kind, title in Description.kinds().items():
        rows = [d for d in every if d.kind == kind]
        if rows:
            click.secho(title, bold=True)
        for d in rows:
            click.echo(f"  {d.type:<{width}}  {d.summary}")


def _show(d: Description) -> None:
    click.echo(f"{click.style(d.type, bold=True)} ({d.kind_name}, {d.origin})\n")
    for text in (d.summary, *d.text.split("\n")):
        if text:
            click.echo(_wrapped(text) + "\n")
    if d.options:
        click.secho(_("Options"), bold=True)
        for name, option in flat(d.options):
            _show_option(name, option)
        click.echo()
    if d.guarantees:
        click.secho(_("Guarantees"), bold=True)
        for text in d.guarantees.split("\n"):
            click.echo(_wrapped(text, "  "))
        click.echo()
    if d.example:
        click.secho(_("Example"), bold=True)
        click.echo("  " + d.example.replace("\n", "\n  "))


def _show_option(name: str, option: Option) -> None:
    default = _("default {value}").format(value=option.default) if option.default else ""
    notes = (option.kind, _("required") if option.required else default, _("may stand alone") if option.bare else "")
    click.echo(f"  {click.style(name, bold=True)} ({', '.join(n for n in notes if n)})")
    text = option.description
    if option.examples:
        text = _("{description}; as in {example}").format(description=text, example=option.examples[0])
    click.echo(_wrapped(text, "      "))


def _wrapped(text: str, indent: str = "") -> str:
    """Lines of at most 100 columns."""
    return columns.wrapped(text, min(100, shutil.get_terminal_size().columns), indent)
