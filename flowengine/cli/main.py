"""The root command: global words, and the commands that plugins add."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from flowengine import __version__, i18n
from flowengine.cli import check, new, nodes, plugins, run, schema
from flowengine.cli.common import load_registry
from flowengine.i18n import _


class _Commands(click.Group):
    """Help texts are translated when they are shown, not when the module is read."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self.commands]


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=_("Connect devices that speak MQTT to backends that speak HTTP, by flow files in YAML."),
    epilog=_("Begin with: flowengine new project gate; cd gate; flowengine run flows/"),
)
@click.version_option(__version__, prog_name="flowengine", help=_("Show the version and end."))
def root() -> None:
    """The root of all commands."""


for command in (run.run, check.check, new.new, nodes.nodes, plugins.plugins, schema.schema):
    root.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    i18n.install()
    if sys.platform == "win32":
        os.environ.setdefault("PYTHONUTF8", "1")
    registry = load_registry(_folders_named(sys.argv[1:]))
    registry.manager.hook.flowengine_cli(group=root)
    root(prog_name="flowengine", obj=registry)


def _folders_named(argv: list[str]) -> list[Path]:
    """The folders of `--plugins`, before click reads the command line: plugins may add commands."""
    return [Path(argv[i + 1]) for i, word in enumerate(argv[:-1]) if word == "--plugins"]
