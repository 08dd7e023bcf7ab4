"""Rates are compared with the declared ones over simulated experiments, within what chance allows.

`plausible` accepts a count that a binomial with the declared rate gives in 99.9 of 100 cases.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mbench.report.statistics import stats

EXPERIMENTS = 400
RESAMPLES = 800


def plausible(count, rate, experiments=EXPERIMENTS):
    low, high = scipy.stats.binom.interval(0.999, experiments, rate)
    return low <= count <= high


def right_or_wrong(rng, chances, items=(80, 50, 120)):
    """Strata of outcomes 0 and 1 of methods that share the difficulty of each item."""
    strata = []
    for count in items:
        difficulty = rng.normal(0, 1, (count, 1))
        ability = rng.normal(0, 0.7, (count, len(chances))) + scipy.stats.norm.ppf(chances) * 1.5
        strata.append(stats.Stratum((ability > difficulty).astype(float), np.ones(count)))
    return strata


def compare(strata, rng, first=(0,), second=(1,), resamples=RESAMPLES):
    """Interval and p-value of two methods given by their columns, composed as the report does."""
    observed = np.mean([stratum.figures for stratum in strata], axis=0)
    boot = stats.bootstrap(strata, rng, resamples)
    flips = stats.sign_flips(strata, rng, resamples)
    parts = []
    for columns in map(list, (first, second)):
        errors = stats.seed_errors(observed[columns], flips[:, columns], rng)
        parts.append([draws[:, columns].mean(axis=1) + errors for draws in (boot, flips)])
    value = observed[list(first)].mean() - observed[list(second)].mean()
    interval = stats.difference(value, parts[0][0], parts[1][0])
    return interval, stats.p_value(value, parts[0][1], parts[1][1])


def test_average_over_tasks_covers_and_rejects_at_the_declared_rates():
    rng = np.random.default_rng(7)
    # With a probit link the chance of a right answer is the one asked for, up to the spread.
    spread = math.sqrt(1 + 0.7**2) / 1.5
    chances = scipy.stats.norm.cdf(scipy.stats.norm.ppf([0.6, 0.5]) / spread)
    covered = rejected = 0
    for _ in range(EXPERIMENTS):
        interval, _ = compare(right_or_wrong(rng, [0.6, 0.5]), rng)
        covered += interval.low <= chances[0] - chances[1] <= interval.high
        rejected += compare(right_or_wrong(rng, [0.5, 0.5]), rng)[1] < 0.05
    assert plausible(covered, 0.95)
    assert plausible(rejected, 0.05)


@pytest.mark.parametrize("windows", [8, 60])
def test_loss_per_token_covers_and_rejects_at_the_declared_rates(windows):
    rng = np.random.default_rng(11)

    def strata(effect):
        tokens = rng.integers(50, 100, windows)
        common = rng.normal(3, 0.5, windows)
        loss = np.column_stack([common + effect + rng.normal(0, 0.2, windows), common])
        return [stats.Stratum(loss * tokens[:, None], tokens)]

    covered = rejected = 0
    for _ in range(EXPERIMENTS):
        interval, _ = compare(strata(0.1), rng)
        covered += interval.low <= 0.1 <= interval.high
        rejected += compare(strata(0.0), rng)[1] < 0.05
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
            stats.Stratum(
                rng.normal(0.5, 0.3, (60, 1)) + ability + rng.normal(0, 0.2, (60, seeds + 1)),
                np.ones(60),
            )
            for _ in range(2)
        ]
        interval, p = compare(strata, rng, second=range(1, seeds + 1))
        covered += interval.low <= 0 <= interval.high
        rejected += p < 0.05
    assert plausible(covered, 0.95)
    assert plausible(rejected, 0.05)


@pytest.mark.parametrize("exchanged", [0.02, 0.5])
def test_no_rank_is_lost_by_chance_among_equal_methods(exchanged):
    """Eight equal methods, of which the best is chosen by looking; also nearly identical ones.

    Where 2 % of the items differ, p-values read off the bootstrap find a difference too often.
    """
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(EXPERIMENTS):
        values = np.repeat(rng.integers(0, 2, (300, 1)), 8, axis=1)
        values ^= rng.random(values.shape) < exchanged
        values = values[:, np.argsort(-values.mean(axis=0))].astype(float)
        draws = stats.sign_flips([stats.Stratum(values, np.ones(300))], rng, 2800)
        means = values.mean(axis=0)

        def p(one, two, means=means, draws=draws):
            return stats.p_value(means[one] - means[two], draws[:, one], draws[:, two])

        wrong += stats.separated(8, p).any()
    assert wrong <= scipy.stats.binom.ppf(0.999, EXPERIMENTS, 0.05)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.integers(0, 99))
def test_sign_flips_agree_with_all_exchanges_counted_one_by_one(differences, seed):
    d = np.array(differences, float)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(d))))
    exact = (np.abs(signs @ d) >= abs(d.sum()) - 1e-9).mean()
    stratum = stats.Stratum(np.column_stack([d + 5, np.full(len(d), 5.0)]), np.ones(len(d)))
    draws = stats.sign_flips([stratum], np.random.default_rng(seed), 2000)
    found = stats.p_value(d.mean(), draws[:, 0], draws[:, 1])
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 2000) + 1e-3)


def test_many_items_are_drawn_from_the_distribution_of_few():
    """McNemar's exact test, without the correction, on either side of the limit."""
    rng = np.random.default_rng(4)
    for items in (stats.MANY_ITEMS - 1, stats.MANY_ITEMS):
        values = np.ones((items, 2))
        values[:30, 0] = values[30:50, 1] = 0
        draws = stats.sign_flips([stats.Stratum(values, np.ones(items))], rng, 200_000)
        found = stats.p_value(-10 / items, draws[:, 0], draws[:, 1])
        # The normal distribution has no steps: it lies between the exact p and that of mid-p.
        exact = scipy.stats.binomtest(20, 50).pvalue
        middle = exact - scipy.stats.binom.pmf(20, 50, 0.5)
        assert middle - 0.005 <= found <= exact + 0.005


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_less_half_of_what_was_seen(first, second):
    if first == second:
        expected = 1.0
    else:
        exact = scipy.stats.binomtest(first, first + second).pvalue
        expected = exact - scipy.stats.binom.pmf(first, first + second, 0.5)
    assert stats.mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand_and_for_many_items():
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.mcnemar(5, 0) == 1 / 32
    exact = scipy.stats.binomtest(2400, 5000).pvalue - scipy.stats.binom.pmf(2400, 5000, 0.5)
    assert stats.mcnemar(2600, 2400) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("discordant", [12, 40, 200])
def test_mcnemar_rejects_no_more_than_declared(discordant):
    """Exactly: the probability of every outcome times its rejection."""
    chances = scipy.stats.binom.pmf(np.arange(discordant + 1), discordant, 0.5)
    p = np.array([stats.mcnemar(k, discordant - k) for k in range(discordant + 1)])
    for level in (0.05, 0.01, 0.001):
        assert chances[p < level].sum() <= 1.25 * level
    assert chances[p < 0.05].sum() >= 0.02


def test_few_items_separate_nothing_however_equal_they_are():
    """Five items of one sign: the exact sign test has p = 2 / 32."""
    rng = np.random.default_rng(1)
    stratum = stats.Stratum(np.column_stack([np.ones(5), np.zeros(5)]), np.ones(5))
    assert compare([stratum], rng)[1] > 0.05
    single = stats.Stratum(np.ones((1, 2)), np.ones(1))
    interval, p = compare([single], rng)
    assert math.isnan(interval.low)
    assert p == 1.0


def test_pairing_removes_what_items_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 300)
    stratum = stats.Stratum(np.column_stack([shared + 0.1, shared]), np.ones(300))
    found, p = compare([stratum], rng)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert p == pytest.approx(1 / (RESAMPLES + 1))


def test_equal_outcomes_are_no_difference():
    rng = np.random.default_rng(1)
    for items in (90, 900):
        values = rng.integers(0, 2, items).astype(float)
        stratum = stats.Stratum(np.column_stack([values, values]), np.ones(items))
        found, p = compare([stratum], rng)
        assert dataclasses.astuple(found) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
        assert p == 1.0


def test_a_few_long_documents_are_not_many():
    sizes = np.array([5000.0] * 4 + [20.0] * 36)
    stratum = stats.Stratum(np.column_stack([sizes * 3, sizes * 2]), sizes)
    assert stats.sign_factor([stratum]) is None
    draws = stats.sign_flips([stratum], np.random.default_rng(0), 20_000)
    # Four signs decide: 2 of their 16 choices are as far from zero, less the short documents.
    assert stats.p_value(1.0, draws[:, 0], draws[:, 1]) < 0.01
    most = stats.p_value(0.93, draws[:, 0], draws[:, 1])
    assert most == pytest.approx(2 / 16, abs=0.02)


@pytest.mark.parametrize("law", ["standard_normal", "standard_exponential", "standard_t"])
def test_known_null_distribution_of_losses_has_no_lighter_tails_than_their_signs(law):
    rng = np.random.default_rng(6)
    rows = stats.MANY_LOSSES
    for _ in range(8):
        d = getattr(rng, law)(*((3,) if law == "standard_t" else ()), size=rows)
        stratum = stats.Stratum(np.column_stack([d + 100, np.full(rows, 100.0)]), np.ones(rows))
        factor = stats.sign_factor([stratum])
        deviation = float(np.linalg.norm(factor[:, 0] - factor[:, 1]))
        signs = 2.0 * rng.integers(2, size=(100_000, rows)) - 1
        sums = np.abs(signs @ d) / rows
        for distance in (1.96, 2.8, 3.3):
            exact = (sums >= distance * deviation).mean()
            known = stats.normal_p_value(distance * deviation, deviation, ())
            assert exact <= 1.1 * known


def test_large_strata_are_drawn_in_parts_and_weigh_the_same():
    rng = np.random.default_rng(5)
    big = stats.Stratum(rng.normal(0, 1, (300_000, 1)), np.ones(300_000))
    small = stats.Stratum(np.array([[2.0], [4.0]] * 50), np.ones(100))
    draws = stats.bootstrap([big, small], rng, 60)
    assert draws.std() == pytest.approx(1 / math.sqrt(100) / 2, rel=0.4)


def test_draws_are_reproducible():
    strata = right_or_wrong(np.random.default_rng(0), [0.5, 0.6])
    for draw in (stats.bootstrap, stats.sign_flips):
        one, two = (draw(strata, np.random.default_rng(9), 50) for _ in range(2))
        assert (one == two).all()


def test_seed_errors_are_those_of_a_mean_of_few_values():
    rng = np.random.default_rng(3)
    seeds = np.array([0.40, 0.44, 0.41, 0.47, 0.43, 0.45])
    exact = np.zeros((400_000, 6))  # no error over items
    errors = stats.seed_errors(seeds, exact, rng)
    low, high = scipy.stats.t.interval(0.95, 5, 0, scipy.stats.sem(seeds))
    assert np.quantile(errors, [0.025, 0.975]) == pytest.approx([low, high], rel=0.02)
    assert (stats.seed_errors(seeds[:1], exact[:, :1], rng) == 0).all()
    noisy = rng.normal(0, 0.1, (1000, 6))  # items alone explain more than the whole spread
    assert (stats.seed_errors(seeds, noisy, rng) == 0).all()


def test_summary_uses_the_sample_deviation():
    found = stats.summarize([1.0, 2.0, 4.0])
    assert found == stats.Summary(7 / 3, pytest.approx(math.sqrt(7 / 3)), 1.0, 4.0, 3)
    assert math.isnan(stats.summarize([2.0]).std)
    assert math.isnan(stats.summarize([2.0, math.inf]).std)


@pytest.mark.parametrize("seeds", [[], [(0.02, 6)], [(0.03, 3), (0.01, 6)]])
def test_known_null_distributions_need_no_draws(seeds):
    """Against two million draws of the same sum; without seeds it is the normal two-sided test."""
    rng = np.random.default_rng(4)
    draws = 0.01 * rng.standard_normal(2_000_000)
    for error, count in seeds:
        draws += error * rng.standard_t(count - 1, len(draws))
    for value in (0.0, 0.01, -0.03, 0.1):
        found = stats.normal_p_value(value, 0.01, seeds)
        assert found == pytest.approx(np.mean(np.abs(draws) >= abs(value)), rel=0.02, abs=2e-5)
        if not seeds:
            assert found == pytest.approx(2 * scipy.stats.norm.sf(abs(value) / 0.01), rel=1e-9)
    assert stats.normal_p_value(0.0, 0.0, []) == 1.0
    assert stats.normal_p_value(0.1, 0.0, []) == 0.0


def test_the_factor_of_many_items_has_the_deviation_of_their_random_signs():
    rng = np.random.default_rng(6)
    strata = right_or_wrong(rng, [0.5, 0.6], items=(250, 400))
    first, second = stats.sign_factor(strata).T
    draws = [
        np.mean([(rng.choice([-1, 1], len(s.sizes)) @ s.totals) / len(s.sizes) for s in strata], 0)
        for _ in range(4000)
    ]
    deviation = np.std(np.array(draws) @ [1, -1])
    assert np.linalg.norm(first - second) == pytest.approx(deviation, rel=0.05)
    assert stats.sign_factor([*strata, *right_or_wrong(rng, [0.5, 0.6], items=(50,))]) is None


def test_the_variance_of_two_seeds_is_not_split():
    two, three = np.array([0.4, 0.5]), np.array([0.4, 0.5, 0.45])
    assert stats.seed_error(two, 1.0) == pytest.approx(scipy.stats.sem(two))
    assert stats.seed_error(three, 1.0) == 0.0
    assert stats.seed_error(three, 0.0) == pytest.approx(scipy.stats.sem(three))
