"""Corrections and ranks, by hand and over simulated experiments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbench.report.statistics.many_comparisons import holm, ranks


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
    clear = np.zeros((4, 4), bool)
    for one, other in pairs:
        clear[one, other] = clear[other, one] = True
    assert ranks(clear) == expected


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
