"""Every Mixture-of-Experts causal language model of transformers is treated or refused by name."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.changed_by_hand import sliced_by_hand
from helpers.family_cases import CASES, SEQUENCES, logits_of, model_and_layers, random_keep
from helpers.family_models import (
    COMPOSITE,
    FAMILIES,
    REFUSED,
    blocks,
    configuration,
    family_of,
    moe_model_types,
)
from helpers.family_oracle import captured
from helpers.family_table import table
from helpers.places import ROOT
from mbench.core.basics import RoutingSums
from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import Statistic
from mbench.moe.adapter import find_moe_layers
from mbench.moe.every_expert import (
    all_inner_activations,
    all_outputs,
    joint_inner_activations,
    joint_outputs,
)
from mbench.moe.experts import experts_function, sorted_groups, sorted_loop
from mbench.moe.mask import checked, masked
from mbench.moe.preserved import gates_when_pruned
from mbench.moe.profile import profile_model
from mbench.moe.router import fewest_experts

each_case = pytest.mark.parametrize("case", CASES)


def test_no_family_is_forgotten():
    assert moe_model_types() == {*FAMILIES, *REFUSED, *COMPOSITE}


class Logits(Statistic):
    """The logits of all tokens."""

    name = "logits"
    combine = "concatenate"

    def measure(self, batch):
        return {"logits": batch.router_logits()}


@each_case
def test_profiling_changes_no_output_and_counts_what_a_slow_loop_counts(case):
    model, layers = model_and_layers(case)
    family = family_of(CASES[case][0])
    router, experts = family.router, family.experts
    statistics = [RoutingSums(), Logits()] if family.logits is None else [RoutingSums()]
    outputs = []
    handle = model.base_model.register_forward_hook(lambda *call: outputs.append(call[-1][0]))
    collected = profile_model(model, layers, SEQUENCES, statistics, batch_size=3, shards=1)
    handle.remove()
    sequences = [
        torch.from_numpy(ids[:length])
        for ids, length in zip(SEQUENCES.ids, SEQUENCES.lengths, strict=True)
    ]
    for ids, profiled in zip(sequences, outputs[0], strict=True):
        plain = model.base_model(input_ids=ids[None], use_cache=False)[0]
        torch.testing.assert_close(profiled[None, : len(ids)], plain, rtol=1e-4, atol=1e-4)
    config = model.config.get_text_config()
    found = collected.sums[RoutingSums().identity]
    assert len(blocks(model)) == len(layers)
    for number, block in enumerate(blocks(model)):
        seen, hidden = captured(
            model, [block.get_submodule(router.module), block.experts], sequences
        )
        sums = np.zeros((5, layers[0].num_experts))
        for to_router, to_experts in zip(seen, hidden, strict=True):
            everything = np.ones(layers[0].num_experts, dtype=bool)
            chosen, gates = router.route(block, config, to_router, layers[0].top_k, everything)
            for expert, gate in zip(chosen, gates, strict=True):
                norm = np.linalg.norm(experts.output(block.experts, config, expert, to_experts))
                sums[:, expert] += 1, gate, norm, gate * norm, norm**2
        names = ("count", "gate", "norm", "gate_norm", "squared_norm")
        for name, expected in zip(names, sums, strict=True):
            np.testing.assert_allclose(found[name][0, number], expected, rtol=1e-4, err_msg=name)
        if family.logits is None:
            logits = [router.logits(block, config, token) for token in seen]
            found_logits = collected.samples[Logits().identity]["logits"][number]
            np.testing.assert_allclose(found_logits, logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if family_of(CASES[case][0]).logits])
def test_logits_that_gates_do_not_come_from_are_refused(case):
    model, layers = model_and_layers(case)
    reason = family_of(CASES[case][0]).logits
    collected = profile_model(model, layers, SEQUENCES, [Logits()], batch_size=3)
    failure = collected.failures[Logits().identity]
    assert isinstance(failure, UnsupportedModel)
    assert re.search(reason, str(failure))


@pytest.mark.parametrize(
    ("case", "kept"),
    [(case, "half") for case in CASES] + [(case, 2) for case in CASES if "grouped" not in case],
)
def test_masked_is_sliced_is_reloaded_and_no_token_reaches_a_dropped_expert(case, kept, tmp_path):
    model, layers = model_and_layers(case)
    keep = random_keep(layers, layers[0].num_experts // 2 if kept == "half" else kept)
    reached = {layer.experts: set() for layer in layers}

    def watch(experts, hidden, index, weights):
        reached[experts].update(index.flatten().tolist())
        return sorted_loop(experts, hidden, index, weights)

    with masked(layers, keep), experts_function(layers, watch):
        logits = logits_of(model)
    for layer, row in zip(layers, keep, strict=True):
        assert reached[layer.experts]
        assert reached[layer.experts] <= set(np.flatnonzero(row).tolist())
    assert not torch.allclose(logits, logits_of(model), atol=1e-3)
    smaller = sliced_by_hand(case, keep)
    smaller.save_pretrained(tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    for other in (smaller, reloaded):
        torch.testing.assert_close(logits, logits_of(other), rtol=1e-4, atol=1e-4)


@each_case
def test_the_fewest_experts_are_those_that_the_family_can_choose_from(case):
    model, layers = model_and_layers(case)
    router, groups = family_of(CASES[case][0]).router, layers[0].groups
    # phimoe always chooses two; some rate groups, also where there is one, by their two best.
    least = 2 if router.groups == "two best" or router.score == "sparsemixer" else 1
    assert fewest_experts(layers[0]) == least * groups
    keep = random_keep(layers, groups)
    if least == 2:
        with pytest.raises(UnsupportedModel, match=f"cannot choose among {groups} of"):
            checked(layers, keep)
        return
    with masked(layers, keep):
        assert logits_of(model).isfinite().all()


@each_case
def test_what_slicing_does_to_gates_is_told_by_a_trial(case):
    model, layers = model_and_layers(case)
    router, config = family_of(CASES[case][0]).router, model.config.get_text_config()
    score = getattr(config, router.score, router.score)
    expected = {"softmax": "grown", "sigmoid": "kept", "sparsemixer": None}[score]
    if router.renormalises(config):
        expected = "renormalised"
    # The scales of experts are random in a trial, and negative ones have no shares.
    unclear = layers[0].groups > 1 or router.expert_scale is not None
    assert gates_when_pruned(layers[0]) == (None if unclear else expected)


@each_case
def test_preserved_gates_are_the_full_routers(case):
    model, layers = model_and_layers(case)
    family, config = family_of(CASES[case][0]), model.config.get_text_config()
    keep = random_keep(layers, layers[0].num_experts // 2, seed=1)
    reason = "group-limited" if layers[0].groups > 1 else family.preserved
    if reason is not None:
        with pytest.raises(UnsupportedModel, match=reason), masked(layers, keep, "preserved"):
            logits_of(model)
        return
    with masked(layers, keep, "preserved"):
        logits = logits_of(model)
    oracle = copy.deepcopy(model)
    for block, row in zip(blocks(oracle), keep, strict=True):
        block.get_submodule(family.router.module).forward = slow_router(
            family.router, block, config, layers[0].top_k, row
        )
    torch.testing.assert_close(logits, logits_of(oracle), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", ["afmoe", "gemma4_text", "gpt_oss", "hy_v3", "minimax_m2"])
def test_in_bfloat16_too_renormalised_gates_are_preserved_by_slicing(case):
    model = copy.deepcopy(model_and_layers(case)[0]).to(torch.bfloat16)
    layers = find_moe_layers(model)
    keep = random_keep(layers, 4)
    with masked(layers, keep):
        logits = logits_of(model)
    with masked(layers, keep, "preserved"):
        assert torch.equal(logits_of(model), logits)


@pytest.mark.parametrize("case", [case for case in CASES if "grouped" in case])
def test_uneven_groups_are_refused(case):
    model, layers = model_and_layers(case)
    keep = random_keep(layers, 8)
    keep[-1] = np.roll(keep[-1], 1) | keep[-1]
    keep[-1, :4] = True
    with pytest.raises(UnsupportedModel, match="the same number of experts"), masked(layers, keep):
        logits_of(model)


def slow_router(router, block, config, top_k, keep):
    def forward(hidden, *others):
        rows = hidden.reshape(-1, hidden.shape[-1]).double().numpy()
        routed = [router.route(block, config, row, top_k, keep) for row in rows]
        index = torch.tensor([chosen for chosen, _ in routed])
        return None, torch.tensor(np.array([gates for _, gates in routed])).float(), index

    return forward


@each_case
def test_the_variant_for_accelerators_computes_the_same_experts(case):
    _, layers = model_and_layers(case)
    experts = layers[0].experts
    generator = torch.Generator().manual_seed(0)
    first = getattr(experts, "gate_up_proj", None)
    first = experts.up_proj if first is None else first
    size = first.shape[1 if experts.is_transposed else 2]
    hidden = torch.randn(10, size, generator=generator)
    index = torch.rand(10, layers[0].num_experts, generator=generator).argsort(dim=1)[:, :3]
    weights = torch.rand(10, 3, generator=generator)
    results = []
    for compute in (sorted_loop, sorted_groups):
        norms = torch.empty(10, 3)
        results.append((compute(experts, hidden, index, weights, norms), norms))
    torch.testing.assert_close(*results)
    # On the CPU these are loops. A shard may have none of the tokens that are sampled.
    for rows in (hidden, hidden[:0]):
        torch.testing.assert_close(joint_outputs(experts, rows), all_outputs(experts, rows))
        inner = joint_inner_activations(experts, rows)
        torch.testing.assert_close(inner, all_inner_activations(experts, rows))


@pytest.mark.parametrize("model_type", [*REFUSED, "llama4"])
def test_other_families_are_refused_by_name(model_type):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(configuration(model_type))
    reason = REFUSED[COMPOSITE.get(model_type, model_type)][1]
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        find_moe_layers(model)
    assert str(caught.value).startswith(f"{type(model).__name__}: ")


def test_the_table_is_up_to_date():
    written = ROOT / "docs" / "families.md"
    assert written.read_text(encoding="utf-8") == table(), (
        "docs/families.md is out of date: tests/helpers/family_table.py says how it is written"
    )
