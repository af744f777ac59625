"""`flowengine simulate`: face terminals, a backend, and a demo of the whole, to try flows against.

`Terminals` and `Backend` are also for tests and tools; the commands are a thin layer over them.
"""

from __future__ import annotations

import click

from flowengine import hookimpl
from flowengine_simulate.backend import Backend, BackendCounts, Faults, Taken
from flowengine_simulate.payloads import Report, Terminal
from flowengine_simulate.terminals import TerminalCounts, Terminals

__all__ = ["Backend", "BackendCounts", "Faults", "Report", "Taken", "Terminal", "TerminalCounts", "Terminals"]


@hookimpl
def flowengine_cli(group: click.Group) -> None:
    """Add the group `simulate`."""
    from flowengine_simulate.cli import simulate

    group.add_command(simulate)
