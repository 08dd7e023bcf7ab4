"""The method on a real MoE layer: what it refuses, and the masks it builds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import mbench
from helpers.sampled_blocks import (
    EXPERTS,
    SMALL,
    TOKENS,
    budget_of,
    measured,
    profile_of,
    profile_with,
    qwen_layers,
    sliced_output,
)
from mbench_plugins import expert_sparsity, reconstruction
from mbench_plugins.expert_sparsity import (
    Reconstruction,
    ReconstructionRefined,
    ReconstructionSample,
    layer_statistics,
)


def mask_of(profile, kept, **params):
    """The whole method, and the mask of its scores alone."""
    scores = mbench.Scores(Reconstruction(**SMALL).score(profile), profile)
    budget = budget_of(kept, len(profile.layers))
    scores_by_corpus = {"c4": scores}
    selection = mbench.TopK().select(scores_by_corpus, budget, np.random.default_rng(0))
    builder = ReconstructionRefined(**(SMALL | params))
    builder.check(budget)
    return builder.build(selection, scores_by_corpus, budget, None), selection.chosen


@pytest.mark.parametrize("renormalise", [True, False])
def test_method_keeps_k_and_improves_on_its_selection(renormalise):
    profile = profile_of(qwen_layers(renormalise))
    for kept in (1, 2, 4, 7, 8):
        best, _ = mask_of(profile, kept, search="enumerate")
        refined, selected = mask_of(profile, kept, search="backward")
        assert (refined.keep.sum(axis=1) == kept).all()
        for number in range(2):
            layer, _, _ = layer_statistics(profile, number, ReconstructionSample(**SMALL))
            losses = [layer.loss(keep[number]) for keep in (best.keep, refined.keep, selected)]
            assert losses == sorted(losses)
        again, _ = mask_of(profile, kept, search="backward")
        assert again.content_hash == refined.content_hash


def test_scores_are_elimination_steps():
    scores = Reconstruction(**SMALL).score(profile_of(qwen_layers(True)))
    assert scores.shape == (2, EXPERTS)
    assert (np.sort(scores, axis=1) == np.arange(EXPERTS)).all()


def test_notes_say_what_was_lost_and_how_it_was_found():
    layers = qwen_layers(False)
    profile = profile_of(layers)
    mask, _ = mask_of(profile, 4)
    errors = [
        layer_statistics(profile, number, ReconstructionSample(**SMALL))[1].relative_loss(keep)
        for number, keep in enumerate(mask.keep)
    ]
    assert mask.notes == (
        f"relative reconstruction error {np.mean(errors):.4g} on 30 held-out tokens,"
        " mean of layers",
        "reconstruction search: best of all 70 sets per layer, squared loss",
    )
    mask, _ = mask_of(profile, 4, search="backward")
    assert "swaps after the selection, 2 layers; 5 restarts found better" in mask.notes[1]


def test_a_short_corpus_is_noted():
    layers = qwen_layers(True)
    asked = {"tokens": 300, "held_out": 0}
    profile = profile_of(layers, **asked)
    scores = {"c4": mbench.Scores(np.zeros((2, EXPERTS)), profile)}
    selection = mbench.TopK().select(scores, budget_of(4), np.random.default_rng(0))
    builder = ReconstructionRefined(**(SMALL | asked))
    notes = builder.build(selection, scores, budget_of(4), None).notes
    assert "on 120 tokens that the experts were chosen on" in notes[0]
    assert notes[2] == "reconstruction sample: all 120 tokens of c4, fewer than the 300 asked for"


@torch.no_grad()
def test_original_loss_is_that_of_the_original_code():
    """Sums of unsquared norms over batches of consecutive tokens, every set tried."""
    (block, hidden), _ = qwen_layers(True)
    whole = {"tokens": TOKENS, "held_out": 0, "seed": 0}
    sample = ReconstructionSample(**whole)
    arrays = measured(sample, block, hidden, 50)
    # A few loud tokens: they decide a sum of squares, and not a sum of norms over small batches.
    loudness = torch.exp(1.5 * torch.randn(TOKENS, 1, dtype=hidden.dtype))
    arrays["gram"] = arrays["gram"] * loudness.square().float().numpy()
    profile = profile_with({sample.identity: [arrays]})
    full = loudness * sliced_output(block, hidden, list(range(EXPERTS)))
    chosen = set()
    for size in (1, 40, TOKENS):
        losses = {}
        for kept in itertools.combinations(range(EXPERTS), 4):
            pruned = loudness * sliced_output(block, hidden, list(kept))
            pairs = zip(full.split(size), pruned.split(size), strict=True)
            losses[kept] = sum(float(torch.linalg.norm(a - b)) for a, b in pairs)
        builder = ReconstructionRefined(**whole, loss="original", batch_tokens=size)
        scores = {"c4": mbench.Scores(np.zeros((1, EXPERTS)), profile)}
        selection = mbench.Selection(np.arange(EXPERTS)[None, :] < 4)
        mask = builder.build(selection, scores, budget_of(4, 1), None)
        chosen.add(tuple(np.flatnonzero(mask.keep[0])))
        assert tuple(np.flatnonzero(mask.keep[0])) == min(losses, key=losses.get)
    assert len(chosen) > 1


def test_too_many_sets_are_refused_before_any_pass():
    large = mbench.Budget(0.5, 30, 24, 60, 4)
    ReconstructionRefined().check(large)
    for params in ({"search": "enumerate"}, {"loss": "original"}):
        with pytest.raises(mbench.Infeasible, match="enumerate_limit: 1000"):
            ReconstructionRefined(**params).check(large)
    ReconstructionRefined(search="enumerate").check(budget_of(4))
    with pytest.raises(ValidationError, match="needs search: enumerate"):
        ReconstructionRefined(loss="original", search="backward")


def test_scorer_and_builder_share_one_statistic():
    scorer, builder = Reconstruction(**SMALL), ReconstructionRefined(**SMALL, enumerate_limit=9)
    assert [each.identity for each in scorer.needs] == [each.identity for each in builder.needs]


def test_two_corpora_are_refused():
    scores = mbench.Scores(np.zeros((1, EXPERTS)), profile_with({"": [{}]}))
    selection = mbench.Selection(np.ones((1, EXPERTS), dtype=bool))
    with pytest.raises(mbench.PluginError, match="one corpus, got 2"):
        ReconstructionRefined().build(selection, {"a": scores, "b": scores}, budget_of(8, 1), None)


def test_hooks_offer_everything():
    names = {component.name for component in expert_sparsity.mbench_components()}
    assert names == {"reconstruction-sample", "reconstruction", "reconstruction-refined"}
    (method,) = expert_sparsity.mbench_methods()
    assert (method.name, method.scorer, method.selector, method.builder, method.corpora) == (
        "expert-sparsity",
        "reconstruction",
        "top-k",
        "reconstruction-refined",
        1,
    )


def test_restarts_never_lose_and_none_is_the_search_alone():
    profile = profile_of(qwen_layers(False))
    sample = ReconstructionSample(**SMALL)
    for kept in (2, 4, 5):
        alone, selected = mask_of(profile, kept, search="backward", restarts=0)
        restarted, _ = mask_of(profile, kept, search="backward", restarts=20)
        best, _ = mask_of(profile, kept, search="enumerate")
        assert alone.notes[1].endswith("2 layers")
        for number in range(2):
            layer, _, _ = layer_statistics(profile, number, sample)
            refined, _ = reconstruction.refine(layer, selected[number])
            assert np.array_equal(alone.keep[number], refined)
            losses = [layer.loss(m.keep[number]) for m in (best, restarted, alone)]
            assert losses == sorted(losses)
            assert losses[1] == pytest.approx(losses[0], rel=1e-9)
