"""Differences and their errors against published formulas and naive loops in float64."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from mbench.report.statistics.gap import gap_closed
from mbench.report.statistics.inference import bounds, p_values
from mbench.report.statistics.pairwise import pairwise
from mbench.report.statistics.strata import Stratum


@settings(max_examples=60, deadline=None)
@given(won=st.integers(0, 30), lost=st.integers(0, 30), same=st.integers(30, 200))
def test_right_and_wrong_is_bonett_and_prices_interval(won, lost, same):
    """Their formula (2012): (a + 1 - b - 1) / (n + 2) +- z sqrt(...), with Student's t for z."""
    first = np.r_[np.ones(won), np.zeros(lost), np.ones(same)]
    second = np.r_[np.zeros(won), np.ones(lost), np.ones(same)]
    count = len(first)
    found = pairwise([Stratum(np.column_stack([first, second]), np.ones(count))], [[0], [1]])
    p12, p21 = (won + 1) / (count + 2), (lost + 1) / (count + 2)
    error = math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (count + 2))
    assert found.value[0, 1] == pytest.approx((won - lost) / count)
    assert found.centre[0, 1] == pytest.approx(p12 - p21)
    assert math.sqrt(found.variance[0, 1]) == pytest.approx(error)
    quantile = scipy_stats.t.ppf(0.975, count - 1)
    low, high = bounds(found, 0.05)
    assert low[0, 1] == pytest.approx(p12 - p21 - quantile * error)
    assert high[0, 1] == pytest.approx(p12 - p21 + quantile * error)
    exact = scipy_stats.binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
    # Never much below McNemar's exact p-value.
    if exact > 0.001:
        assert p_values(found)[0, 1] >= 0.55 * exact


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 40), skewed=st.booleans())
def test_documents_against_a_naive_jackknife(seed, count, skewed):
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 500, count).astype(float)
    noise = random.lognormal(0, 1, (count, 3)) if skewed else random.normal(0, 1, (count, 3))
    totals = noise * sizes[:, None]
    found = pairwise([Stratum(totals, sizes, "documents")], [[0], [1], [2]])
    for a in range(3):
        for b in range(3):
            difference = totals[:, a] - totals[:, b]
            whole = difference.sum() / sizes.sum()
            without = [
                (difference.sum() - difference[n]) / (sizes.sum() - sizes[n]) for n in range(count)
            ]
            jackknife = (count - 1) / count * sum((x - whole) ** 2 for x in without)
            assert found.value[a, b] == pytest.approx(whole, abs=1e-12)
            assert found.variance[a, b] == pytest.approx(jackknife, rel=1e-9, abs=1e-15)
            moves = np.array([whole - x for x in without])
            if a != b:
                tilt = (moves**3).sum() / (moves**2).sum() ** 1.5
                assert found.skewness[a, b] == pytest.approx(tilt, abs=1e-9)
                most = sizes.sum() ** 2 / (sizes**2).sum() - 1
                assert found.freedom[a, b] <= max(1.0, most) + 1e-9


def test_equal_documents_without_skew_are_students_test():
    differences = np.r_[-2.0, -1.0, -0.5, 0.5, 1.0, 2.0] + 0.3
    totals = np.column_stack([differences, np.zeros(6)])
    found = pairwise([Stratum(totals, np.ones(6), "documents")], [[0], [1]])
    reference = scipy_stats.ttest_1samp(differences, 0.0)
    assert found.value[0, 1] / math.sqrt(found.variance[0, 1]) == pytest.approx(reference.statistic)
    assert abs(found.skewness[0, 1]) < 1e-12


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), level=st.sampled_from([0.05, 0.01, 0.0007]))
def test_an_interval_excludes_zero_exactly_where_the_test_rejects(seed, level):
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 50, 40).astype(float)
    totals = random.lognormal(0, 1, (40, 4)) * sizes[:, None] * random.uniform(0.5, 2, 4)
    answers = (random.random((50, 4)) < random.uniform(0.2, 0.9, 4)).astype(float)
    found = pairwise(
        [Stratum(totals, sizes, "documents"), Stratum(answers, np.ones(50))], [[0], [1], [2], [3]]
    )
    p, (low, high) = p_values(found), bounds(found, level)
    outside = (low > 0) | (high < 0)
    assert (outside == (p < level))[~np.eye(4, dtype=bool)].all()
    assert p == pytest.approx(p.T)
    assert low == pytest.approx(-high.T)


def test_the_mean_over_tasks_and_seeds_by_hand():
    random = np.random.default_rng(0)
    strata = []
    for count in (100, 40):
        strata.append(Stratum((random.random((count, 4)) < 0.6).astype(float), np.ones(count)))
    found = pairwise(strata, [[0], [1, 2, 3]])
    values, variances = [], []
    for stratum in strata:
        first, others = stratum.totals[:, 0], stratum.totals[:, 1:].mean(axis=1)
        values.append(first.mean() - others.mean())
        grown = np.r_[first - others, 1.0, -1.0]
        variances.append(((grown - grown.mean()) ** 2).sum() / len(grown) ** 2)
    assert found.value[0, 1] == pytest.approx(np.mean(values))
    figures = np.mean([s.figures[1:] for s in strata], axis=0)
    explained = []
    for a, b in ((1, 2), (1, 3), (2, 3)):
        of_pair = 0.0
        for stratum in strata:
            difference = stratum.totals[:, a] - stratum.totals[:, b]
            of_pair += difference.var(ddof=1) / len(difference)
        explained.append(of_pair / 4 / 2)
    between = figures.var(ddof=1)
    seeds = max(0.0, between - np.mean(explained)) / 3
    assert found.variance[0, 1] == pytest.approx(sum(variances) / 4 + seeds)


def test_what_has_no_spread_is_certain():
    sizes = np.ones(40)
    totals = np.column_stack([sizes * 3.01, sizes * 3.0, sizes * 3.0])
    found = pairwise([Stratum(totals, sizes, "documents")], [[0], [1], [2]])
    assert p_values(found)[0, 1] == 0.0
    assert p_values(found)[1, 2] == 1.0
    low, high = bounds(found, 0.05)
    assert (low[0, 1], high[0, 1]) == (pytest.approx(0.01), pytest.approx(0.01))


def test_the_gap_closed_and_its_bounds_are_fiellers():
    """A bound is where method - random - g (unpruned - random) is just not told from zero."""
    random = np.random.default_rng(1)
    ability = np.array([0.5, 0.35, 0.7])
    outcomes = (random.random((300, 1)) * 0.6 + random.random((300, 3)) * 0.4 < ability).astype(
        float
    )
    strata = [Stratum(outcomes, np.ones(300))]
    differences = pairwise(strata, [[0], [1], [2]])
    found = gap_closed(differences, 0, 1, 2)
    share = (outcomes[:, 0] - outcomes[:, 1]).sum() / (outcomes[:, 2] - outcomes[:, 1]).sum()
    assert found.value == pytest.approx(share)
    for bound in (found.low, found.high):
        gain, gap = differences.centre[0, 1], differences.centre[2, 1]
        common = (
            differences.variance[0, 1] + differences.variance[2, 1] - differences.variance[0, 2]
        ) / 2
        variance = (
            differences.variance[0, 1] - 2 * bound * common + bound**2 * differences.variance[2, 1]
        )
        distance = (gain - bound * gap) / math.sqrt(variance)
        assert 2 * scipy_stats.t.sf(abs(distance), 299) == pytest.approx(0.05)
    # No gap, no share.
    assert gap_closed(pairwise(strata, [[0], [1], [1]]), 0, 1, 2) is None
