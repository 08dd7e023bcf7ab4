"""Axes of the first screen."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.altered import altered, on_items
from helpers.browsing import visit
from helpers.demo_results import CLOZE
from helpers.pages import render_page
from mbench.report.page.axis import axis

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@example([0.0], [(0.0, 5e-324)])
@given(
    st.lists(FINITE, min_size=1, max_size=30),
    st.lists(st.tuples(FINITE, FINITE).map(sorted), max_size=5),
)
def test_ticks_are_round_few_and_within(figures, whiskers):
    made = axis(figures, whiskers)
    assert made.low < made.high
    assert 1 <= len(made.ticks) <= 12
    places = [at for at, _ in made.ticks]
    assert places == sorted(set(places))
    assert all(0 <= at <= 100 for at in places)
    labels = [label for _, label in made.ticks]
    assert len(set(labels)) == len(labels)
    assert not any(label.strip("-0.") == "" and label.startswith("-") for label in labels)


def test_figures_that_differ_by_rounding_are_one():
    assert axis([0.1 + 0.2, 0.3], [(0.25, 0.35)]) == axis([0.3], [(0.25, 0.35)])


def test_whiskers_of_scores_that_are_close_together_are_drawn_and_so_is_their_reference():
    """Three scores within 0.003, 0.07 from the unpruned model's, each known to ±0.05."""
    made = axis([0.522, 0.525, 0.525, 0.594], [(0.475, 0.57), (0.477, 0.571), (0.478, 0.572)])
    assert not any(map(made.beyond, (0.475, 0.522, 0.572, 0.594)))
    # One that is known badly stretches the axis no further than the usual ones do.
    wide = axis([0.522, 0.525, 0.53], [(0.475, 0.57), (0.48, 0.575), (0.1, 0.9)])
    assert not wide.beyond(0.475)
    assert wide.beyond(0.9)
    # What diverged still stands at the edge.
    assert axis([0.522, 0.525, 0.525, 9.0], [(0.475, 0.57)] * 3).beyond(9.0)


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


def test_the_leaderboard_shows_whiskers_of_scores_that_are_close_together(browser, tmp_path):
    """Three methods with nearly equal scores, 0.2 below the unpruned model, which is the line."""
    shares = {"none": 0.7, "mean": 0.5, "max": 0.5, "tb-coverage": 0.505}
    drawn = np.random.default_rng(3)

    def change(cell):
        if cell.method not in shares:
            return None
        right = drawn.permutation(np.arange(200) < round(200 * shares[cell.method]))
        return on_items(cell, CLOZE, lambda items: items.assign(acc_norm=right.astype(float)))

    with visit(browser, render_page(altered(change), tmp_path)) as tab:
        assert tab.locator("#lb .whisker").count() == 3
        for line in tab.locator("#lb .whisker").all():
            assert float(line.get_attribute("x1")[:-1]) > 0
            assert float(line.get_attribute("x2")[:-1]) < 100
        assert tab.locator("#lb .beyond").count() == 0
