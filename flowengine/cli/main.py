"""The root command: global words, and the commands that plugins add."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowengine import __version__
from flowengine.cli import check, columns, dead, new, nodes, outbox, plugins, run, schema
from flowengine.cli.common import load_registry
from flowengine.i18n import _
from flowengine.plugins import Registry


class _Commands(click.Group):
    """Help texts are translated when they are shown, not when the module is read."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=_("Connect devices that speak MQTT to backends that speak HTTP, by flow files in YAML."),
    epilog=_("Begin with: flowengine new project gate; cd gate; flowengine run flows/"),
)
@click.version_option(__version__, prog_name="flowengine", help=_("Show the version and end."))
def root() -> None:
    """The root of all commands."""


for command in (
    run.run,
    check.check,
    dead.dead,
    outbox.outbox,
    new.new,
    nodes.nodes,
    plugins.plugins,
    schema.schema,
):
    root.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    click.Context.formatter_class = columns.HelpFormatter  # for the commands of plugins too
    registry = load_registry(_folders_named(sys.argv[1:]))
    _add_commands(registry)
    root(prog_name="flowengine")


def _add_commands(registry: Registry) -> None:
    """Let each plugin add its commands; one that fails keeps no other command from working."""
    for implementation in registry.manager.hook.flowengine_cli.get_hookimpls():
        try:
            implementation.function(group=root)
        except Exception as error:
            text = _("warning: the plugin {name} could not add its commands: {error}")
            reason = f"{type(error).__name__}: {error}"
            click.secho(text.format(name=implementation.plugin_name, error=reason), err=True, fg="yellow")


def _folders_named(argv: list[str]) -> list[Path]:
    """The folders of `--plugins`, before click reads the command line: plugins may add commands."""
    behind = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == "--plugins"]
    joined = [word.removeprefix("--plugins=") for word in argv if word.startswith("--plugins=")]
    return [Path(folder) for folder in (*behind, *joined)]
