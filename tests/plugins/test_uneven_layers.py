"""Global ranking and allocation rules, against all masks and plain re-statements."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mbench
from helpers.reconstruction_layers import (
    random_outputs,
    routed_output,
    sample_arrays,
    sampled_profile,
    true_loss,
)
from helpers.synthetic import budget, profile, scores
from mbench_plugins.global_ranking import GlobalRanking
from mbench_plugins.layer_allocation import Allocated, effective_number, proportional
from mbench_plugins.uneven_layers import AsSelectedUneven, best_by_count

RNG = np.random.default_rng(0)


def uneven(layers: int, experts: int, kept: int, fewest: int = 1, groups: int = 1) -> mbench.Budget:
    return dataclasses.replace(budget(layers, experts, kept), fewest=fewest, groups=groups)


def allowed(mask: np.ndarray, where: mbench.Budget) -> bool:
    """By the definition of the contract, counted one by one."""
    if mask.sum() != where.kept * where.num_layers:
        return False
    size = where.num_experts // where.groups
    for row in mask:
        counts = {int(row[start : start + size].sum()) for start in range(0, len(row), size)}
        if len(counts) > 1 or row.sum() < where.fewest:
            return False
    return True


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize(
    ("layers", "experts", "kept", "fewest", "groups"),
    [(3, 4, 2, 1, 1), (3, 4, 2, 2, 1), (2, 6, 3, 1, 1), (2, 6, 4, 2, 2), (3, 4, 2, 2, 2),
     (2, 6, 3, 3, 3), (1, 5, 3, 1, 1), (4, 3, 1, 1, 1), (3, 4, 4, 1, 2)],
)  # fmt: skip
def test_global_ranking_is_the_best_of_all_masks(layers, experts, kept, fewest, groups, ties):
    where = uneven(layers, experts, kept, fewest, groups)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        values = generator.gamma(1.0, size=(layers, experts)) * generator.gamma(1, size=(layers, 1))
        values = values.round(0 if ties else 12)
        GlobalRanking().check(where)
        selection = GlobalRanking().select({"c": scores(values)}, where, RNG)
        mask = AsSelectedUneven().build(selection, {}, where, None)
        keep, counts = mask.keep, mask.keep.sum(axis=1)
        assert allowed(keep, where)
        spread = f"layers keep {counts.min()} to {counts.max()}"
        assert mask.notes[0].startswith(spread if np.ptp(counts) else f"every layer keeps {kept}")
        best = -math.inf
        for bits in itertools.product([False, True], repeat=layers * experts):
            if sum(bits) == where.total:
                mask = np.reshape(bits, (layers, experts))
                if allowed(mask, where):
                    best = max(best, float(values[mask].sum()))
        assert values[keep].sum() == pytest.approx(best, rel=1e-12)


def test_normalised_scores_forget_the_scale_of_layers():
    values = np.random.default_rng(3).gamma(1.0, size=(3, 6))
    for how in ("sum", "max", "zscore"):
        chosen = [
            GlobalRanking(normalize=how).select({"c": scores(each)}, uneven(3, 6, 2), RNG).chosen
            for each in (values, values * [[1.0], [50.0], [0.02]])
        ]
        assert (chosen[0] == chosen[1]).all()
    loud = {"c": scores(values * [[1.0], [50.0], [0.02]])}
    assert GlobalRanking().select(loud, uneven(3, 6, 2), RNG).chosen.sum(axis=1).tolist() == [
        1,
        4,
        1,
    ]


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(mbench.Infeasible, match=r"2 experts per layer on average.* 3 that every"):
        GlobalRanking().check(uneven(4, 6, 2, fewest=3))
    with pytest.raises(mbench.Infeasible, match=r"9 experts in all.* 2 equal groups"):
        AsSelectedUneven().check(uneven(3, 6, 3, fewest=2, groups=2))
    # Three per layer on average, though no single layer of two groups can keep three.
    GlobalRanking().check(uneven(2, 6, 3, fewest=2, groups=2))


@st.composite
def allocations(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int]:
    layers = draw(st.integers(1, 12))
    lowest = draw(st.integers(0, 5))
    highest = draw(st.integers(lowest, 12))
    total = draw(st.integers(layers * lowest, layers * highest))
    weights = draw(
        st.lists(
            st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.sampled_from([1.0, 2.0])),
            min_size=layers,
            max_size=layers,
        )
    )
    return np.array(weights), total, lowest, highest


@settings(deadline=None, max_examples=400)
@given(allocations())
def test_counts_add_up_stay_within_bounds_and_follow_the_weights(case):
    weights, total, lowest, highest = case
    counts = proportional(weights, total, lowest, highest)
    assert counts.sum() == total
    assert counts.min() >= lowest
    assert counts.max() <= highest
    for a, b in itertools.permutations(range(len(weights)), 2):
        if weights[a] > weights[b]:
            assert counts[a] >= counts[b]
        if weights[a] == weights[b]:
            assert abs(counts[a] - counts[b]) <= 1
    free = (counts > lowest + 1) & (counts < highest - 1) & (weights > 0)
    if free.sum() > 1:
        # Between bounds, counts are proportional to within the rounding of one.
        scale = [((counts[free] + d) / weights[free]) for d in (-1, 1)]
        assert scale[0].max() <= scale[1].min() * (1 + 1e-6)


def test_exact_shares_are_kept_exactly():
    assert proportional(np.array([1.0, 2.0, 3.0]), 12, 0, 12).tolist() == [2, 4, 6]
    # Hare's quotas 1.25, 2.5, 1.25: the largest remainder gets the last one.
    assert proportional(np.array([1.0, 2.0, 1.0]), 5, 0, 5).tolist() == [1, 3, 1]
    assert proportional(np.zeros(3), 7, 1, 4).tolist() == [3, 2, 2]
    assert proportional(np.array([1.0, 0.0, 0.0]), 7, 1, 4).tolist() == [4, 2, 1]


def test_effective_number_counts_equal_users():
    values = np.array([[5.0, 5, 5, 5], [1, 1, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0], [3, 1, 0, 0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_number(values) == pytest.approx([4, 2, 1, 0, math.exp(entropy)])


def test_rules_weigh_layers_as_they_say():
    """Three layers of eight experts: one concentrated, one even, one of great scores."""
    values = np.array([[8.0, 0, 0, 0, 0, 0, 0, 0], [1] * 8, [9, 9, 9, 9, 0, 0, 0, 0]])
    seen = profile({"count": values}, mbench.RoutingSums())
    given_scores = {"c": mbench.Scores(values, seen)}
    where = uneven(3, 8, 4)

    def kept(rule: str, **params: float) -> list[int]:
        selector = Allocated(rule=rule, lowest=0.25, **params)
        chosen = selector.select(given_scores, where, RNG).chosen
        for layer, count in enumerate(chosen.sum(axis=1)):
            best = sorted(range(8), key=lambda e: (-values[layer, e], e))[:count]
            assert sorted(np.flatnonzero(chosen[layer])) == sorted(best)
        return chosen.sum(axis=1).tolist()

    # Effective numbers 1, 8, 4 are 12/13 of a scale: 0.92 is raised to 1, 11 is left for 8 : 4.
    assert kept("routing-entropy") == kept("score-entropy") == [1, 7, 4]
    # Masses 8, 8, 36: the third may keep no more than all 8, the rest is shared evenly.
    assert kept("score-mass") == [2, 2, 8]
    assert kept("linear", slope=0.5) == [2, 4, 6]
    assert kept("linear", slope=-0.5) == [6, 4, 2]
    assert kept("u-shaped", slope=0.5) == [5, 2, 5]
    assert kept("u-shaped", slope=0.0) == [4, 4, 4]
    assert kept("score-mass", highest=1.5) == [3, 3, 6]
    negative = {"c": mbench.Scores(values - 1, seen)}
    with pytest.raises(mbench.PluginError, match="'score-mass' needs scores that are not negative"):
        Allocated(rule="score-mass").select(negative, where, RNG)


def test_layers_that_lose_more_keep_more():
    """The loss at K experts is that of plain routing with the set that elimination leaves."""
    generator = np.random.default_rng(5)
    drawn = [random_outputs(generator, 8, 40) for _ in range(3)]
    # Copies of one expert in the second layer: it loses almost nothing.
    drawn[1] = (drawn[1][0], drawn[1][1][:, :1].repeat(8, axis=1))
    layers = [sample_arrays(logits, outputs, 2) for logits, outputs in drawn]
    seen = sampled_profile(layers, 2, router="preserved")
    values = generator.gamma(1.0, size=(3, 8))
    lost = []
    for logits, outputs in drawn:
        kept = set(range(8))
        while len(kept) > 4:
            losses = {}
            for expert in kept:
                keep = np.isin(np.arange(8), list(kept - {expert}))
                losses[expert] = true_loss(logits, outputs, keep, 2, "full")
            kept.remove(min(losses, key=lambda e: (losses[e], -e)))
        whole = routed_output(logits, outputs, np.ones(8, dtype=bool), 2, "full")
        lost.append(losses[min(losses, key=losses.get)] / (whole**2).sum())
    selector = Allocated(rule="reconstruction", sample={"tokens": 40, "held_out": 0})
    assert [each.name for each in selector.needs] == ["reconstruction-sample"]
    chosen = selector.select({"c": mbench.Scores(values, seen)}, uneven(3, 8, 4), RNG).chosen
    expected = proportional(np.array(lost), 12, 2, 8)
    assert chosen.sum(axis=1).tolist() == expected.tolist()
    assert expected[1] == expected.min()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]))
def test_groups_keep_equally_many_and_the_best(seed, groups):
    generator = np.random.default_rng(seed)
    where = uneven(4, 12, 6, fewest=groups, groups=groups)
    values = generator.integers(0, 6, (4, 12)).astype(float)
    chosen = Allocated(rule="score-mass").select({"c": scores(values)}, where, RNG).chosen
    assert allowed(chosen, where)
    size = 12 // groups
    for row, kept in zip(values, chosen, strict=True):
        for start in range(0, 12, size):
            inside = range(start, start + size)
            count = int(kept.sum()) // groups
            best = sorted(inside, key=lambda e: (-row[e], e))[:count]
            assert [e for e in inside if kept[e]] == sorted(best)
    assert (best_by_count(values, chosen.sum(axis=1), groups) == chosen).all()
