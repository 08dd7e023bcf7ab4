"""The plugin on a real MoE layer: what it samples, what it refuses, and the masks it builds."""

import copy
import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import mbench
from mbench_plugins import expert_sparsity, reconstruction
from mbench_plugins.expert_sparsity import (
    Reconstruction,
    ReconstructionRefined,
    ReconstructionSample,
    layer_statistics,
    sample_roles,
)
from mbench_plugins.gram_statistics import renormalises

TOKENS, EXPERTS, TOP_K, HIDDEN = 120, 8, 2, 32
SMALL = {"tokens": 60, "held_out": 30, "seed": 3}


def qwen_layers(renormalise):
    """The two MoE blocks of a random Qwen2-MoE and their inputs [TOKENS, HIDDEN], float64."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=50,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=48,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=24,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        norm_topk_prob=renormalise,
        experts_implementation="eager",  # the others compute in float32 at most
    )
    model = Qwen2MoeForCausalLM(config).double().eval()
    for name, parameter in model.named_parameters():
        if ".mlp." in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    blocks = [layer.mlp for layer in model.model.layers]
    inputs = {}
    for block in blocks:
        block.register_forward_pre_hook(
            lambda module, args: inputs.update({module: args[0].reshape(-1, HIDDEN)})
        )
    with torch.no_grad():
        model(torch.randint(0, 50, (4, TOKENS // 4)))
    return [(block, inputs[block]) for block in blocks]


def all_outputs(block, hidden):
    """[t, N, H]: every expert alone, called through the block's own code with weight 1."""
    one = torch.ones(len(hidden), 1, dtype=hidden.dtype)
    outputs = [
        block.experts(hidden, torch.full((len(hidden), 1), expert), one)
        for expert in range(EXPERTS)
    ]
    return torch.stack(outputs, dim=1)


def batches(statistic, block, hidden, size):
    for rows in torch.arange(TOKENS).split(size):
        sampled = np.intersect1d(statistic.sampled_tokens(TOKENS), rows.numpy()) - int(rows[0])
        part = hidden[rows]
        logits, weights, index = block.gate(part)
        yield mbench.LayerBatch(
            layer="model.layers.0.mlp.experts",
            num_experts=EXPERTS,
            hidden=part,
            top_k_index=index,
            top_k_weight=weights,
            output_norm=torch.zeros(index.shape),
            token=rows,
            ids=rows,
            start=int(rows[0]),
            total_tokens=TOKENS,
            sampled=torch.from_numpy(sampled),
            residual=lambda: pytest.fail("not needed"),
            router_logits=lambda logits=logits: logits.float(),
            routed_outputs=lambda: pytest.fail("not needed"),
            expert_outputs=lambda chosen, part=part: all_outputs(block, part[chosen]),
            inner_activations=lambda rows: pytest.fail("not needed"),
        )


@torch.no_grad()
def measured(statistic, block, hidden, size=TOKENS):
    parts = [statistic.measure(batch) for batch in batches(statistic, block, hidden, size)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def profile_of(layers, router="sliced", **params):
    statistic = ReconstructionSample(**(SMALL | params))
    samples = [measured(statistic, block, hidden) for block, hidden in layers]
    return profile_with({statistic.identity: samples}, router)


def profile_with(samples, router="sliced", tokens=TOKENS):
    count = len(next(iter(samples.values())))
    return mbench.Profile(
        corpus="c4",
        layers=tuple(f"model.layers.{number}.mlp.experts" for number in range(count)),
        num_experts=EXPERTS,
        top_k=TOP_K,
        tokens=tokens,
        router=router,
        shard_sums={},
        load_samples=lambda identity, layer: samples[identity][layer],
    )


def budget_of(kept, layers=2):
    return mbench.Budget(kept / EXPERTS, kept, layers, EXPERTS, TOP_K)


def mask_of(profile, kept, **params):
    """The whole method, and the mask of its scores alone."""
    scores = mbench.Scores(Reconstruction(**SMALL).score(profile), profile)
    budget = budget_of(kept, len(profile.layers))
    scores_by_corpus = {"c4": scores}
    selection = mbench.TopK().select(scores_by_corpus, budget, np.random.default_rng(0))
    builder = ReconstructionRefined(**(SMALL | params))
    builder.check(budget)
    return builder.build(selection, scores_by_corpus, budget, None), selection.chosen


def sliced_output(block, hidden, kept):
    """The routed output [t, H] of a physically smaller block."""
    block = copy.deepcopy(block)
    block.gate.weight.data = block.gate.weight.data[kept]
    block.gate.top_k = min(TOP_K, len(kept))
    block.experts.gate_up_proj.data = block.experts.gate_up_proj.data[kept]
    block.experts.down_proj.data = block.experts.down_proj.data[kept]
    block.experts.num_experts = len(kept)
    _, weights, index = block.gate(hidden)
    return block.experts(hidden, index, weights)


def preserved_output(block, hidden, kept):
    """The routed output [t, H] with the gates that retained experts have in the full block."""
    gates = torch.softmax(hidden @ block.gate.weight.T, dim=-1)
    outputs = all_outputs(block, hidden)
    weights, index = gates[:, kept].topk(min(TOP_K, len(kept)))
    return (
        weights[:, :, None] * outputs[:, kept].gather(1, index[:, :, None].expand(-1, -1, HIDDEN))
    ).sum(1)


@pytest.mark.parametrize(
    ("renormalise", "router"), [(True, "sliced"), (False, "sliced"), (False, "preserved")]
)
@torch.no_grad()
def test_loss_is_the_error_of_the_pruned_block(renormalise, router):
    layers = qwen_layers(renormalise)
    profile = profile_of(layers, router)
    pruned = sliced_output if router == "sliced" else preserved_output
    for number, (block, hidden) in enumerate(layers):
        statistics, held_out, tokens = layer_statistics(
            profile, number, ReconstructionSample(**SMALL)
        )
        roles = sample_roles(TOKENS, **SMALL)
        assert tokens.tolist() == np.flatnonzero(roles == 1).tolist()
        full = sliced_output(block, hidden, list(range(EXPERTS)))
        for kept in ([0, 3, 4, 6], [5], [1, 2, 3, 4, 5, 6, 7]):
            keep = np.isin(np.arange(EXPERTS), kept)
            squared = (full - pruned(block, hidden, kept)).square().sum(dim=1).numpy()
            # Logits and inner products are kept in float32.
            assert statistics.loss(keep) == pytest.approx(squared[roles == 1].sum(), rel=1e-5)
            share = squared[roles == 2].sum() / full.square().sum(dim=1).numpy()[roles == 2].sum()
            assert held_out.relative_loss(keep) == pytest.approx(share, rel=1e-5)


def test_statistic_is_the_same_for_any_batch_size():
    (block, hidden), _ = qwen_layers(True)
    statistic = ReconstructionSample(**SMALL)
    whole = measured(statistic, block, hidden)
    assert len(whole["token"]) == 90
    assert whole["held_out"].sum() == 30
    # Batches of one token: most contain no token of the sample.
    for size in (1, 7, 50):
        parts = measured(statistic, block, hidden, size)
        assert parts.keys() == whole.keys()
        for name, values in whole.items():
            assert parts[name].dtype == values.dtype
            assert parts[name] == pytest.approx(values, rel=1e-6, abs=1e-7)


@torch.no_grad()
def test_statistic_equals_a_naive_computation(monkeypatch):
    (block, hidden), _ = qwen_layers(False)
    monkeypatch.setattr(expert_sparsity, "VALUES_AT_ONCE", 5 * EXPERTS * HIDDEN)
    arrays = measured(ReconstructionSample(**SMALL), block, hidden)
    for row, token in enumerate(arrays["token"]):
        logits = block.gate.weight @ hidden[token]
        assert arrays["router_logits"][row] == pytest.approx(logits.tolist(), rel=1e-5, abs=1e-6)
        weights, index = torch.softmax(logits, 0).topk(TOP_K)
        assert arrays["top_k_index"][row].tolist() == index.tolist()
        assert arrays["top_k_weight"][row] == pytest.approx(weights.tolist(), rel=1e-5)
        outputs = []
        for expert in range(EXPERTS):
            gate, up = (block.experts.gate_up_proj[expert] @ hidden[token]).chunk(2)
            outputs.append(block.experts.down_proj[expert] @ (gate * gate.sigmoid() * up))
        products = [
            float(outputs[i] @ outputs[j]) for i in range(EXPERTS) for j in range(i, EXPERTS)
        ]
        assert arrays["gram"][row] == pytest.approx(products, rel=1e-4, abs=1e-5)


def test_a_short_corpus_is_used_whole():
    roles = sample_roles(100, 300, 100, 0)
    assert np.bincount(roles).tolist() == [0, 75, 25]
    assert sample_roles(1, 8192, 1024, 0).tolist() == [1]
    sparse = sample_roles(10_000, 100, 0, 1)
    assert np.bincount(sparse).tolist() == [9_900, 100]
    # Spread over the corpus, and different for another seed.
    assert (np.bincount(np.flatnonzero(sparse) // 1_000, minlength=10) > 0).all()
    assert not np.array_equal(sparse, sample_roles(10_000, 100, 0, 2))


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


def routed(gates, top_k=3):
    index = np.argsort(-gates, axis=1, kind="stable")[:, :top_k]
    return index, np.take_along_axis(gates, index, axis=1)


def test_gates_tell_whether_a_router_renormalises():
    logits = np.random.default_rng(0).normal(size=(200, 10)).astype(np.float32)
    softmax = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    index, weight = routed(softmax)
    for factor in (1.0, 2.5):
        assert not renormalises(logits, index, factor * weight)
        assert renormalises(logits, index, factor * weight / weight.sum(axis=1, keepdims=True))
    rounded = torch.from_numpy(weight).bfloat16().float().numpy()
    assert not renormalises(logits, index, rounded)


@pytest.mark.parametrize("spread", [0.3, 3.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_other_routers_are_refused(spread, normalise):
    logits = spread * np.random.default_rng(0).normal(size=(200, 10))
    sigmoid = 1 / (1 + np.exp(-logits))
    index, weight = routed(sigmoid)
    if normalise:
        weight = weight / weight.sum(axis=1, keepdims=True)
    with pytest.raises(ValueError, match="not a softmax"):
        renormalises(logits, index, weight)
    # Softmax gates, but chosen with a bias.
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    biased, _ = routed(softmax + np.arange(10))
    with pytest.raises(ValueError, match="largest logits"):
        renormalises(logits, biased, np.take_along_axis(softmax, biased, axis=1))


def test_a_refused_router_is_named():
    layers = qwen_layers(True)
    statistic = ReconstructionSample(**SMALL)
    samples = [measured(statistic, block, hidden) for block, hidden in layers]
    samples[1]["top_k_weight"] = samples[1]["top_k_weight"] ** 2
    profile = profile_with({statistic.identity: samples})
    with pytest.raises(mbench.UnsupportedModel, match=r"^model\.layers\.1.*not defined.*softmax"):
        Reconstruction(**SMALL).score(profile)


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
