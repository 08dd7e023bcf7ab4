"""Methods that replace or merge experts, against their formulas computed from a model by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mbench
from helpers.synthetic import budget
from helpers.tiny_models import qwen2_moe, random_sequences
from helpers.watched_layers import Watched, profiled, watch
from mbench.moe.adapter import find_moe_layers
from mbench.moe.mask import masked
from mbench_plugins.hc_smoe import HcSmoe, clusters
from mbench_plugins.m_smoe import MSmoe
from mbench_plugins.merging import MeanOutputs, RouterProducts, shares
from mbench_plugins.mone import Mone, Novices, RoutedOutputs

SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])
LAYERS, EXPERTS, TOKENS = 2, 8, SEQUENCES.tokens
NOTHING = mbench.Selection(np.zeros((LAYERS, EXPERTS), dtype=bool))


@cache
def layers_by_hand() -> list[Watched]:
    return watch(qwen2_moe(), SEQUENCES)


@cache
def profile() -> mbench.Profile:
    statistics = (
        mbench.RoutingSums(),
        RoutedOutputs(),
        RouterProducts(),
        MeanOutputs(),
        MeanOutputs(gated=True),
        MeanOutputs(tokens=5),
    )
    return profiled(qwen2_moe(), SEQUENCES, statistics)


def scores(values: np.ndarray | None = None) -> dict[str, mbench.Scores]:
    values = np.zeros((LAYERS, EXPERTS)) if values is None else values
    return {"c": mbench.Scores(values, profile())}


def selection(*kept: list[int]) -> mbench.Selection:
    chosen = np.zeros((LAYERS, EXPERTS), dtype=bool)
    for row, experts in zip(chosen, kept, strict=True):
        row[experts] = True
    return mbench.Selection(chosen)


def merged(mask: mbench.ExpertMask) -> mbench.Merged:
    assert isinstance(mask.stand_in, mbench.Merged)
    return mask.stand_in


def test_statistics_are_the_sums_they_say() -> None:
    for number, layer in enumerate(layers_by_hand()):

        def found(statistic: mbench.Statistic, name: str, number: int = number) -> np.ndarray:
            return np.asarray(profile().sums(statistic)[name][number])

        routed = layer.routed[:, :, None]
        close = {"rtol": 2e-4, "atol": 2e-4}
        outputs = (layer.outputs * routed).sum(axis=0)
        np.testing.assert_allclose(found(RoutedOutputs(), "output"), outputs, **close)
        squares = ((layer.outputs * routed) ** 2).sum(axis=(0, 2))
        np.testing.assert_allclose(found(RoutedOutputs(), "square"), squares, **close)
        gates = (layer.gates * layer.routed).sum(axis=0)
        np.testing.assert_allclose(found(RoutedOutputs(), "gate"), gates, **close)
        np.testing.assert_array_equal(found(RoutedOutputs(), "count"), layer.routed.sum(axis=0))
        products = layer.logits.T @ layer.logits
        np.testing.assert_allclose(found(RouterProducts(), "products"), products, **close)
        everything = layer.outputs.sum(axis=0)
        np.testing.assert_allclose(found(MeanOutputs(), "output"), everything, **close)
        gated = (layer.outputs * layer.gates[:, :, None]).sum(axis=0)
        np.testing.assert_allclose(found(MeanOutputs(gated=True), "output"), gated, **close)
        assert (found(MeanOutputs(), "tokens") == TOKENS).all()
        assert (found(MeanOutputs(tokens=5), "tokens") == 5).all()


def test_novices_are_means_and_scores_are_deviation_times_gates() -> None:
    chosen = selection([0, 3, 5], [1, 2, 7])
    mask = Novices().build(chosen, scores(), budget(LAYERS, EXPERTS, 3), None)
    assert isinstance(mask.stand_in, mbench.Constants)
    assert (mask.keep == chosen.chosen).all()
    score = Mone().score(profile())
    for number, layer in enumerate(layers_by_hand()):
        for expert in range(EXPERTS):
            tokens = layer.routed[:, expert]
            outputs = layer.outputs[tokens, expert]
            novice = np.zeros(outputs.shape[1])
            if len(outputs) and not chosen.chosen[number, expert]:
                novice = outputs.mean(axis=0)
            found = mask.stand_in.outputs[number, expert]
            np.testing.assert_allclose(found, novice, rtol=1e-3, atol=1e-4)
            expected = 0.0
            if len(outputs) > 1:
                deviation = np.sqrt(outputs.var(axis=0, ddof=1).sum())
                expected = deviation * layer.gates[tokens, expert].sum() / TOKENS
            np.testing.assert_allclose(score[number, expert], expected, rtol=1e-3, atol=1e-6)


def test_m_smoe_joins_the_dominant_expert_with_the_most_similar_logits() -> None:
    chosen = selection([0, 3, 5, 6], [2, 4])
    mask = MSmoe().build(chosen, scores(), budget(LAYERS, EXPERTS, 3), None)
    assert (mask.keep == chosen.chosen).all()
    assert merged(mask).router == "mapped"
    assert merged(mask).neurons == "matched"
    for number, layer in enumerate(layers_by_hand()):
        dominant = np.flatnonzero(chosen.chosen[number])
        into = merged(mask).into[number]
        for expert in range(EXPERTS):
            mine = layer.logits[:, expert]
            likeness = {}
            for other in dominant:
                theirs = layer.logits[:, other]
                product = mine @ theirs / np.linalg.norm(mine) / np.linalg.norm(theirs)
                likeness[int(other)] = (product + 1) / 2
            assert into[expert] == max(likeness, key=likeness.__getitem__)
        usage = layer.routed.sum(axis=0)
        for expert in range(EXPERTS):
            total = usage[into == into[expert]].sum()
            share = merged(mask).weights[number, expert]
            np.testing.assert_allclose(share, usage[expert] / total, rtol=1e-6)


def slow_clusters(points: np.ndarray, count: int) -> list[set[int]]:
    """Average linkage with all distances between all clusters computed anew for each join."""
    found = [{point} for point in range(len(points))]
    while len(found) > count:
        pairs = [(a, b) for a in range(len(found)) for b in range(a)]

        def distance(pair: tuple[int, int]) -> float:
            first, second = (sorted(found[number]) for number in pair)
            between = points[first][:, None] - points[second][None]
            return float(np.linalg.norm(between, axis=2).mean())

        first, second = min(pairs, key=distance)
        found[second] |= found.pop(first)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.data())
def test_clusters_are_those_of_average_linkage(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, size))
    seed = data.draw(st.integers(0, 10**6))
    points = np.random.default_rng(seed).standard_normal((size, 3))
    label = clusters(points, count)
    found = {frozenset(np.flatnonzero(label == name).tolist()) for name in np.unique(label)}
    assert found == {frozenset(cluster) for cluster in slow_clusters(points, count)}


def test_hc_smoe_clusters_mean_outputs_and_keeps_the_most_central() -> None:
    mask = HcSmoe().build(NOTHING, scores(), budget(LAYERS, EXPERTS, 3), None)
    assert merged(mask).router == "mapped"
    assert merged(mask).neurons is None
    for number, layer in enumerate(layers_by_hand()):
        means = layer.outputs.mean(axis=0)
        usage = layer.routed.sum(axis=0)
        for cluster in slow_clusters(means, 3):
            members = sorted(cluster)
            centre = means[members].mean(axis=0)
            # Two members are equally close but for the rounding.
            distance = np.linalg.norm(means[members] - centre, axis=1).round(9)
            kept = members[int(distance.argmin())]
            assert (merged(mask).into[number][members] == kept).all()
            assert mask.keep[number][members].tolist() == [member == kept for member in members]
            np.testing.assert_allclose(
                merged(mask).weights[number][members],
                usage[members] / usage[members].sum(),
                rtol=1e-6,
            )


def test_copies_of_an_expert_are_clustered() -> None:
    model = qwen2_moe()
    with torch.no_grad():
        for layer in find_moe_layers(model):
            for copy, original in ((4, 1), (6, 1), (7, 2)):
                layer.experts.gate_up_proj[copy] = layer.experts.gate_up_proj[original]
                layer.experts.down_proj[copy] = layer.experts.down_proj[original]
    seen = profiled(model, SEQUENCES, (mbench.RoutingSums(), MeanOutputs()))
    values = {"c": mbench.Scores(np.zeros((LAYERS, EXPERTS)), seen)}
    mask = HcSmoe().build(NOTHING, values, budget(LAYERS, EXPERTS, 5), None)
    into = merged(mask).into
    assert (into[:, 4] == into[:, 1]).all()
    assert (into[:, 6] == into[:, 1]).all()
    assert (into[:, 7] == into[:, 2]).all()
    # A group of equal experts is that expert again.
    np.testing.assert_allclose(merged(mask).weights[:, [1, 4, 6]].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("builder", [MSmoe(), HcSmoe()])
def test_merged_copies_compute_what_the_whole_model_does(builder: mbench.MaskBuilder) -> None:
    model = qwen2_moe()
    layers = find_moe_layers(model)
    order = torch.from_numpy(np.random.default_rng(3).permutation(16))
    if isinstance(builder, HcSmoe):
        order = torch.arange(16)  # it does not look for neurons in another order
    with torch.no_grad():
        for layer in layers:
            for copy in range(3, EXPERTS):
                gate, up = layer.experts.gate_up_proj[copy % 3].chunk(2)
                layer.experts.gate_up_proj[copy] = torch.cat((gate[order], up[order]))
                layer.experts.down_proj[copy] = layer.experts.down_proj[copy % 3][:, order]
                layer.router.weight[copy] = layer.router.weight[copy % 3] * (1 - 0.05 * copy)
    seen = profiled(model, SEQUENCES, builder.needs)
    values = {"c": mbench.Scores(np.zeros((LAYERS, EXPERTS)), seen)}
    chosen = selection([0, 4, 5], [3, 1, 2])
    mask = builder.build(chosen, values, budget(LAYERS, EXPERTS, 3), None)
    for row in merged(mask).into:
        assert (row % 3 == np.arange(EXPERTS) % 3).all()
    ids = torch.from_numpy(random_sequences([12, 12]).ids)
    whole = model(input_ids=ids).logits
    with masked(layers, mask):
        torch.testing.assert_close(model(input_ids=ids).logits, whole, rtol=1e-4, atol=1e-4)
    with masked(layers, mask.keep):
        assert not torch.allclose(model(input_ids=ids).logits, whole, atol=1e-2)


@pytest.mark.parametrize("builder", [MSmoe(), HcSmoe(), Novices()])
def test_keeping_all_changes_nothing(builder: mbench.MaskBuilder) -> None:
    everything = mbench.Selection(np.ones((LAYERS, EXPERTS), dtype=bool))
    mask = builder.build(everything, scores(), budget(LAYERS, EXPERTS, EXPERTS), None)
    assert mask.keep.all()
    if isinstance(mask.stand_in, mbench.Constants):
        assert not mask.stand_in.outputs.any()
    else:
        assert (merged(mask).into == np.arange(EXPERTS)).all()
        assert (merged(mask).weights == 1).all()


def test_a_group_that_is_never_used_is_shared_equally() -> None:
    usage = np.array([[0.0, 0.0, 3.0, 1.0, 0.0]])
    into = np.array([[0, 0, 2, 2, 2]])
    assert shares(usage, into).tolist() == [[0.5, 0.5, 0.75, 0.25, 0.0]]
