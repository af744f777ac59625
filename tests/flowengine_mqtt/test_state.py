"""What a session keeps on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.typing import EventDict

from flowengine_mqtt.state import SessionState


def test_the_client_id_is_made_once_and_kept(tmp_path: Path) -> None:
    first = SessionState(tmp_path, "facegate", "gate")
    assert first.client_id.startswith("facegate-gate-")
    assert SessionState(tmp_path, "facegate", "gate").client_id == first.client_id
    assert SessionState(tmp_path, "facegate", "other").client_id != first.client_id
    assert SessionState(tmp_path / "elsewhere", "facegate", "gate").client_id != first.client_id


def test_names_that_are_no_file_names_are_no_trouble(tmp_path: Path) -> None:
    state = SessionState(tmp_path, "../etc", "a/b 门")
    assert state.path.parent == tmp_path
    assert state.client_id.isascii()
    assert "/" not in state.client_id
    assert SessionState(tmp_path, "../etc", "a/b 门").client_id == state.client_id


def test_filters_are_kept_for_the_same_session_and_forgotten_for_another(tmp_path: Path) -> None:
    state = SessionState(tmp_path, "f", "c")
    state.use(None, "broker:1883")
    state.filters = {"a": 1, "b": None}
    state.save()
    again = SessionState(tmp_path, "f", "c")
    again.use(None, "broker:1883")
    assert again.filters == {"a": 1, "b": None}
    again.use(None, "elsewhere:1883")
    assert again.filters == {}


def test_another_client_id_is_another_session(tmp_path: Path) -> None:
    state = SessionState(tmp_path, "f", "c")
    state.use("mine", "broker:1883")
    state.filters = {"a": 1}
    state.save()
    again = SessionState(tmp_path, "f", "c")
    assert again.client_id == "mine"
    again.use("other", "broker:1883")
    assert (again.client_id, again.filters) == ("other", {})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"client_id": "", "broker": "", "filters": {}}', '{"client_id": 1, "broker": "", "filters": {}}',
     '{"client_id": "a", "broker": "", "filters": []}', '{"client_id": "a", "broker": "", "filters": {"a": "x"}}', "\udcff"],
)  # fmt: skip
def test_a_damaged_file_is_set_aside_loudly(tmp_path: Path, logs: list[EventDict], text: str) -> None:
    path = SessionState(tmp_path, "f", "c").path
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    state = SessionState(tmp_path, "f", "c")
    assert state.client_id.startswith("f-c-")
    assert json.loads(path.read_text())["client_id"] == state.client_id
    (aside,) = [each for each in tmp_path.iterdir() if "damaged" in each.name]
    assert aside.read_bytes() == text.encode("utf-8", "surrogateescape")
    assert [entry["log_level"] for entry in logs] == ["error"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = SessionState(tmp_path, "f", "c")
    before = state.path.read_text()

    def fail(_handle: int) -> None:
        raise OSError("No space left on device")

    state.filters = {"a": 1}
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        state.save()
    assert state.path.read_text() == before
    assert list(tmp_path.iterdir()) == [state.path]
