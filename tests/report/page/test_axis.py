"""Axes of the first screen."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mbench.report.page.axis import axis

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@example([0.0], [5e-324])
@given(st.lists(FINITE, min_size=1, max_size=30), st.lists(FINITE, max_size=10))
def test_ticks_are_round_few_and_within(figures, ends):
    made = axis(figures, ends)
    assert made.low < made.high
    assert 1 <= len(made.ticks) <= 12
    places = [at for at, _ in made.ticks]
    assert places == sorted(set(places))
    assert all(0 <= at <= 100 for at in places)
    labels = [label for _, label in made.ticks]
    assert len(set(labels)) == len(labels)
    assert not any(label.strip("-0.") == "" and label.startswith("-") for label in labels)


def test_figures_that_differ_by_rounding_are_one():
    assert axis([0.1 + 0.2, 0.3], [0.25, 0.35]) == axis([0.3], [0.25, 0.35])


def test_one_far_figure_stands_at_the_edge():
    made = axis([3.2, 3.4, 3.5, 3.7, 4.0, 4.4, 120.0, math.inf, math.nan])
    assert made.high < 5
    assert made.beyond(120.0)
    assert made.at(120.0) == 100.0
    # Two groups are no outliers, and neither is a pair of figures.
    assert axis([0.3, 0.31, 0.32, 0.6, 0.61, 0.62]).high > 0.62
    assert axis([3.0, 120.0]).high > 120
    assert axis([]) is None
    assert axis([math.nan]) is None


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, 1e-9])
def test_one_figure_has_an_axis(value):
    made = axis([value])
    assert made.low < value < made.high
    assert len(made.ticks) >= 1
