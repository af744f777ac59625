"""The seed's script and the flow that replaces it get the same; where they differ, docs/from-the-script.md says why."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pytest

from tests.differential.documented import PAGES, rows
from tests.differential.sides import OTHER, Seen, Side, both, record, report, uplink
from tests.differential.stream import CASES
from tests.support.broker import port_answers
from tests.support.engine import until

Test = TypeVar("Test", bound=Callable[..., object])
SHOWN: set[str] = set()
"""The entries that have a test of their own below"""


def shows(*entries: str) -> Callable[[Test], Test]:
    """Marks the test of entries of the docs: it fails if the difference is gone."""
    SHOWN.update(entries)
    return lambda test: test


def differing(script: Seen, flow: Seen) -> set[str]:
    """The facets in which the two differ."""
    one, other = asdict(script), asdict(flow)
    return {facet for facet in one if repr(one[facet]) != repr(other[facet])}  # repr: NaN is not equal to itself


@pytest.mark.timeout(120)
@pytest.mark.parametrize("start", [0, 1])  # in two halves, which can run side by side
async def test_the_flow_does_what_the_script_did_but_where_the_docs_say_otherwise(start: int, tmp_path: Path) -> None:
    problems = []
    async with both(tmp_path) as sides:

        async def seen(side: Side) -> Seen:
            return await side.seen(await case.do(side))

        for case in CASES[start::2]:
            script, flow = await asyncio.gather(*map(seen, sides))
            found, expected = differing(script, flow), set(case.differs)
            wrong = [
                f"differ and are not in the docs: {sorted(found - expected)}" if found - expected else "",
                f"do not differ any more: {sorted(expected - found)}" if expected - found else "",
                *(
                    f"not what the flow should do: {facet} should be {due}"
                    for facet, (_entry, due) in case.differs.items()
                    if flow.brief(facet) != due
                ),
            ]
            if any(wrong):
                shown = f"    script: {str(script)[:1000]}\n    flow:   {str(flow)[:1000]}"
                problems.append(f"{case.name}: {'; '.join(filter(None, wrong))}\n{shown}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("language", PAGES)
def test_the_docs_list_each_difference_that_is_tested_and_no_other(language: str) -> None:
    listed = rows(language)
    assert set(listed) == SHOWN | {entry for case in CASES for entry, _due in case.differs.values()}
    for entry, cells in listed.items():
        assert len(cells) == 4 and all(cells), f"{entry}: what comes in, the script, the flow, why"


@shows("D-14")
async def test_the_flow_serves_every_terminal_the_script_one(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side in (script, flow):
            await side.tap.publish(uplink(OTHER), report(record("1")))
            await side.tap.publish(uplink(OTHER), b'{"cmd": "heartU"}')
        await until(lambda: len(flow.posts()) == 1 and len(flow.heartbeat_replies(OTHER)) == 1, "record and reply")
        assert await script.mark()
        assert not script.posts()
        assert not script.heartbeat_replies(OTHER)


@shows("D-15")
async def test_the_flow_tries_again_what_a_backend_refused_the_script_does_not(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side in (script, flow):
            side.recorder.answers = [503]
            await side.tap.publish(uplink(), report(record("1")))
            assert await side.mark()
        assert len(script.posts()) == 1
        first, again = flow.posts()
        assert first.body == again.body
        assert first.headers["Idempotency-Key"] == again.headers["Idempotency-Key"]


@shows("D-23")
async def test_the_flow_posts_a_record_once_that_comes_again_while_it_is_under_way(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side in (script, flow):
            side.recorder.hold()
            for _ in range(3):
                await side.tap.publish(uplink(), report(record("1")))
            await side.tap.publish(uplink(), b'{"cmd": "heartU"}')
        await until(lambda: len(flow.heartbeat_replies()) == 1, "a reply, so the records before it are under way")
        for side in (script, flow):
            side.recorder.release()
            assert await side.mark()
        assert len(script.posts()) == 3
        assert len(flow.posts()) == 1


@shows("D-16")
async def test_the_flow_answers_heartbeats_while_a_backend_hangs_the_script_only_after(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side in (script, flow):
            side.recorder.hold()
            await side.tap.publish(uplink(), report(record("1")))
        await until(lambda: bool(script.posts() and flow.posts()), "a POST of each")
        for side in (script, flow):
            await side.tap.publish(uplink(), b'{"cmd": "heartU"}')
        await until(lambda: len(flow.heartbeat_replies()) == 1, "a reply")
        assert not script.heartbeat_replies()
        script.recorder.release()
        await until(lambda: len(script.heartbeat_replies()) == 1, "a late reply")


@shows("D-17")
async def test_the_flow_fetches_what_came_while_it_was_away_the_script_does_not(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side in (script, flow):
            await side.program.stop()
            await side.tap.publish(uplink(), report(record("1")))
            await side.start()
        assert [post.json["user_id"] for post in flow.posts()] == ["1"]
        assert not script.posts()


@shows("D-18")
async def test_the_script_takes_a_retained_record_again_at_each_start_the_flow_once(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side in (script, flow):
            await side.tap.publish(uplink(), report(record("1")), retain=True)
            assert await side.mark()
            assert len(side.posts()) == 1
            await side.program.stop()
            await side.start()
        assert len(script.posts()) == 1
        assert not flow.posts()


@shows("D-19", "D-20")
async def test_the_flow_writes_json_shorter_and_sends_an_idempotency_key(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side in (script, flow):
            await side.tap.publish(uplink(), b'{"cmd": "heartU"}')
            await side.tap.publish(uplink(), report(record("1")))
            assert await side.mark()
        [one], [other] = script.posts(), flow.posts()
        assert one.json == other.json
        assert one.body == json.dumps(one.json).encode()
        assert other.body == json.dumps(one.json, ensure_ascii=False, separators=(",", ":")).encode()
        assert re.fullmatch(rb'\{"cmd": "heartD", "time": "[^"]+"\}', script.heartbeat_replies()[0].payload)
        assert re.fullmatch(rb'\{"cmd":"heartD","time":"[^"]+"\}', flow.heartbeat_replies()[0].payload)
        assert "Idempotency-Key" in other.headers
        assert "Idempotency-Key" not in one.headers
        assert one.headers["User-Agent"].startswith("python-requests/")
        assert other.headers["User-Agent"].startswith("flowengine/")


@shows("D-21")
async def test_the_flow_listens_on_loopback_the_script_everywhere(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        elsewhere = "127.0.0.2"  # as far as one gets without leaving the machine
        assert port_answers(script.listen, elsewhere)
        assert not port_answers(flow.listen, elsewhere)


@shows("D-22")
async def test_the_flow_says_what_is_wrong_with_a_request_in_json_the_script_in_html(tmp_path: Path) -> None:
    async with both(tmp_path) as (script, flow):
        for side, good, bad in ((script, "text/html", "text/html"), (flow, "text/plain", "application/json")):
            assert (await side.post(b'"restart"')).kind == good
            assert (await side.post(b"{cmd: 1}")).kind == bad
