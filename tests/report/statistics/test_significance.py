"""Single p-values, against scipy and against draws."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mbench.report.statistics.significance import mcnemar, normal_p_value


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_less_half_of_what_was_seen(first, second):
    if first == second:
        expected = 1.0
    else:
        exact = scipy.stats.binomtest(first, first + second).pvalue
        expected = exact - scipy.stats.binom.pmf(first, first + second, 0.5)
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand_and_for_many_items():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == 1 / 32
    exact = scipy.stats.binomtest(2400, 5000).pvalue - scipy.stats.binom.pmf(2400, 5000, 0.5)
    assert mcnemar(2600, 2400) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("discordant", [12, 40, 200])
def test_mcnemar_rejects_no_more_than_declared(discordant):
    """Exactly: the probability of every outcome times its rejection."""
    chances = scipy.stats.binom.pmf(np.arange(discordant + 1), discordant, 0.5)
    p = np.array([mcnemar(k, discordant - k) for k in range(discordant + 1)])
    for level in (0.05, 0.01, 0.001):
        assert chances[p < level].sum() <= 1.25 * level
    assert chances[p < 0.05].sum() >= 0.02


@pytest.mark.parametrize("seeds", [[], [(0.02, 6)], [(0.03, 3), (0.01, 6)]])
def test_known_null_distributions_need_no_draws(seeds):
    """Against two million draws of the same sum; without seeds it is the normal two-sided test."""
    rng = np.random.default_rng(4)
    draws = 0.01 * rng.standard_normal(2_000_000)
    for error, count in seeds:
        draws += error * rng.standard_t(count - 1, len(draws))
    for value in (0.0, 0.01, -0.03, 0.1):
        found = normal_p_value(value, 0.01, seeds)
        assert found == pytest.approx(np.mean(np.abs(draws) >= abs(value)), rel=0.02, abs=2e-5)
        if not seeds:
            assert found == pytest.approx(2 * scipy.stats.norm.sf(abs(value) / 0.01), rel=1e-9)
    assert normal_p_value(0.0, 0.0, []) == 1.0
    assert normal_p_value(0.1, 0.0, []) == 0.0
