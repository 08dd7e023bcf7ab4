"""Draws over items, against exhaustive counts and known distributions."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from helpers.strata import right_or_wrong
from mbench.report.statistics.resampling import (
    MANY_ITEMS,
    MANY_LOSSES,
    Stratum,
    bootstrap,
    sign_factor,
    sign_flips,
)
from mbench.report.statistics.significance import normal_p_value, sign_flip_p_value


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.integers(0, 99))
def test_sign_flips_agree_with_all_exchanges_counted_one_by_one(differences, seed):
    d = np.array(differences, float)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(d))))
    exact = (np.abs(signs @ d) >= abs(d.sum()) - 1e-9).mean()
    stratum = Stratum(np.column_stack([d + 5, np.full(len(d), 5.0)]), np.ones(len(d)))
    draws = sign_flips([stratum], np.random.default_rng(seed), 2000)
    found = sign_flip_p_value(d.mean(), draws[:, 0], draws[:, 1])
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 2000) + 1e-3)


def test_many_items_are_drawn_from_the_distribution_of_few():
    """McNemar's exact test, without the correction, on either side of the limit."""
    rng = np.random.default_rng(4)
    for items in (MANY_ITEMS - 1, MANY_ITEMS):
        values = np.ones((items, 2))
        values[:30, 0] = values[30:50, 1] = 0
        draws = sign_flips([Stratum(values, np.ones(items))], rng, 200_000)
        found = sign_flip_p_value(-10 / items, draws[:, 0], draws[:, 1])
        # The normal distribution has no steps: it lies between the exact p and that of mid-p.
        exact = scipy.stats.binomtest(20, 50).pvalue
        middle = exact - scipy.stats.binom.pmf(20, 50, 0.5)
        assert middle - 0.005 <= found <= exact + 0.005


def test_a_few_long_documents_are_not_many():
    sizes = np.array([5000.0] * 4 + [20.0] * 36)
    stratum = Stratum(np.column_stack([sizes * 3, sizes * 2]), sizes)
    assert sign_factor([stratum]) is None
    draws = sign_flips([stratum], np.random.default_rng(0), 20_000)
    # Four signs decide: 2 of their 16 choices are as far from zero, less the short documents.
    assert sign_flip_p_value(1.0, draws[:, 0], draws[:, 1]) < 0.01
    most = sign_flip_p_value(0.93, draws[:, 0], draws[:, 1])
    assert most == pytest.approx(2 / 16, abs=0.02)


@pytest.mark.parametrize("law", ["standard_normal", "standard_exponential", "standard_t"])
def test_known_null_distribution_of_losses_has_no_lighter_tails_than_their_signs(law):
    rng = np.random.default_rng(6)
    rows = MANY_LOSSES
    for _ in range(8):
        d = getattr(rng, law)(*((3,) if law == "standard_t" else ()), size=rows)
        stratum = Stratum(np.column_stack([d + 100, np.full(rows, 100.0)]), np.ones(rows))
        factor = sign_factor([stratum])
        deviation = float(np.linalg.norm(factor[:, 0] - factor[:, 1]))
        signs = 2.0 * rng.integers(2, size=(100_000, rows)) - 1
        sums = np.abs(signs @ d) / rows
        for distance in (1.96, 2.8, 3.3):
            exact = (sums >= distance * deviation).mean()
            known = normal_p_value(distance * deviation, deviation, ())
            assert exact <= 1.1 * known


def test_large_strata_are_drawn_in_parts_and_weigh_the_same():
    rng = np.random.default_rng(5)
    big = Stratum(rng.normal(0, 1, (300_000, 1)), np.ones(300_000))
    small = Stratum(np.array([[2.0], [4.0]] * 50), np.ones(100))
    draws = bootstrap([big, small], rng, 60)
    assert draws.std() == pytest.approx(1 / math.sqrt(100) / 2, rel=0.4)


def test_draws_are_reproducible():
    strata = right_or_wrong(np.random.default_rng(0), [0.5, 0.6])
    for draw in (bootstrap, sign_flips):
        one, two = (draw(strata, np.random.default_rng(9), 50) for _ in range(2))
        assert (one == two).all()


def test_the_factor_of_many_items_has_the_deviation_of_their_random_signs():
    rng = np.random.default_rng(6)
    strata = right_or_wrong(rng, [0.5, 0.6], items=(250, 400))
    first, second = sign_factor(strata).T
    draws = [
        np.mean([(rng.choice([-1, 1], len(s.sizes)) @ s.totals) / len(s.sizes) for s in strata], 0)
        for _ in range(4000)
    ]
    deviation = np.std(np.array(draws) @ [1, -1])
    assert np.linalg.norm(first - second) == pytest.approx(deviation, rel=0.05)
    assert sign_factor([*strata, *right_or_wrong(rng, [0.5, 0.6], items=(50,))]) is None
