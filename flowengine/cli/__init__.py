"""The command `flowengine`: one module a command."""

from flowengine import i18n

i18n.install()  # before click's decorators run: they translate the names of their types as they are made

from flowengine.cli.main import main  # noqa: E402

__all__ = ["main"]
