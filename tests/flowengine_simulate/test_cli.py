"""The commands, as processes with real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import flowengine_simulate
from flowengine_simulate.cli import simulate
from tests.support.broker import MosquittoBroker

ENVIRONMENT = {**os.environ, "LANGUAGE": "en", "PYTHONIOENCODING": "utf-8"}
COMMAND = [sys.executable, "-c", "from flowengine_simulate.cli import simulate; simulate()"]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def broker() -> Iterator[MosquittoBroker]:
    with MosquittoBroker() as broker:
        yield broker


def test_terminals_end_at_the_count_with_a_summary_in_json(broker: MosquittoBroker) -> None:
    arguments = ["--url", broker.url, "--devices", "2", "--rate", "100", "--count", "20", "--json"]
    with started("terminals", *arguments, "--mix", "record=1,stranger=1") as process:
        out, _err = process.communicate(timeout=30)
    counts = json.loads(out)
    assert process.returncode == 0
    assert counts["record_messages"] + counts["strangers"] == counts["acknowledged"] == 20
    assert counts["sent"] == 20
    assert counts["heartbeats"] == 0


def test_the_pack_adds_its_commands_to_the_group_it_is_given() -> None:
    @click.group()
    def root() -> None:
        """Stands for `flowengine`."""

    flowengine_simulate.flowengine_cli(root)
    result = CliRunner().invoke(root, ["simulate", "--help"])
    assert result.exit_code == 0
    assert all(command in result.output for command in ("terminals", "backend", "demo"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_terminals_without_a_broker_say_so_go_on_and_end_well_at_a_signal(number: signal.Signals) -> None:
    with started("terminals", "--url", "mqtt://127.0.0.1:1") as process:
        assert process.stderr is not None
        assert any("cannot be reached; trying again" in line for line in process.stderr)
        process.send_signal(number)
        out, _err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert re.search(r"messages sent +0", out)


def test_a_backend_shows_each_record_and_ends_with_its_counts() -> None:
    with started("backend", "--port", "0", "--fail", "503", "--fail-rate", "0") as process:
        assert process.stderr is not None and process.stdout is not None
        [url] = re.findall(r"http://\S+", process.stderr.readline())
        body = json.dumps({"user_id": "42", "name": "王伟"}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body)) as answer:
            assert answer.status == 200
        assert process.stdout.readline() == "42  王伟  no image\n"
        process.send_signal(signal.SIGTERM)
        out, _err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert re.search(r"records taken +1", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["terminals", "--mix", "heartbeats=1"], "not a mix such as"),
        (["terminals", "--mix", "heartbeat=0"], "needs a share above 0"),
        (["terminals", "--url", "tcp://x"], "not a broker's URL"),
        (["terminals", "--qos", "2"], "--qos"),
        (["backend", "--port", "0", "--delay", "soon"], "not a length of time"),
        (["backend", "--fail", "200"], "--fail"),
        (["demo", "--flows", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(simulate, arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.timeout(120)
def test_a_demo_of_the_face_gate_ends_with_books_that_agree() -> None:
    flows = Path(__file__).parents[2] / "flows" / "facegate.yaml"
    with started("demo", "--seconds", "3", "--devices", "3", "--rate", "20", "--flows", str(flows)) as process:
        out, err = process.communicate(timeout=110)
    assert process.returncode == 0, f"{out}\n{err}"
    assert "The books of all sides agree." in out
