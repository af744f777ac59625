"""What simulated terminals say."""

from __future__ import annotations

import base64
import io
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from PIL import Image

from flowengine_simulate.payloads import TIME_FORMAT, Report, Terminal, face

NOON = datetime(2024, 11, 30, 12, 0, 0)
READ_BY_THE_SCRIPT = {"num", "name", "liveImageBase64", "verifiedCode", "time", "personType"}


def reports(count: int, device: str = "123456789", seed: int | None = 1, clock: datetime = NOON) -> list[Report]:
    terminal = Terminal(device, seed=seed, clock=lambda: clock)
    return [terminal.report() for _ in range(count)]


@pytest.mark.parametrize(("size", "kilobytes"), [("small", 3), ("medium", 20), ("large", 60)])
def test_a_face_is_a_jpeg_in_base64_of_about_its_size(size: str, kilobytes: int) -> None:
    data = base64.b64decode(face(size), validate=True)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "JPEG"
    assert 0.9 * kilobytes < len(data) / 1024 < 1.1 * kilobytes


def test_reports_come_in_the_shares_of_the_mix() -> None:
    terminal = Terminal("1", mix={"heartbeat": 1, "stranger": 3}, seed=1)
    kinds = Counter(terminal.report().kind for _ in range(1000))
    assert set(kinds) == {"heartbeat", "stranger"}
    assert 2.5 < kinds["stranger"] / kinds["heartbeat"] < 3.5


def test_the_command_in_a_report_is_that_of_its_kind() -> None:
    commands = {(report.kind, report.payload["cmd"]) for report in reports(200)}
    assert commands == {
        ("heartbeat", "heartU"),
        ("record", "verifiedRecordU"),
        ("stranger", "strangerRecordU"),
    }


def test_a_record_has_every_field_that_the_script_reads() -> None:
    records = [record for report in reports(300) for record in report.records]
    assert all(record.keys() >= READ_BY_THE_SCRIPT for record in records)
    assert all(isinstance(record["num"], str) and isinstance(record["verifiedCode"], int) for record in records)


def test_most_records_passed_but_some_did_not_and_some_people_are_not_enrolled() -> None:
    records = [record for report in reports(1000) for record in report.records]
    passed = [record for record in records if record["personType"] == "1" and record["verifiedCode"] == 0]
    assert len(records) / 2 < len(passed) < len(records)
    assert {record["personType"] for record in records} == {"1", "2"}
    assert 0 in {record["verifiedCode"] for record in records} != {0}


def test_now_and_then_a_message_has_two_or_three_records() -> None:
    sizes = Counter(len(report.records) for report in reports(1000) if report.kind == "record")
    assert set(sizes) == {1, 2, 3}
    assert sizes[1] > sizes[2] + sizes[3]


def test_some_names_are_chinese() -> None:
    names = {record["name"] for report in reports(1000) for record in report.records}
    assert any("一" <= name[0] <= "鿿" for name in names)
    assert any(name.isascii() for name in names)


def test_the_same_seed_makes_the_same_reports() -> None:
    assert reports(50, seed=7) == reports(50, seed=7)
    assert reports(50, seed=7) != reports(50, seed=8)


def test_devices_with_one_seed_differ() -> None:
    assert [r.kind for r in reports(50, "1")] != [r.kind for r in reports(50, "2")]


def test_times_strictly_increase_also_when_the_clock_stands_still_or_goes_back() -> None:
    moments = iter([NOON] * 20 + [NOON - timedelta(hours=1)] * 20 + [NOON + timedelta(hours=1)] * 200)
    terminal = Terminal("1", mix={"record": 1}, clock=lambda: next(moments))
    times = [record["time"] for _ in range(40) for record in terminal.report().records]
    assert all(earlier < later for earlier, later in pairwise(times))
    assert all(datetime.strptime(text, TIME_FORMAT) for text in times)


def test_no_two_records_have_the_same_number_and_time_whatever_terminal_sent_them() -> None:
    devices = ["1", "11", "110", "123456789", "123456790"]
    records = [record for device in devices for report in reports(300, device) for record in report.records]
    assert len({(record["num"], record["time"]) for record in records}) == len(records)
