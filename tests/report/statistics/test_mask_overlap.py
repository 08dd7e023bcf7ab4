"""Overlaps of masks, by hand and by brute force."""

import itertools

import numpy as np
import pytest

from mbench.report.statistics.mask_overlap import (
    chance,
    jaccard,
    jaccard_by_layer,
    mean_jaccard,
    mean_jaccard_of_seeds,
    union_size,
)


def mask(*kept, experts=6):
    return np.array([[expert in layer for expert in range(experts)] for layer in kept])


def test_overlaps_by_brute_force():
    rng = np.random.default_rng(3)
    for _ in range(20):
        first, second = (
            [set(rng.permutation(9)[: rng.integers(1, 9)].tolist()) for _ in range(4)]
            for _ in range(2)
        )
        by_hand = [len(a & b) / len(a | b) for a, b in zip(first, second, strict=True)]
        masks = mask(*first, experts=9), mask(*second, experts=9)
        assert jaccard_by_layer(*masks).tolist() == pytest.approx(by_hand)
        assert jaccard(*masks) == pytest.approx(sum(by_hand) / 4)
        sizes = [len(a | b) for a, b in zip(first, second, strict=True)]
        assert union_size(masks) == pytest.approx(sum(sizes) / 4)


@pytest.mark.parametrize(("count", "kept"), [(5, 2), (6, 5), (4, 4), (7, 1)])
def test_chance_is_the_mean_over_all_pairs_of_sets(count, kept):
    sets = [set(chosen) for chosen in itertools.combinations(range(count), kept)]
    shares = [len(a & b) / len(a | b) for a in sets for b in sets]
    assert chance(count, kept) == pytest.approx(sum(shares) / len(shares))


def test_seeds_of_one_method_are_compared_with_each_other_only():
    first = np.array([[True, True, False, False], [True, True, False, False]])
    second = np.array([[True, False, True, False], [True, True, False, False]])
    assert jaccard(first, second) == pytest.approx((1 / 3 + 1) / 2)
    assert mean_jaccard([first], [second]) == jaccard(first, second)
    assert mean_jaccard([first, second], [second]) == (jaccard(first, second) + 1) / 2
    assert mean_jaccard_of_seeds([first, second]) == jaccard(first, second)
    assert mean_jaccard_of_seeds([first]) is None
