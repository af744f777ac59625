"""The command `flowengine`: one module a command."""

from flowengine.cli.main import main

__all__ = ["main"]
