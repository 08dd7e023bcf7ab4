"""The first-party methods against plain re-statements of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mbench
from helpers.synthetic import budget, profile, scores
from mbench_plugins.aggregation import Aggregate, AggregateProtected
from mbench_plugins.protection import Protect
from mbench_plugins.random_pruning import Uniform
from mbench_plugins.reap import Reap
from mbench_plugins.tb_coverage import RoundRobin

SEED = np.random.default_rng(0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[np.ndarray], int, int, np.ndarray]:
    """Scores of 1 to 3 corpora with many ties, K, B and a candidate of K per layer."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(2, 12))
    kept = draw(st.integers(1, experts))
    protected = draw(st.integers(0, experts))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    corpora = [
        generator.integers(0, 5, (layers, experts)).astype(float)
        for _ in range(draw(st.integers(1, 3)))
    ]
    candidate = np.zeros((layers, experts), dtype=bool)
    for row in candidate:
        row[generator.choice(experts, kept, replace=False)] = True
    return corpora, kept, protected, candidate


def ranked(values: np.ndarray) -> list[int]:
    """Best first; among equals the lower index."""
    return sorted(range(len(values)), key=lambda expert: (-values[expert], expert))


def tb_coverage(corpora: list[np.ndarray], kept: int, size: int, candidate: set[int]) -> set[int]:
    """Algorithm 1 of arXiv 2607.01710 for one layer, with B clamped to K."""
    rankings = [ranked(values) for values in corpora]
    protected: list[int] = []
    turn = 0
    while len(protected) < min(size, kept):
        ranking = rankings[turn % len(rankings)]
        protected.append(next(expert for expert in ranking if expert not in protected))
        turn += 1
    return merged(corpora, kept, set(protected), candidate)


def merged(
    corpora: list[np.ndarray], kept: int, protected: set[int], candidate: set[int]
) -> set[int]:
    mask = candidate | protected
    average = sum(corpora) / len(corpora)
    while len(mask) > kept:
        removable = [expert for expert in ranked(average) if expert in mask - protected]
        mask.remove(removable[-1])
    return mask


def by_name(corpora: list[np.ndarray]) -> dict[str, mbench.Scores]:
    return {f"corpus{number}": scores(values) for number, values in enumerate(corpora)}


@settings(deadline=None, max_examples=150)
@given(cases())
def test_tb_coverage_is_algorithm_1(case):
    corpora, kept, size, candidate = case
    where = budget(*candidate.shape, kept)
    given_scores = by_name(corpora)
    selection = RoundRobin(protected=size).select(given_scores, where, SEED)
    mask = Protect().build(selection, given_scores, where, mbench.ExpertMask(candidate))
    for layer, row in enumerate(mask.keep):
        start = set(np.flatnonzero(candidate[layer]))
        expected = tb_coverage([values[layer] for values in corpora], kept, size, start)
        assert set(np.flatnonzero(row)) == expected
    assert bool(mask.notes) == (size >= kept)


def test_protection_refuses_candidates_that_it_would_distort():
    values = np.arange(12.0).reshape(2, 6)
    given_scores, where = by_name([values]), budget(2, 6, 3)
    selection = RoundRobin(protected=1).select(given_scores, where, SEED)
    uneven = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], dtype=bool)
    with pytest.raises(mbench.PluginError, match="a candidate with 2 to 4 experts per layer"):
        Protect().build(selection, given_scores, where, mbench.ExpertMask(uneven))
    keep = np.tile([True, False], (2, 3))
    constants = mbench.Constants(np.zeros((2, 6, 4), dtype=np.float32))
    with pytest.raises(mbench.PluginError, match="a candidate that replaces or merges experts"):
        Protect().build(selection, given_scores, where, mbench.ExpertMask(keep, stand_in=constants))


@settings(deadline=None, max_examples=100)
@given(cases(), st.sampled_from(["mean", "max"]))
def test_aggregates_whole_and_protected(case, reduce):
    corpora, kept, size, candidate = case
    where = budget(*candidate.shape, kept)
    given_scores = by_name(corpora)
    whole = Aggregate(reduce=reduce).select(given_scores, where, SEED).chosen
    selection = AggregateProtected(reduce=reduce, protected=size).select(given_scores, where, SEED)
    mask = Protect().build(selection, given_scores, where, mbench.ExpertMask(candidate)).keep
    for layer in range(len(candidate)):
        rows = [values[layer] for values in corpora]
        joined = sum(rows) / len(rows) if reduce == "mean" else np.max(rows, axis=0)
        order = ranked(joined)
        assert set(np.flatnonzero(whole[layer])) == set(order[:kept])
        start = set(np.flatnonzero(candidate[layer]))
        expected = merged(rows, kept, set(order[: min(size, kept)]), start)
        assert set(np.flatnonzero(mask[layer])) == expected


def test_overflow_error_refuses_and_names_the_numbers():
    selector = RoundRobin(protected=20, overflow="error")
    selector.check(budget(2, 60, 20))
    with pytest.raises(mbench.Infeasible, match=r"20 exceeds the 15 experts kept"):
        selector.check(budget(2, 60, 15))
    with pytest.raises(mbench.Infeasible, match="exceeds the 8 experts"):
        RoundRobin(protected=9).check(budget(1, 8, 4))


def test_reap_is_the_conditional_mean_and_unseen_experts_score_zero():
    sums = {
        "count": np.array([[4.0, 0.0, 2.0]]),
        "gate": np.array([[1.0, 0.0, 1.5]]),
        "norm": np.array([[8.0, 0.0, 3.0]]),
        "gate_norm": np.array([[2.0, 0.0, 3.0]]),
        "squared_norm": np.array([[18.0, 0.0, 5.0]]),
    }
    seen = profile(sums, mbench.RoutingSums())
    assert Reap().score(seen).tolist() == [[0.5, 0.0, 1.5]]
    variants = {"sum": "gate_norm", "count": "count", "gate": "gate", "norm": "norm"}
    for variant, array in variants.items():
        assert Reap(variant=variant).score(seen).tolist() == sums[array].tolist()
    assert Reap(variant="mean-norm").score(seen).tolist() == [[2.0, 0.0, 1.5]]
    assert Reap(variant="mean-squared-norm").score(seen).tolist() == [[4.5, 0.0, 2.5]]


def test_random_masks_are_uniform_independent_and_reproducible():
    where = budget(4, 8, 3)
    draws = np.array(
        [Uniform().select({}, where, np.random.default_rng(seed)).chosen for seed in range(2000)]
    )
    assert (draws.sum(axis=2) == 3).all()
    # 3/8 of 2000 has a standard deviation of 22; 32 frequencies stay within 4.5 of them.
    assert (np.abs(draws.sum(axis=0) - 750) < 98).all()
    together = (draws[:, 0, 0] & draws[:, 1, 0]).mean()
    assert abs(together - (3 / 8) ** 2) < 0.04
    again = Uniform().select({}, where, np.random.default_rng(7)).chosen
    assert (again == draws[7]).all()


@pytest.mark.parametrize("normalize", ["rank", "zscore", "max"])
def test_normalisation_makes_corpora_of_different_scale_count_alike(normalize):
    small = np.array([[3.0, 1.0, 2.0, 0.5]])
    large = 1000 * np.array([[0.5, 1.0, 2.0, 3.0]])
    chosen = [
        Aggregate(normalize=normalize).select(by_name(pair), budget(1, 4, 2), SEED).chosen
        for pair in ([small, large], [1000 * small, large])
    ]
    assert (chosen[0] == chosen[1]).all()
