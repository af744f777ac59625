"""`flowengine nodes`: what nodes and connections there are, and what one of them does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from flowengine.cli.common import json_option, plugins_option, show_broken, with_local_plugins
from flowengine.flowfile.describe import Description, describe
from flowengine.flowfile.problems import suggestion
from flowengine.i18n import _
from flowengine.plugins import Registry


@click.command(help=_("List the nodes and connections, or show one: its options, guarantees and an example."))
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
    for kind, title in (
        ("source", _("Sources: where messages come in")),
        ("step", _("Steps: what is done with them")),
        ("action", _("Actions: where they go")),
        ("connection", _("Connections: what nodes talk through")),
    ):
        rows = [d for d in every if d.kind == kind]
        if rows:
            click.secho(title, bold=True)
        for d in rows:
            click.echo(f"  {d.type:<{width}}  {d.summary}")


def _show(d: Description) -> None:
    click.echo(f"{click.style(d.type, bold=True)} ({d.kind_name}, {d.origin})\n")
    click.echo(d.summary + "\n")
    if d.text:
        click.echo(d.text + "\n")
    if d.options:
        click.secho(_("Options"), bold=True)
        for option in d.options:
            extra = (
                _("required")
                if option.required
                else (_("default {value}").format(value=option.default) if option.default else "")
            )
            bare = _("may stand alone") if option.bare else ""
            notes = ", ".join(n for n in (option.kind, extra, bare) if n)
            click.echo(f"  {click.style(option.name, bold=True)} ({notes})")
            click.echo(
                f"      {option.description}" + (f"; {_('as in')} {option.examples[0]}" if option.examples else "")
            )
        click.echo()
    if d.guarantees:
        click.secho(_("Guarantees"), bold=True)
        click.echo("  " + d.guarantees.replace("\n", "\n  ") + "\n")
    if d.example:
        click.secho(_("Example"), bold=True)
        click.echo("  " + d.example.replace("\n", "\n  "))
