"""`flowengine check`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.flowengine.cli.commands import flowengine

BAD = "flow: a\nchains:\n  x:\n    - http-post: {ulr: 'http://h/'}\n"
GOOD = """flow: good
connections: {gate: {mqtt: 'mqtt://h'}}
chains:
  x:
    - mqtt-in: {connection: gate, topic: t}
    - log
"""


def write(folder: Path, **files: str) -> Path:
    """A folder `flows` with these files."""
    flows = folder / "flows"
    flows.mkdir()
    for name, text in files.items():
        (flows / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_good_folder_is_said_to_be_good_and_exits_0(tmp_path: Path) -> None:
    done = flowengine("check", "flows/", cwd=write(tmp_path, good=GOOD))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "flows/good.yaml: flow good, 1 chains, 2 nodes: good\n"


def test_errors_of_all_files_are_said_at_once_and_it_exits_1(tmp_path: Path) -> None:
    done = flowengine("check", "flows/", cwd=write(tmp_path, one=BAD, two=BAD.replace("flow: a", "flow: b")))
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("flows/")]
    wording = "chains.x[0] http-post: unknown option 'ulr', did you mean 'url'?"
    assert f"flows/one.yaml:4:19: {wording}" in said
    assert f"flows/two.yaml:4:19: {wording}" in said


def test_json_has_the_same_for_programs(tmp_path: Path) -> None:
    done = flowengine("check", "flows/", "--json", cwd=write(tmp_path, one=BAD))
    assert done.returncode == 1
    problem = next(p for p in json.loads(done.stdout)["problems"] if "ulr" in p["text"])
    assert (problem["file"], problem["line"], problem["column"]) == ("flows/one.yaml", 4, 19)
    assert problem["severity"] == "error"


def test_without_flows_it_says_what_to_write(tmp_path: Path) -> None:
    done = flowengine("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "name the folder of your flows, as in: flowengine run flows/" in done.stderr


def test_an_empty_folder_is_an_error_that_says_how_to_begin(tmp_path: Path) -> None:
    done = flowengine("check", "flows/", cwd=write(tmp_path))
    assert done.returncode == 1
    assert "flowengine new project NAME" in done.stderr


def test_a_broken_plugin_that_no_flow_uses_is_a_warning(tmp_path: Path) -> None:
    folder = write(tmp_path, good=GOOD)
    (folder / "plugins").mkdir()
    (folder / "plugins" / "mine.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    done = flowengine("check", "flows/", cwd=folder)
    assert done.returncode == 0
    assert (
        "warning: the plugin mine (plugins/mine.py) could not be loaded: mine.py:1: ModuleNotFoundError" in done.stderr
    )


def test_errors_are_said_in_chinese_where_the_person_reads_chinese(tmp_path: Path) -> None:
    done = flowengine("check", "flows/", cwd=write(tmp_path, one=BAD), LANGUAGE="", LC_ALL="zh_CN.UTF-8")
    assert done.returncode == 1
    assert "未知选项 'ulr'" in done.stderr
