import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbench import stats


def paired_strata(rng, effect, items=(80, 50, 120)):
    """Two methods whose outcomes share the difficulty of each item."""
    strata = []
    for count in items:
        difficulty = rng.normal(0.5, 0.3, count)
        first = difficulty + effect + rng.normal(0, 0.2, count)
        second = difficulty + rng.normal(0, 0.2, count)
        strata.append(stats.Stratum(np.column_stack([first, second]), np.ones(count)))
    return strata


def compare(strata, rng, resamples):
    draws = stats.resample(strata, rng, resamples)
    observed = np.mean([s.totals.sum(axis=0) / s.sizes.sum() for s in strata], axis=0)
    return stats.difference(observed[0] - observed[1], draws[:, 0], draws[:, 1])


def test_interval_covers_the_truth_and_null_is_rejected_at_the_declared_rate():
    rng = np.random.default_rng(7)
    effect, covered, rejected = 0.04, 0, 0
    for _ in range(400):
        found = compare(paired_strata(rng, effect), rng, 600)
        covered += found.low <= effect <= found.high
        rejected += compare(paired_strata(rng, 0.0), rng, 600).p < 0.05
    assert 0.92 <= covered / 400 <= 0.975
    assert 0.025 <= rejected / 400 <= 0.08


def test_ratio_of_sums_covers_the_truth():
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        tokens = rng.integers(50, 100, 60)
        common = rng.normal(3, 0.5, 60)
        per_token = np.column_stack([common + 0.1 + rng.normal(0, 0.2, 60), common])
        stratum = stats.Stratum(per_token * tokens[:, None], tokens)
        found = compare([stratum], rng, 600)
        covered += found.low <= 0.1 <= found.high
    assert 0.92 <= covered / 400 <= 0.975


def test_seeds_widen_the_interval_by_their_own_variance():
    rng = np.random.default_rng(3)
    seeds = np.array([0.40, 0.44, 0.41, 0.47, 0.43, 0.45])
    draws = stats.over_seeds(np.tile(seeds, (200_000, 1)), rng)
    assert draws.var() == pytest.approx(seeds.var(ddof=1) / 6, rel=0.02)
    assert draws.mean() == pytest.approx(seeds.mean(), abs=1e-3)
    single = np.linspace(0, 1, 5)[:, None]
    assert (stats.over_seeds(single, rng) == single[:, 0]).all()


def test_pairing_removes_what_items_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 300)
    stratum = stats.Stratum(np.column_stack([shared + 0.1, shared]), np.ones(300))
    found = compare([stratum], rng, 500)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found.p == pytest.approx(2 / 501)


def test_equal_outcomes_are_no_difference():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2, 90).astype(float)
    stratum = stats.Stratum(np.column_stack([values, values]), np.ones(90))
    assert compare([stratum], rng, 200) == stats.Difference(0.0, 0.0, 0.0, 1.0)


def test_large_strata_are_drawn_in_parts_with_equal_weight():
    rng = np.random.default_rng(5)
    big = stats.Stratum(rng.normal(0, 1, (3_000_000, 1)), np.ones(3_000_000))
    small = stats.Stratum(np.full((2, 1), 4.0), np.ones(2))
    draws = stats.resample([big, small], rng, 3)
    assert draws[:, 0] == pytest.approx(2.0, abs=0.01)


def test_resampling_is_reproducible():
    strata = paired_strata(np.random.default_rng(0), 0.1)
    one, two = (stats.resample(strata, np.random.default_rng(9), 50) for _ in range(2))
    assert (one == two).all()


def test_summary_uses_the_sample_deviation():
    found = stats.summarize([1.0, 2.0, 4.0])
    assert found == stats.Summary(7 / 3, pytest.approx(math.sqrt(7 / 3)), 1.0, 4.0, 3)
    assert math.isnan(stats.summarize([2.0]).std)
    assert math.isnan(stats.summarize([2.0, math.inf]).std)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p):
    adjusted = stats.holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p))).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_keeps_the_familywise_error():
    p = np.random.default_rng(2).uniform(size=(4000, 10))
    wrong = np.mean([(stats.holm(row) < 0.05).any() for row in p])
    assert wrong < 0.06


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (set(), [1, 1, 1, 1]),
        ({(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}, [1, 2, 3, 4]),
        ({(0, 2), (0, 3)}, [1, 1, 3, 3]),
        # The last is not separated from the first, yet stands below one that is.
        ({(0, 1)}, [1, 2, 2, 2]),
        ({(0, 3), (1, 3)}, [1, 1, 1, 4]),
    ],
)
def test_ranks_with_ties(pairs, expected):
    differ = stats.separated(4, lambda a, b: 1e-6 if (a, b) in pairs else 0.9)
    assert (differ == differ.T).all()
    assert stats.ranks(differ) == expected


def test_separation_is_corrected_over_all_pairs():
    assert stats.separated(2, lambda a, b: 0.02).tolist() == [[False, True], [True, False]]
    assert not stats.separated(4, lambda a, b: 0.02).any()
    assert stats.ranks(stats.separated(0, lambda a, b: 0.0)) == []
    for comparisons in (1, 91, 780):
        smallest = 2 / (stats.enough_resamples(comparisons) + 1)
        assert smallest * comparisons < 0.05


def test_choosing_the_best_by_looking_keeps_the_declared_error():
    """Ten equal methods: any rank but the first is a false one."""
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(100):
        values = rng.normal(0, 1, (60, 10))
        values = values[:, np.argsort(-values.mean(axis=0))]
        draws = stats.resample([stats.Stratum(values, np.ones(60))], rng, 4500)

        def p(first, second, draws=draws):
            return stats.p_value(draws[:, first], draws[:, second])

        wrong += max(stats.ranks(stats.separated(10, p))) > 1
    assert wrong / 100 < 0.09


def test_recovered_share():
    assert stats.recovered(0.6, 0.4, 0.8) == pytest.approx(0.5)
    assert stats.recovered(0.3, 0.4, 0.8) == pytest.approx(-0.25)
    assert stats.recovered(3.0, 4.0, 2.0, higher=False) == pytest.approx(0.5)
    assert math.isnan(stats.recovered(0.6, 0.8, 0.8))
    assert math.isnan(stats.recovered(3.0, 2.0, 4.0, higher=False))
    assert math.isnan(stats.recovered(1.0, math.inf, 2.0, higher=False))
