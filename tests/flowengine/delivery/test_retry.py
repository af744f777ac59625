"""When a delivery is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowengine import Retry
from flowengine.delivery import retry

ATTEMPTS = st.integers(1, 10_000)


@given(ATTEMPTS)
def test_backoff_lies_between_nothing_and_a_bound_that_doubles_from_1_s_to_5_min(attempts: int) -> None:
    bound = min(300.0, 2.0 ** min(attempts - 1, 60))
    assert 0.0 <= retry.wait(Retry("busy"), attempts) <= bound


def test_backoff_is_spread_over_its_whole_range() -> None:
    waits = [retry.wait(Retry("busy"), 20) for _ in range(1000)]
    assert min(waits) < 60 and max(waits) > 240


@given(st.floats(0.05, 3600), ATTEMPTS, st.booleans())
def test_the_far_ends_word_wins(after: float, attempts: int, slow: bool) -> None:
    assert retry.wait(Retry("busy", after=after, slow=slow), attempts) == after


@pytest.mark.parametrize(
    ("after", "seconds"), [(0, 0.05), (-5, 0.05), (0.01, 0.05), (3601, 3600), (float("inf"), 3600)]
)
def test_the_far_ends_word_is_heeded_from_50_ms_to_1_h(after: float, seconds: float) -> None:
    assert retry.wait(Retry("busy", after=after), 1) == seconds


@pytest.mark.parametrize("after", [float("nan"), "5", [1]])
def test_what_is_no_time_is_no_word(after: float) -> None:
    assert 0.0 <= retry.wait(Retry("busy", after=after), 3) <= 4.0


@given(ATTEMPTS)
def test_what_only_a_person_can_mend_waits_from_1_to_5_min(attempts: int) -> None:
    assert 60.0 <= retry.wait(Retry("who are you", slow=True), attempts) <= 300.0


def test_what_only_a_person_can_mend_does_not_come_back_all_at_once() -> None:
    assert len({retry.wait(Retry("who are you", slow=True), 1) for _ in range(100)}) > 90
