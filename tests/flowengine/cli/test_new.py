"""`flowengine new project`."""

from __future__ import annotations

from pathlib import Path

from tests.flowengine.cli.commands import flowengine


def test_a_new_project_checks_at_once(tmp_path: Path) -> None:
    made = flowengine("new", "project", "gate", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "cd gate\n  flowengine run flows/" in made.stdout
    assert flowengine("check", "flows/", cwd=tmp_path / "gate").returncode == 0
    assert (tmp_path / "gate" / "schemas" / "flow.schema.json").stat().st_size > 1000


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "mine").write_text("x", encoding="utf-8")
    done = flowengine("new", "project", "gate", cwd=tmp_path)
    assert done.returncode == 2
    assert "gate is there already and not empty" in done.stderr
    assert [p.name for p in (tmp_path / "gate").iterdir()] == ["mine"]


def test_the_readme_of_a_new_project_is_chinese_for_chinese_readers(tmp_path: Path) -> None:
    assert flowengine("new", "project", "gate", cwd=tmp_path, LANGUAGE="zh_CN").returncode == 0
    assert "流程" in (tmp_path / "gate" / "README.md").read_text(encoding="utf-8")
