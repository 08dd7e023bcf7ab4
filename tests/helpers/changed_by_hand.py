"""Masked models built as stock modules whose weights are changed by hand, without mbench's code."""

from __future__ import annotations

import copy

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from helpers.family_cases import CASES, model_and_layers
from helpers.family_models import blocks, configuration, family_of
from helpers.family_oracle import clamped_swish_interleaved


def sliced_by_hand(case, keep, state=None):
    """A smaller stock model with the retained experts' weights.

    Where a tensor is shorter in the smaller model is where it counts experts. `state` is the full
    model's, if its experts' weights are others by now.
    """
    model_type, changes = CASES[case]
    model, _ = model_and_layers(case)
    kept, top_k = int(keep[0].sum()), model_and_layers(case)[1][0].top_k
    groups = changes.get("n_group", 1)
    chosen = min(top_k, kept // groups * changes.get("topk_group", 1))
    config = configuration(model_type, **changes | {"num_experts": kept, "top_k": chosen})
    smaller = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    full = model.state_dict() if state is None else state
    new = smaller.state_dict()
    prefixes = sorted({name.partition(".experts.")[0] for name in full if ".experts." in name})
    for name, tensor in new.items():
        dims = [dim for dim, size in enumerate(tensor.shape) if size != full[name].shape[dim]]
        if dims:
            (layer,) = [i for i, prefix in enumerate(prefixes) if name.startswith(f"{prefix}.")]
            index = torch.from_numpy(np.flatnonzero(keep[layer]))
            new[name] = full[name].index_select(dims[0], index)
        else:
            new[name] = full[name]
    smaller.load_state_dict(new)
    return smaller


def unevenly_sliced_by_hand(case, keep, state=None):
    """The full model with each MoE block taken from a stock model of as many experts."""
    mixed = copy.deepcopy(model_and_layers(case)[0])
    if state is not None:
        mixed.load_state_dict(state)
    counts = keep.sum(axis=1)
    names = [name for name, module in mixed.named_modules() if module in blocks(mixed)]
    for count in set(counts.tolist()) - {keep.shape[1]}:
        (first, *_) = np.flatnonzero(counts == count)
        even = np.where((counts == count)[:, None], keep, keep[first])
        smaller = sliced_by_hand(case, even, state)
        for layer in np.flatnonzero(counts == count):
            mixed.set_submodule(names[layer], smaller.get_submodule(names[layer]))
    return mixed


def merged_by_hand(case, into, weights, neurons, everywhere):
    """The full model's state with merged experts, also in the place of the members if asked."""
    model, _ = model_and_layers(case)
    experts = family_of(CASES[case][0]).experts
    alternating = experts.inner is clamped_swish_interleaved
    mixed = copy.deepcopy(model)
    for layer, block in enumerate(blocks(mixed)):
        inner = block.experts.down_proj.shape[1 if experts.transposed else 2]
        original = {name: each.clone() for name, each in block.experts.named_parameters()}
        for name, tensor in block.experts.named_parameters():
            for taker in set(into[layer][into[layer] >= 0].tolist()):
                members = np.flatnonzero(into[layer] == taker)
                total = np.zeros(tensor.shape[1:])
                for member in members:
                    row = original[name][int(member)].double().numpy()
                    if neurons is not None:
                        row = reordered(
                            name, row, neurons[layer, member], inner, experts, alternating
                        )
                    total += float(weights[layer, member]) * row
                for member in members if everywhere else [taker]:
                    tensor[int(member)] = torch.from_numpy(total)
    return mixed.state_dict()


def reordered(name, row, order, inner, experts, alternating):
    """An expert's tensor with its inner neurons in another order, one neuron at a time."""
    if name == "down_proj_bias":
        return row
    out_first = row if name.endswith("_bias") or not experts.transposed else row.T
    if name == "down_proj":
        out_first = out_first.T
    new = np.zeros_like(out_first)
    for to, source in enumerate(order):
        if out_first.shape[0] == inner:
            new[to] = out_first[source]
        elif alternating:
            new[2 * to], new[2 * to + 1] = out_first[2 * source], out_first[2 * source + 1]
        else:
            new[to], new[inner + to] = out_first[source], out_first[inner + source]
    if name == "down_proj":
        new = new.T
    return new if name.endswith("_bias") or not experts.transposed else new.T


def with_constants_by_hand(case, keep, outputs):
    """The full model whose experts are computed in float64, one token and one choice at a time."""
    model, _ = model_and_layers(case)
    experts = family_of(CASES[case][0]).experts
    changed = copy.deepcopy(model)
    config = changed.config.get_text_config()
    for layer, block in enumerate(blocks(changed)):

        def forward(hidden, index, weights, layer=layer, block=block):
            sums = np.zeros((len(hidden), outputs.shape[2]))
            for token, (chosen, gates) in enumerate(
                zip(index.tolist(), weights.tolist(), strict=True)
            ):
                for expert, gate in zip(chosen, gates, strict=True):
                    if keep[layer, expert]:
                        state = hidden[token].double().numpy()
                        output = experts.output(block.experts, config, expert, state)
                    else:
                        output = outputs[layer, expert]
                    sums[token] += gate * output
            return torch.from_numpy(sums).to(hidden.dtype)

        block.experts.forward = forward
    return changed
