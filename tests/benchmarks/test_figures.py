"""Medians, quartiles and ratios."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import figures
from benchmarks.figures import Table, quartiles, tables
from benchmarks.results import Batch
from tests.benchmarks.batches import batch

_RATES = st.lists(st.floats(min_value=1, max_value=1e6), min_size=1, max_size=30)


@given(_RATES)
def test_the_quartiles_lie_around_the_median_of_the_values(values: list[float]) -> None:
    found = quartiles(values)
    assert found is not None
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.median == pytest.approx(statistics.median(values))


def test_no_values_have_no_quartiles() -> None:
    assert quartiles([]) is None


def test_a_ratio_compares_figures_of_the_same_round() -> None:
    # The machine was ten times as fast in round 2; flowengine always does twice the work.
    rows = [batch("flowengine", 200, round=1), batch("limit", 100, round=1)]
    rows += [batch("limit", 1000, round=2), batch("flowengine", 2000, round=2)]
    assert Table(rows).ratio("flowengine", "limit", figures.rate) == (2, 2, 2)


def test_a_round_that_one_of_the_two_lacks_is_not_compared() -> None:
    rows = [batch("flowengine", 200, round=1), batch("limit", 100, round=1), batch("flowengine", 9000, round=2)]
    assert Table(rows).ratio("flowengine", "limit", figures.rate) == (2, 2, 2)


def test_a_batch_that_failed_has_no_figures_but_its_error() -> None:
    table = Table([batch("limit", 100), Batch(1, "default", "seed", "records-1.5k", error="ended at its start")])
    assert table.systems == ["limit"]
    assert table.errors == {"seed": "ended at its start"}


def test_settings_of_the_broker_are_kept_apart() -> None:
    found = tables([batch("limit", 100), batch("limit", 300, window="wide")])
    wide = found["wide", "records-1.5k"].quartiles("limit", figures.rate)
    assert wide is not None
    assert wide.median == 300


def test_losses_of_all_rounds_are_added_up() -> None:
    rows = [batch("limit", 100, round=number, lost=number) for number in (1, 2, 3)]
    assert Table(rows).total("limit", figures.lost) == 6
