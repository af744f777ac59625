"""The commands `flowengine simulate terminals`, `backend` and `demo`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from flowengine import _
from flowengine_simulate.backend import DEFAULT_PATH, Backend, Faults, Taken
from flowengine_simulate.demo import Demo
from flowengine_simulate.display import Status, shorten, table
from flowengine_simulate.engine import EngineFailed
from flowengine_simulate.payloads import DEFAULT_MIX, KINDS, Kind
from flowengine_simulate.signals import first_of, stop_on_signal
from flowengine_simulate.summary import Rows, backend_rows, record_line, terminal_rows
from flowengine_simulate.terminals import Terminals, device_ids


def parse_mix(ctx: click.Context, param: click.Parameter, text: str) -> dict[Kind, float]:
    """The shares by kind, from `heartbeat=7,record=2,stranger=1`; a kind left out is not sent."""
    mix: dict[Kind, float] = {}
    for part in text.split(","):
        name, _equals, share = part.partition("=")
        kind = next((kind for kind in KINDS if kind == name.strip()), None)
        if kind is None or not re.fullmatch(r"\d+(\.\d+)?", share.strip()):
            message = _("not a mix such as heartbeat=7,record=2,stranger=1: {text}")
            raise click.BadParameter(message.format(text=text), ctx, param)
        mix[kind] = float(share)
    if not any(mix.values()):
        raise click.BadParameter(_("a mix needs a share above 0"), ctx, param)
    return mix


@click.group(
    short_help=_("Simulate terminals, a backend, or all"),
    help=_("Simulate what stands around a flow: terminals, a backend, or all of it together."),
)
def simulate() -> None:
    """The group that `flowengine` gets."""


@simulate.command(
    help=_(
        "Face terminals on MQTT. Each reports on fungxi_DEVICE_upLink and listens on fungxi_DEVICE_downLink,"
        " checks that its heartbeats are answered, and shows the commands it gets. Up to 50 have a connection"
        " each, more share these."
        " Ends with a summary at Ctrl-C, SIGTERM, --count or --seconds; what is under way is waited for."
    )
)
@click.option("--url", default="mqtt://127.0.0.1:1883", show_default=True, help=_("The broker."))
@click.option("--devices", type=click.IntRange(1), default=5, show_default=True, help=_("How many terminals."))
@click.option("--device", "named", multiple=True, help=_("A terminal's number instead; can be given several times."))
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help=_("Messages a second from each terminal."),
)
@click.option("--count", type=click.IntRange(1), help=_("Stop after so many messages, all terminals together."))
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help=_("Stop after so many seconds."))
@click.option(
    "--mix",
    callback=parse_mix,
    default=",".join(f"{kind}={share:g}" for kind, share in DEFAULT_MIX.items()),
    show_default=True,
    help=_("Shares of the kinds of message."),
)
@click.option("--seed", type=int, help=_("Makes the reports repeatable but for their times."))
@click.option("--qos", type=click.IntRange(0, 1), default=1, show_default=True, help=_("QoS of the reports."))
@click.option("--json", "as_json", is_flag=True, help=_("The summary as JSON on standard output, nothing else there."))
def terminals(
    url: str,
    devices: int,
    named: tuple[str, ...],
    rate: float,
    count: int | None,
    seconds: float | None,
    mix: Mapping[Kind, float],
    seed: int | None,
    qos: int,
    as_json: bool,
) -> None:
    status = Status()

    def show_command(device: str, text: str) -> None:
        line = _("{device} got {text}").format(device=device, text=shorten(text, 160))
        status.line(line, err=as_json)

    async def run() -> None:
        simulated = Terminals(
            url,
            named or device_ids(devices),
            rate=rate,
            count=count,
            mix=mix,
            seed=seed,
            qos=qos,
            on_command=show_command,
            on_notice=status.line,
        )
        with stop_on_signal() as stopping:
            async with simulated:
                await first_of(stopping.wait(), simulated.finished(), _show(simulated, status), seconds=seconds)
                status.show(_("waiting for what is under way"))
        status.clear()
        _print_summary(
            {"sent": simulated.counts.sent, **asdict(simulated.counts)},
            terminal_rows(simulated.counts),
            as_json,
        )

    try:
        asyncio.run(run())
    except ValueError as error:
        raise click.UsageError(str(error)) from error


async def _show(simulated: Terminals, status: Status) -> None:
    text = _("{connected} connected  sent {sent}  acknowledged {acknowledged}  replies {replies}/{heartbeats}")
    while True:
        counts = simulated.counts
        status.show(
            text.format(
                connected=simulated.connected,
                sent=counts.sent,
                acknowledged=counts.acknowledged,
                replies=counts.replies,
                heartbeats=counts.heartbeats,
            )
        )
        await asyncio.sleep(0.25)


@simulate.command(
    help=_(
        "A backend that takes records over HTTP, shows each on a line and counts repeats by Idempotency-Key."
        " GET /stats tells the counts; PUT /faults changes how it misbehaves while it runs, for example"
        """ '{"fail": 503, "fail_for": "4s"}', and '{}' makes it well again."""
    )
)
@click.option("--host", default="127.0.0.1", show_default=True, help=_("Where to listen."))
@click.option("--port", type=click.IntRange(0, 65535), default=6688, show_default=True, help=_("0 takes a free one."))
@click.option("--path", default=DEFAULT_PATH, show_default=True, help=_("Where records are posted to."))
@click.option("--fail", type=click.IntRange(300, 599), help=_("Answer with this status instead of 200."))
@click.option(
    "--fail-rate",
    type=click.FloatRange(0, 1),
    help=_("Fail only this share of the requests, with 503 or --fail."),
)
@click.option("--fail-for", help=_("Fail only so long from the first request on, for example 4s."))
@click.option("--delay", default="0s", help=_("Wait before each answer, for example 200ms."))
@click.option("--hang", is_flag=True, help=_("Do not answer at all."))
@click.option("--quiet", is_flag=True, help=_("Show no records."))
@click.option("--json", "as_json", is_flag=True, help=_("The summary as JSON on standard output, nothing else there."))
def backend(
    host: str,
    port: int,
    path: str,
    fail: int | None,
    fail_rate: float | None,
    fail_for: str | None,
    delay: str,
    hang: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    def show_record(taken: Taken) -> None:
        if not (quiet or as_json):
            click.echo(record_line(taken))

    async def run() -> None:
        faults = Faults(fail=fail or 0, fail_rate=fail_rate, fail_for=fail_for, delay=delay, hang=hang)
        simulated = Backend(host=host, port=port, path=path, faults=faults, on_record=show_record)
        with stop_on_signal() as stopping:
            async with simulated:
                click.echo(_("takes records at {url}").format(url=simulated.url), err=True)
                await stopping.wait()
        _print_summary(asdict(simulated.counts), backend_rows(simulated.counts), as_json)

    try:
        asyncio.run(run())
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        text = _("cannot listen at {host}:{port}: {reason}; --port 0 takes a free one")
        raise click.ClickException(text.format(host=host, port=port, reason=error.strerror)) from error


@simulate.command(
    help=_(
        "Broker, backend, flow and terminals together, for a live look. The flow must find its surroundings"
        " by MQTT_URL, BACKEND_URL and COMMAND_LISTEN, as flows/facegate.yaml does. Ends with the books of"
        " all sides; exits with 1 if they do not agree."
    )
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, help=_("How long.")
)
@click.option("--devices", type=click.IntRange(1), default=5, show_default=True, help=_("How many terminals."))
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help=_("Messages a second from each terminal."),
)
@click.option(
    "--flows",
    type=click.Path(exists=True, path_type=Path),
    default="flows",
    show_default=True,
    help=_("The folder or file that the engine runs."),
)
def demo(seconds: float, devices: int, rate: float, flows: Path) -> None:
    async def run() -> list[str]:
        run_of_all = Demo(flows, devices=devices, rate=rate, seconds=seconds, status=Status())
        with stop_on_signal() as stopping:
            books = await run_of_all.run(stopping)
        click.echo(books.table())
        return books.disagreements()

    try:
        disagreements = asyncio.run(run())
    except EngineFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo()
    if disagreements:
        click.echo(_("The books do not agree:"))
        click.echo("\n".join(f"- {sentence}" for sentence in disagreements))
        raise SystemExit(1)
    click.echo(_("The books of all sides agree."))


def _print_summary(counts: dict[str, int], rows: Rows, as_json: bool) -> None:
    click.echo(json.dumps(counts) if as_json else table(rows))
