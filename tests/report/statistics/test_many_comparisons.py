"""Corrections and ranks, by hand and over simulated experiments."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mbench.report.statistics.many_comparisons import holm, ranks, significantly_different
from mbench.report.statistics.resampling import Stratum, enough_resamples, sign_flips
from mbench.report.statistics.significance import sign_flip_p_value


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p))).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_keeps_the_familywise_error():
    p = np.random.default_rng(2).uniform(size=(4000, 10))
    wrong = np.mean([(holm(row) < 0.05).any() for row in p])
    assert wrong < 0.06


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (set(), [(1, 4)] * 4),
        ({(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}, [(1, 1), (2, 2), (3, 3), (4, 4)]),
        ({(0, 2), (0, 3)}, [(1, 2), (1, 4), (2, 4), (2, 4)]),
        # Nothing is known to be better than the last two, though they stand below one that is.
        ({(0, 1)}, [(1, 3), (2, 4), (1, 4), (1, 4)]),
        ({(0, 3), (1, 3)}, [(1, 3), (1, 3), (1, 4), (3, 4)]),
    ],
)
def test_ranks_by_hand(pairs, expected):
    differ = significantly_different(4, lambda a, b: 1e-6 if (a, b) in pairs else 0.9)
    assert (differ == differ.T).all()
    assert ranks(differ) == expected


@given(st.integers(1, 7), st.data())
def test_methods_share_a_rank_unless_they_or_others_between_differ(count, data):
    drawn = data.draw(st.lists(st.booleans(), min_size=count**2, max_size=count**2))
    differ = np.triu(np.array(drawn).reshape(count, count), 1)
    differ = differ | differ.T
    found = ranks(differ)
    assert found[0][0] == 1
    for one in range(count):
        for other in range(one + 1, count):
            (low, high), (other_low, other_high) = found[one], found[other]
            assert 1 <= low <= one + 1 <= high <= count
            between = differ[one, one + 1 : other] & differ[other, one + 1 : other]
            if not differ[one, other] and not between.any():
                assert max(low, other_low) <= min(high, other_high)


def test_differences_are_adjusted_for_all_pairs():
    assert significantly_different(2, lambda a, b: 0.02).tolist() == [[False, True], [True, False]]
    assert not significantly_different(4, lambda a, b: 0.02).any()
    assert ranks(significantly_different(0, lambda a, b: 0.0)) == []
    for comparisons in (1, 91, 780):
        smallest = 1 / (enough_resamples(comparisons) + 1)
        assert smallest * comparisons < 0.05


@pytest.mark.parametrize("exchanged", [0.02, 0.5])
def test_no_rank_is_lost_by_chance_among_equal_methods(exchanged):
    """Eight equal methods, of which the best is chosen by looking; also nearly identical ones.

    Where 2 % of the items differ, p-values read off the bootstrap find a difference too often.
    """
    experiments, rng = 400, np.random.default_rng(8)
    wrong = 0
    for _ in range(experiments):
        values = np.repeat(rng.integers(0, 2, (300, 1)), 8, axis=1)
        values ^= rng.random(values.shape) < exchanged
        values = values[:, np.argsort(-values.mean(axis=0))].astype(float)
        draws = sign_flips([Stratum(values, np.ones(300))], rng, 2800)
        means = values.mean(axis=0)

        def p(one, two, means=means, draws=draws):
            return sign_flip_p_value(means[one] - means[two], draws[:, one], draws[:, two])

        wrong += significantly_different(8, p).any()
    assert wrong <= scipy.stats.binom.ppf(0.999, experiments, 0.05)
