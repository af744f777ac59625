"""What several commands share: where plugins are looked for, how problems are shown, exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from flowengine import plugins
from flowengine.errors import OptionError
from flowengine.flowfile.problems import Problem
from flowengine.i18n import _
from flowengine.options import Duration
from flowengine.plugins import Registry

EX_CONFIG = 78
"""sysexits.h: something was found in an unconfigured or misconfigured state."""
EX_IOERR = 74
"""sysexits.h: an error occurred while doing I/O on some file."""
DEFAULT_STATE = Path(".flowengine")


class _Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A length of time, as in flow files; its value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; click's BadParameter for what is no length of time."""
        if isinstance(value, float):
            return value
        try:
            return Duration(value).seconds
        except OptionError as error:
            self.fail(str(error), param, ctx)


DURATION = _Duration()


def load_registry(folders: Iterable[Path]) -> Registry:
    """Every installed plugin, and the files of `folders`."""
    return plugins.load(folders)


def with_local_plugins(flow_paths: Iterable[Path], extra: Iterable[Path]) -> Registry:
    """Every installed plugin, the files in `plugins/` beside the flows' folder, and those of `--plugins`."""
    folders: list[Path] = []
    for path in flow_paths:
        folder = path if path.is_dir() else path.parent
        beside = folder.resolve().parent / "plugins"
        if beside.is_dir():
            folders.append(_short(beside))
    folders += [f for f in extra if f.resolve() not in [known.resolve() for known in folders]]
    return plugins.load(dict.fromkeys(folders))


def _short(path: Path) -> Path:
    """Relative to where the person stands, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def show_problems(problems: Iterable[Problem]) -> None:
    """Print problems to standard error, in colour on a terminal."""
    for problem in problems:
        head, *rest = str(problem).split("\n")
        click.secho(head, err=True, bold=True, fg="red" if problem.severity == "error" else "yellow")
        for line in rest:
            click.echo(line, err=True)


def show_broken(registry: Registry) -> None:
    """Warn of plugins that could not be loaded."""
    for plugin in registry.broken:
        text = _("warning: the plugin {name} ({origin}) could not be loaded: {error}")
        click.secho(text.format(name=plugin.name, origin=plugin.origin, error=plugin.error), err=True, fg="yellow")


def flows_argument(command: Any) -> Any:
    """The argument FLOWS: folders and files."""
    return click.argument("flows", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="FLOWS...")(command)


def plugins_option(command: Any) -> Any:
    """The option --plugins."""
    return click.option(
        "--plugins",
        "plugin_folders",
        multiple=True,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help=_("A folder with nodes of your own (*.py), besides plugins/ beside the flows."),
    )(command)


def json_option(command: Any) -> Any:
    """The option --json."""
    return click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for programs."))(command)


def default_flows(flows: tuple[Path, ...]) -> list[Path]:
    """The paths given, or `flows/`."""
    if flows:
        return list(flows)
    folder = Path("flows")
    if not folder.is_dir():
        raise click.UsageError(_("name the folder of your flows, as in: flowengine run flows/"))
    return [folder]
