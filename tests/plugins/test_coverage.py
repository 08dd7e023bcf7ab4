"""Adaptive protection and joint coverage against plain loops and all sets."""

from __future__ import annotations

import dataclasses
import itertools

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
from helpers.synthetic import budget, profile
from mbench_plugins.adaptive_protection import AdaptiveRoundRobin
from mbench_plugins.joint_coverage import ReconstructProtected

RNG = np.random.default_rng(0)


def least_coverage(
    scores: list[np.ndarray], masses: list[np.ndarray], share: float
) -> tuple[list[int], int]:
    """One layer, step by step: the protected experts, and how many it took."""
    protected: list[int] = []
    turn = 0
    while True:
        sums = [sum(mass[e] for e in protected) for mass in masses]
        if all(s >= share * m.sum() - 1e-9 for s, m in zip(sums, masses, strict=True)):
            return protected, len(protected)
        values = scores[turn % len(scores)]
        left = [e for e in range(len(values)) if e not in protected]
        protected.append(max(left, key=lambda e: (values[e], -e)))
        turn += 1


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
)
def test_adaptive_protection_is_the_least_that_covers_every_corpus(seed, corpora, share):
    generator = np.random.default_rng(seed)
    where = budget(3, 9, int(generator.integers(1, 10)))
    given_scores = {}
    for number in range(corpora):
        mass = generator.integers(0, 6, (3, 9)).astype(float)
        values = generator.integers(0, 5, (3, 9)).astype(float)
        seen = profile({"gate_norm": mass}, mbench.RoutingSums())
        given_scores[f"c{number}"] = mbench.Scores(values, seen)
    selection = AdaptiveRoundRobin(share=share).select(given_scores, where, RNG)
    sizes = []
    for layer, row in enumerate(selection.chosen):
        rows = [each.values[layer] for each in given_scores.values()]
        masses = [
            each.profile.sums(mbench.RoutingSums())["gate_norm"][layer]
            for each in given_scores.values()
        ]
        protected, size = least_coverage(rows, masses, share)
        sizes.append(size)
        assert set(np.flatnonzero(row)) == set(protected[: where.kept])
    clamped = sum(size > where.kept for size in sizes)
    assert selection.notes[0].startswith(f"protection budget {min(sizes)} to {max(sizes)}, mean")
    assert len(selection.notes) == 1 + (clamped > 0)


@pytest.mark.parametrize("router", ["sliced", "preserved"])
@pytest.mark.parametrize("enumerate_limit", [1, 1000])
def test_joint_coverage_against_all_sets_that_hold_the_protected(router, enumerate_limit):
    gates = "retained" if router == "sliced" else "full"
    for seed in range(3):
        generator = np.random.default_rng(seed)
        drawn = [[random_outputs(generator, 8, 24) for _ in range(2)] for _ in range(2)]
        # The second corpus is ten times as loud and would decide alone.
        drawn[1] = [(logits, 10 * outputs) for logits, outputs in drawn[1]]
        given_scores = {}
        for number, layers in enumerate(drawn):
            arrays = [sample_arrays(logits, outputs, 2) for logits, outputs in layers]
            seen = sampled_profile(arrays, 2, f"c{number}", router)
            given_scores[seen.corpus] = mbench.Scores(np.zeros((2, 8)), seen)
        protected = np.zeros((2, 8), dtype=bool)
        for row in protected:
            row[generator.permutation(8)[:2]] = True
        builder = ReconstructProtected(tokens=24, held_out=0, enumerate_limit=enumerate_limit)
        where = dataclasses.replace(budget(2, 8, 4), router=router)
        mask = builder.build(mbench.Selection(protected, ("b",)), given_scores, where, None)
        assert mask.notes[0] == "b"
        reached = []
        for layer, row in enumerate(mask.keep):
            assert row.sum() == 4
            assert row[protected[layer]].all()

            corpora = [layers[layer] for layers in drawn]

            def objective(keep, corpora=corpora):
                total = 0.0
                for logits, outputs in corpora:
                    everyone = np.ones(8, dtype=bool)
                    output = routed_output(logits, outputs, everyone, 2, gates)
                    total += true_loss(logits, outputs, keep, 2, gates) / (output**2).sum()
                return total

            losses = [
                objective(np.isin(np.arange(8), members))
                for members in itertools.combinations(range(8), 4)
                if set(np.flatnonzero(protected[layer])) <= set(members)
            ]
            assert objective(row) == pytest.approx(min(losses), rel=1e-6)
            reached.append(objective(row) / 2)
        assert f"error {np.mean(reached):.4g} on tokens that the experts were" in mask.notes[1]


def test_more_protected_than_kept_is_refused():
    selection = mbench.Selection(np.ones((1, 4), dtype=bool))
    with pytest.raises(mbench.PluginError, match="cannot keep 4 protected experts in a layer of 2"):
        ReconstructProtected().build(selection, {}, budget(1, 4, 2), None)
