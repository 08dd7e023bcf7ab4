"""Rates are compared with the declared ones over simulated experiments, within what chance allows.

`plausible` accepts a count that a binomial with the declared rate gives in 99.9 of 100 cases.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats

from helpers.strata import right_or_wrong
from mbench.report.statistics.method_comparison import difference, p_value, samples_of_columns
from mbench.report.statistics.resampling import Stratum

EXPERIMENTS = 400
RESAMPLES = 800


def plausible(count, rate, experiments=EXPERIMENTS):
    low, high = scipy.stats.binom.interval(0.999, experiments, rate)
    return low <= count <= high


def compare(strata, first=(0,), second=(1,)):
    """Interval and p-value of two methods given by their columns."""
    one, other = samples_of_columns([list(first), list(second)], strata, RESAMPLES)
    return difference(one, other), p_value(one, other)


def test_average_over_tasks_covers_and_rejects_at_the_declared_rates():
    rng = np.random.default_rng(7)
    # With a probit link the chance of a right answer is the one asked for, up to the spread.
    spread = math.sqrt(1 + 0.7**2) / 1.5
    chances = scipy.stats.norm.cdf(scipy.stats.norm.ppf([0.6, 0.5]) / spread)
    covered = rejected = 0
    for _ in range(EXPERIMENTS):
        interval, _ = compare(right_or_wrong(rng, [0.6, 0.5]))
        covered += interval.low <= chances[0] - chances[1] <= interval.high
        rejected += compare(right_or_wrong(rng, [0.5, 0.5]))[1] < 0.05
    assert plausible(covered, 0.95)
    assert plausible(rejected, 0.05)


def weighted(outcomes, sizes):
    """Members of these sizes that count alike in one figure."""
    weight = np.repeat(min(sizes) / np.array(sizes, float), sizes)
    return [Stratum(outcomes * weight[:, None], weight)]


@pytest.mark.parametrize("sizes", [(6, 9), (150, 300)])
def test_members_that_count_alike_cover_and_reject_at_the_declared_rates(sizes):
    rng = np.random.default_rng(17)
    member = np.repeat([0, 1], sizes)

    def outcomes(gains):
        common = rng.random(len(member)) < 0.5
        chances = np.where(common, 0.7, 0.3) + np.array(gains)[member]
        return (rng.random((len(member), 2)) < np.column_stack([chances, chances * 0 + 0.5])) * 1.0

    covered = rejected = 0
    for _ in range(EXPERIMENTS):
        # The small member gains as much as the large one loses, so that the true difference is 0.
        interval, _ = compare(weighted(outcomes((0.2, -0.2)), sizes))
        covered += interval.low <= 0 <= interval.high
        rejected += compare(weighted(outcomes((0, 0)), sizes))[1] < 0.05
    assert covered >= scipy.stats.binom.ppf(0.001, EXPERIMENTS, 0.95)
    assert rejected <= scipy.stats.binom.ppf(0.999, EXPERIMENTS, 0.05)
    if sizes[0] > 6:
        assert plausible(rejected, 0.05)


def test_few_members_that_count_alike_have_the_p_value_of_all_sign_flips():
    outcomes = np.array([[1, 0], [1, 1], [1, 0], [0, 1], [1, 0], [1, 0], [1, 0], [0, 0]], float)
    (stratum,) = strata = weighted(outcomes, (3, 5))
    differences = stratum.totals[:, 0] - stratum.totals[:, 1]
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    assert compare(strata)[1] == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("windows", [8, 60])
def test_loss_per_token_covers_and_rejects_at_the_declared_rates(windows):
    rng = np.random.default_rng(11)

    def strata(effect):
        tokens = rng.integers(50, 100, windows)
        common = rng.normal(3, 0.5, windows)
        loss = np.column_stack([common + effect + rng.normal(0, 0.2, windows), common])
        return [Stratum(loss * tokens[:, None], tokens)]

    covered = rejected = 0
    for _ in range(EXPERIMENTS):
        interval, _ = compare(strata(0.1))
        covered += interval.low <= 0.1 <= interval.high
        rejected += compare(strata(0.0))[1] < 0.05
    assert plausible(covered, 0.95)
    assert plausible(rejected, 0.05)


@pytest.mark.parametrize(("seeds", "spread"), [(6, 0.06), (6, 0.01), (3, 0.06)])
def test_random_mean_covers_and_rejects_at_the_declared_rates(seeds, spread):
    """A method as good as the mean of all random masks, against the mean of a few of them."""
    rng = np.random.default_rng(13)
    covered = rejected = 0
    for _ in range(EXPERIMENTS):
        ability = np.append(0.0, rng.normal(0, spread, seeds))
        strata = [
            Stratum(
                rng.normal(0.5, 0.3, (60, 1)) + ability + rng.normal(0, 0.2, (60, seeds + 1)),
                np.ones(60),
            )
            for _ in range(2)
        ]
        interval, p = compare(strata, second=range(1, seeds + 1))
        covered += interval.low <= 0 <= interval.high
        rejected += p < 0.05
    assert plausible(covered, 0.95)
    assert plausible(rejected, 0.05)


def test_nothing_is_significant_with_few_items_however_equal_they_are():
    """Five items of one sign: the exact sign test has p = 2 / 32."""
    stratum = Stratum(np.column_stack([np.full(5, 3.0), np.full(5, 2.0)]), np.ones(5))
    assert compare([stratum])[1] > 0.05
    single = Stratum(np.ones((1, 2)), np.ones(1))
    interval, p = compare([single])
    assert math.isnan(interval.low)
    assert p == 1.0


def test_pairing_removes_what_items_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 20)
    stratum = Stratum(np.column_stack([shared + 0.1, shared]), np.ones(20))
    found, p = compare([stratum])
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert p == pytest.approx(1 / (2 * RESAMPLES + 1))  # no draw is as far from zero


def test_equal_outcomes_are_no_difference():
    rng = np.random.default_rng(1)
    for items in (90, 900):
        values = rng.integers(0, 2, items).astype(float)
        stratum = Stratum(np.column_stack([values, values]), np.ones(items))
        found, p = compare([stratum])
        assert dataclasses.astuple(found) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
        assert p == 1.0
