"""`flowengine new project`: a folder that runs at once."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import click

from flowengine.i18n import _

_CHECKOUT = Path(__file__).parents[2]


@click.group(short_help=_("Make a new project"), help=_("Make something new."))
def new() -> None:
    """The group of `new` commands."""


@new.command(help=_("Make a folder with the face-gate flow, its schema and a README, ready to run."))
@click.argument("name", type=click.Path(path_type=Path))
def project(name: Path) -> None:
    """Make a project folder."""
    if name.exists() and any(name.iterdir()):
        raise click.UsageError(_("{path} is there already and not empty").format(path=name))
    (name / "flows").mkdir(parents=True)
    (name / "schemas").mkdir()
    (name / "plugins").mkdir()
    shutil.copyfile(_data("flows/facegate.yaml"), name / "flows" / "facegate.yaml")
    shutil.copyfile(_data("schemas/flow.schema.json"), name / "schemas" / "flow.schema.json")
    (name / "README.md").write_text(_readme().format(name=name.name), encoding="utf-8")
    (name / ".gitignore").write_text(".flowengine/\n", encoding="utf-8")
    click.echo(_("{path} is made. Next:").format(path=name))
    click.echo(f"  cd {name}\n  flowengine run flows/")
    click.echo(_("and in two more terminals, to see it at work:"))
    click.echo("  flowengine simulate backend\n  flowengine simulate terminals")


def _data(path: str) -> Path:
    """A file that the wheel carries, or that stands at the top of the checkout."""
    packaged = Path(str(resources.files("flowengine") / "data" / path))
    return packaged if packaged.exists() else _CHECKOUT / path


def _readme() -> str:
    return _(
        "# {name}\n"
        "\n"
        "Flows for flowengine. `flows/facegate.yaml` says what comes in and where it goes; edit it, then:\n"
        "\n"
        "    flowengine check flows/     # every error, with its place\n"
        "    flowengine run flows/       # until Ctrl-C\n"
        "\n"
        "To see it at work without devices and without a backend, in two more terminals:\n"
        "\n"
        "    flowengine simulate backend\n"
        "    flowengine simulate terminals\n"
        "\n"
        "Addresses are set by environment variables: MQTT_URL, BACKEND_URL, COMMAND_LISTEN, COMMAND_TOKEN\n"
        "(`params:` in the flow file has them all). Nodes of your own are files in `plugins/`.\n"
        "What must outlive a restart is kept in `.flowengine/`: leave it there.\n"
    )
