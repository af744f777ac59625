"""Help texts, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.flowengine.cli.commands import flowengine

CHOICES = re.compile(r" +--[a-z-]+ \[[a-z|]+\]")
"""An option and its values, alone on a line: nothing there is a word of a language."""
COMMANDS = ("run", "check", "nodes", "plugins", "schema", "new", "simulate", "dead", "outbox")


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = flowengine("--help", cwd=tmp_path)
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_is_read_in_chinese(command: str, tmp_path: Path) -> None:
    said = flowengine(command, "--help", cwd=tmp_path, LANGUAGE="", LC_ALL="", LANG="zh_CN.UTF-8").stdout
    english = flowengine(command, "--help", cwd=tmp_path).stdout
    assert any("\u4e00" <= c <= "\u9fff" for c in said)
    same = [line for line in said.splitlines() if line in english.splitlines() and line.strip()]
    untranslated = [line for line in same if not CHOICES.fullmatch(line)]
    assert not untranslated, f"not translated: {untranslated}"


def test_an_unknown_command_is_an_error_in_chinese(tmp_path: Path) -> None:
    done = flowengine("rnu", cwd=tmp_path, LANGUAGE="zh_CN")
    assert done.returncode == 2
    assert "没有" in done.stderr
