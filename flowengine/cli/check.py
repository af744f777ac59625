"""`flowengine check`: every error of every flow file at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from flowengine.cli.common import (
    default_flows,
    flows_argument,
    json_option,
    plugins_option,
    show_broken,
    show_problems,
    with_local_plugins,
)
from flowengine.flowfile import project
from flowengine.flowfile.problems import Problem
from flowengine.i18n import _


@click.command(
    short_help=_("Check flow files"),
    help=_("Check flow files and say every error, with its place. Exits with 1 if there is one."),
)
@flows_argument
@plugins_option
@json_option
def check(flows: tuple[Path, ...], plugin_folders: tuple[Path, ...], as_json: bool) -> None:
    """Check flow files."""
    paths = default_flows(flows)
    registry = with_local_plugins(paths, plugin_folders)
    loaded = project.load(paths, registry)
    if as_json:
        found = [_as_json(p) for p in loaded.problems]
        broken = [{"plugin": p.name, "origin": p.origin, "error": p.error} for p in registry.broken]
        click.echo(msgspec.json.format(msgspec.json.encode({"problems": found, "broken_plugins": broken})).decode())
        sys.exit(1 if loaded.errors else 0)
    show_broken(registry)
    show_problems(loaded.problems)
    if loaded.errors:
        click.echo(
            _("errors: {errors}, warnings: {warnings}").format(
                errors=len(loaded.errors), warnings=len(loaded.warnings)
            ),
            err=True,
        )
        sys.exit(1)
    for flow in loaded.project.flows:
        nodes = len(flow.nodes())
        text = _("{file}: flow {name}, {chains} chains, {nodes} nodes: good")
        chains = sum(not c.inline for c in flow.chains.values())
        click.echo(text.format(file=flow.file, name=flow.name, chains=chains, nodes=nodes))


def _as_json(problem: Problem) -> dict[str, Any]:
    return {
        "file": str(problem.source),
        "line": problem.mark[0] + 1,
        "column": problem.mark[1] + 1,
        "severity": problem.severity,
        "where": problem.where,
        "text": problem.text,
    }
