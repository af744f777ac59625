"""`flowengine plugins`: where nodes come from, and what is broken."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import msgspec

from flowengine.cli.common import json_option, plugins_option, with_local_plugins
from flowengine.i18n import _


@click.command(
    short_help=_("List plugins, and what is broken"),
    help=_("List the plugins, what each gives, and which could not be loaded and why."),
)
@plugins_option
@json_option
def plugins(plugin_folders: tuple[Path, ...], as_json: bool) -> None:
    """List plugins."""
    registry = with_local_plugins([Path("flows")], plugin_folders)
    if as_json:
        found = [{k: v for k, v in asdict(p).items() if k != "source"} for p in registry.plugins]
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    for plugin in registry.plugins:
        state = click.style(_("broken"), fg="red") if plugin.error else click.style(_("good"), fg="green")
        click.echo(f"{click.style(plugin.name, bold=True)}  {plugin.origin}  {state}")
        if plugin.error:
            click.echo(f"    {plugin.error}")
        for title, names in ((_("nodes"), plugin.nodes), (_("connections"), plugin.connections)):
            if names:
                click.echo(f"    {title}: {', '.join(sorted(names))}")
