"""The guard of super experts: planted ones are found and kept, whatever the scores say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import mbench
from helpers.synthetic import budget, scores
from helpers.tiny_models import FAMILIES, random_sequences
from helpers.watched_layers import profiled, watch
from mbench.moe.adapter import find_moe_layers
from mbench_plugins.reap import Reap
from mbench_plugins.super_experts import OutputPeaks, SuperExperts, peaks_of

SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])


def with_peaks(values, peaks):
    """Scores [layers, N] of a profile in which three batches saw at most these peaks."""
    (given,) = [scores(values)]
    batches = np.stack([peaks / 3, peaks, peaks / 2])
    seen = dataclasses.replace(
        given.profile, load_samples=lambda identity, layer: {"peak": batches[:, layer]}
    )
    return {"c": mbench.Scores(given.values, seen)}


def select(values, peaks, kept, **params):
    where = budget(*values.shape, kept)
    return SuperExperts(**params).select(with_peaks(values, peaks), where, np.random.default_rng(0))


def test_peaks_are_the_largest_magnitudes_of_routed_outputs():
    model = FAMILIES["mixtral"]()
    found = peaks_of(profiled(model, SEQUENCES, [OutputPeaks()]))
    for number, layer in enumerate(watch(model, SEQUENCES)):
        expected = [
            max(
                (abs(layer.outputs[t, e]).max() for t in np.flatnonzero(layer.routed[:, e])),
                default=0,
            )
            for e in range(8)
        ]
        np.testing.assert_allclose(found[number], expected, rtol=1e-4)


def test_a_planted_super_expert_of_no_other_worth_is_kept():
    model = FAMILIES["qwen2_moe"](num_hidden_layers=4)
    layers = find_moe_layers(model)
    layers[1].experts.down_proj.data[3] *= 1000
    # In a layer too late to count.
    layers[3].experts.down_proj.data[4] *= 900
    profile = profiled(model, SEQUENCES, [OutputPeaks(), *Reap().needs])
    values = Reap().score(profile)
    values[1, 3] = values[3, 4] = -1.0
    given = {"c": mbench.Scores(values, profile)}
    found = SuperExperts(quantile=0.9).select(given, budget(4, 8, 3), np.random.default_rng(0))
    expected = np.zeros((4, 8), dtype=bool)
    np.put_along_axis(expected, np.argsort(-values, axis=1)[:, :3], True, axis=1)
    last = np.argsort(-values[1])[2]
    expected[1, [3, last]] = True, False
    np.testing.assert_array_equal(found.chosen, expected)
    assert found.notes == ("super experts: 1, of which 1 were kept only for that",)


@pytest.mark.parametrize("kept", [1, 2, 5, 8])
def test_the_rule_of_the_published_program(kept):
    generator = np.random.default_rng(3)
    for _ in range(20):
        values = generator.integers(0, 4, (5, 8)).astype(float)
        peaks = generator.pareto(1.0, (5, 8))
        chosen = select(values, peaks, kept, quantile=0.8).chosen
        ordered = np.sort(peaks.ravel())
        position = 0.8 * (len(ordered) - 1)
        low = int(position)
        quantile = ordered[low] + (position - low) * (ordered[low + 1] - ordered[low])
        for layer in range(5):
            guarded = [
                layer < 3 and peak > quantile and peak > peaks.max() / 10 for peak in peaks[layer]
            ]
            best = sorted(range(8), key=lambda e: (not guarded[e], -values[layer, e], e))
            assert np.flatnonzero(chosen[layer]).tolist() == sorted(best[:kept])


def test_more_super_experts_than_are_kept_are_told():
    peaks = np.ones((4, 8))
    peaks[0, :4] = 100.0
    values = np.tile(np.arange(8.0), (4, 1))
    selection = select(values, peaks, 2, quantile=0.5)
    assert np.flatnonzero(selection.chosen[0]).tolist() == [2, 3]
    assert selection.notes[-1] == "super experts dropped: 2, more than K in a layer"
