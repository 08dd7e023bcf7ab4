"""The search knows only inner products; the truth here routes tokens and adds up expert outputs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.reconstruction_layers import packed, random_outputs, true_loss
from mbench_plugins.gram_statistics import GramStatistics, packed_size
from mbench_plugins.reconstruction import (
    best_subset,
    elimination_order,
    refine,
    refine_again,
    removal_losses,
    swap_losses,
)

GATES = ("renormalised", "retained", "full")


def subsets(experts, size):
    for members in itertools.combinations(range(experts), size):
        yield np.isin(np.arange(experts), members)


def changed(keep, leaving=None, entering=None):
    result = keep.copy()
    if leaving is not None:
        result[leaving] = False
    if entering is not None:
        result[entering] = True
    return result


@st.composite
def layers(draw):
    """Logits [T, N], outputs [T, N, H], k and a set, with ties and with dominant gates."""
    experts = draw(st.integers(2, 8))
    top_k = draw(st.integers(1, experts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(size=(draw(st.integers(1, 12)), experts))
    logits *= draw(st.sampled_from([0.1, 1.0, 8.0, 60.0]))
    if draw(st.booleans()):
        logits = logits.round()
    # A part that all experts share makes outputs cancel less and errors differ less.
    outputs = rng.normal(size=(*logits.shape, 5)) + draw(st.sampled_from([0.0, 3.0]))
    keep = np.zeros(experts, dtype=bool)
    keep[rng.permutation(experts)[: draw(st.integers(1, experts))]] = True
    return logits, outputs, top_k, keep


@pytest.mark.parametrize("gates", GATES)
@given(case=layers())
@settings(max_examples=60, deadline=None)
def test_loss_is_that_of_real_routing(gates, case):
    logits, outputs, top_k, keep = case
    layer = GramStatistics(logits, packed(outputs), top_k, gates)
    scale = layer.energy.sum() + (outputs**2).sum()
    truth = true_loss(logits, outputs, keep, top_k, gates)
    assert layer.loss(keep) == pytest.approx(truth, abs=1e-13 * scale)


@pytest.mark.parametrize("gates", GATES)
@given(case=layers())
@settings(max_examples=60, deadline=None)
def test_every_single_change_is_the_loss_of_the_changed_set(gates, case):
    logits, outputs, top_k, keep = case
    layer = GramStatistics(logits, packed(outputs), top_k, gates)
    close = {"rel": 1e-11, "abs": 1e-13 * (outputs**2).sum()}
    inside, outside = np.flatnonzero(keep), np.flatnonzero(~keep)
    if len(inside) > 1:
        losses = removal_losses(layer, keep)
        expected = [layer.loss(changed(keep, leaving=expert)) for expert in inside]
        assert losses[inside] == pytest.approx(expected, **close)
        assert np.isinf(losses[outside]).all()
    losses = swap_losses(layer, keep)
    possible = np.ix_(inside, outside)
    expected = [[layer.loss(changed(keep, i, j)) for j in outside] for i in inside]
    assert losses[possible] == pytest.approx(np.reshape(expected, losses[possible].shape), **close)
    losses[possible] = np.inf
    assert np.isinf(losses).all()


@pytest.mark.parametrize("gates", GATES)
def test_a_gate_near_one_does_not_cancel(gates):
    """Without the dominant expert the others share the gate, though beside it they are nothing."""
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(40, 6))
    logits[np.arange(40), rng.integers(0, 6, 40)] += 45
    outputs = rng.normal(size=(40, 6, 4))
    layer = GramStatistics(logits, packed(outputs), 3, gates)
    keep = np.array([True, True, True, True, False, True])
    losses, swaps = removal_losses(layer, keep), swap_losses(layer, keep)
    for expert in np.flatnonzero(keep):
        without, exchanged = changed(keep, leaving=expert), changed(keep, expert, 4)
        truth = true_loss(logits, outputs, without, 3, gates)
        assert losses[expert] == pytest.approx(truth, rel=1e-12)
        truth = true_loss(logits, outputs, exchanged, 3, gates)
        assert swaps[expert, 4] == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("gates", GATES)
def test_absurd_logits_stay_finite(gates):
    logits = np.array([[0.0, -900.0, -901.0, -np.inf], [900.0, -900.0, 0.0, 1.0]])
    outputs = np.random.default_rng(0).normal(size=(2, 4, 3))
    layer = GramStatistics(logits, packed(outputs), 2, gates)
    for size in (1, 2, 3):
        for keep in subsets(4, size):
            assert np.isfinite(layer.loss(keep))
            assert not np.isnan(swap_losses(layer, keep)).any()


def random_layer(seed, experts, top_k, gates, tokens=64):
    """Experts of shared directions with unequal use, so that the choice of a set matters."""
    logits, outputs = random_outputs(np.random.default_rng(seed), experts, tokens)
    return GramStatistics(logits, packed(outputs), top_k, gates)


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize(("seed", "top_k"), [(0, 2), (1, 4), (2, 1), (3, 3)])
def test_search_against_all_subsets(gates, seed, top_k):
    layer = random_layer(seed, 9, top_k, gates)
    order = elimination_order(layer)
    assert sorted(order) == list(range(9))
    for size in range(1, 9):
        losses = [layer.loss(keep) for keep in subsets(9, size)]
        assert layer.loss(best_subset(layer, size)) == min(losses)
        backward = np.isin(np.arange(9), order[9 - size :])
        refined, swaps = refine(layer, backward)
        assert refined.sum() == size
        assert layer.loss(refined) <= layer.loss(backward)
        assert (swaps == 0) == np.array_equal(refined, backward)
        assert layer.loss(refined) <= 1.06 * min(losses)
        again, _ = refine(layer, refined)
        assert np.array_equal(again, refined)


def test_restarts_find_the_optimum_in_nearly_all_layers():
    """Small layers of the kind in which exchanges alone end in a poor set most often."""
    gaps = {0: [], 5: []}
    for seed, gates, size in itertools.product(range(12), GATES, (3, 4, 6)):
        layer = random_layer(100 + seed, 8, 2, gates, tokens=32)
        start = np.isin(np.arange(8), elimination_order(layer)[8 - size :])
        refined, _ = refine(layer, start)
        best = layer.loss(best_subset(layer, size))
        for restarts, found in gaps.items():
            keep, better = refine_again(layer, refined, restarts, np.random.default_rng(seed))
            assert keep.sum() == size
            assert (better > 0) == (layer.loss(keep) < layer.loss(refined))
            found.append(layer.loss(keep) / best - 1)
    alone, restarted = np.array(gaps[0]), np.array(gaps[5])
    assert (restarted <= alone).all()
    assert (alone < 1e-9).mean() > 0.9
    assert (restarted < 1e-9).mean() > 0.98
    assert restarted.max() < 0.05


def test_restarts_do_not_depend_on_how_experts_are_numbered():
    rng = np.random.default_rng(4)
    logits, outputs = random_outputs(rng, 12, 64)
    order = rng.permutation(12)
    found = []
    for number in (np.arange(12), order):
        layer = GramStatistics(logits[:, number], packed(outputs[:, number]), 2, "retained")
        start = np.isin(np.arange(12), elimination_order(layer)[7:])
        keep, _ = refine_again(layer, refine(layer, start)[0], 5, np.random.default_rng(0))
        found.append(set(number[keep]))
    assert found[0] == found[1]


@pytest.mark.parametrize("gates", GATES)
def test_locked_experts_stay(gates):
    for count in range(5):
        rng = np.random.default_rng(count)
        layer = random_layer(count, 8, 2, gates, tokens=32)
        locked = np.isin(np.arange(8), rng.permutation(8)[:count])
        order = elimination_order(layer, locked)
        assert sorted(order) == list(range(8))
        assert set(order[8 - count :]) == set(np.flatnonzero(locked))
        for size in {max(1, count), 4, 6}:
            allowed = [keep for keep in subsets(8, size) if keep[locked].all()]
            losses = [layer.loss(keep) for keep in allowed]
            assert layer.loss(best_subset(layer, size, locked=locked)) == min(losses)
            start = np.isin(np.arange(8), order[8 - size :])
            refined, _ = refine(layer, start, locked)
            keep, _ = refine_again(layer, refined, 5, rng, locked)
            assert refined[locked].all()
            assert keep[locked].all()
            assert layer.loss(keep) <= layer.loss(refined) <= layer.loss(start)
            assert layer.loss(keep) <= 1.02 * min(losses)


def test_equal_experts_leave_by_higher_index():
    """Three copies of one expert, and two experts that no token reaches."""
    logits = np.array([[2.0, 2.0, 2.0, -9.0, -9.0]]).repeat(4, axis=0)
    outputs = np.random.default_rng(0).normal(size=(4, 1, 3)).repeat(5, axis=1)
    layer = GramStatistics(logits, packed(outputs), 1, "renormalised")
    assert elimination_order(layer).tolist() == [4, 3, 2, 1, 0]


def test_other_objectives_can_be_enumerated():
    layer = random_layer(7, 6, 2, "renormalised")
    largest = best_subset(layer, 3, np.max)
    assert layer.errors(largest).max() == min(layer.errors(keep).max() for keep in subsets(6, 3))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        GramStatistics(np.zeros((2, 4)), np.zeros((2, packed_size(5))), 2, "full")
