"""The state folder: one engine at a time, and its owner's alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flowengine import StartError
from flowengine.runtime.state import StateFolder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    StateFolder(tmp_path / "a" / "b").release()
    assert mode(tmp_path / "a" / "b") == 0o700


def test_a_folder_that_became_open_to_others_is_closed_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    StateFolder(folder).release()
    folder.chmod(0o755)
    StateFolder(folder).release()
    assert mode(folder) == 0o700


def test_a_folder_that_holds_other_things_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()
    tmp_path.chmod(0o755)
    StateFolder(tmp_path).release()
    assert mode(tmp_path) == 0o755


def test_a_second_engine_is_refused_and_hears_the_process_id_of_the_first(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    code = (
        "import sys; from pathlib import Path; from flowengine.runtime.state import StateFolder;"
        "StateFolder(Path(sys.argv[1]))"
    )
    second = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert second.returncode and f"process id {os.getpid()}" in second.stderr and "--state" in second.stderr
    folder.release()
    StateFolder(tmp_path).release()


def test_an_engine_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from flowengine.runtime.state import StateFolder;"
        "folder = StateFolder(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    StateFolder(tmp_path).release()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file"):
        StateFolder(tmp_path / "file" / "state")
    with pytest.raises(StartError, match="--state"):
        StateFolder(tmp_path / "file")
