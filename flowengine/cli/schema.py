"""`flowengine schema`: the JSON schema of flow files, with every node there is."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from flowengine.cli.common import plugins_option, with_local_plugins
from flowengine.flowfile.editor import flow_schema
from flowengine.i18n import _


@click.command(
    short_help=_("Print the JSON schema of flow files"),
    help=_("Print the JSON schema of flow files, for editors: it covers installed and local nodes."),
)
@plugins_option
def schema(plugin_folders: tuple[Path, ...]) -> None:
    """Print the JSON schema."""
    registry = with_local_plugins([Path("flows")], plugin_folders)
    click.echo(msgspec.json.format(msgspec.json.encode(flow_schema(registry)), indent=2).decode())
