"""What is routed where, counted token by token while a masked model reads a text."""

from __future__ import annotations

import numpy as np
import torch

from mbench.moe.experts import apply_expert
from mbench.moe.mask import masked


def slow_routing(loaded, text, mask):
    """Tokens routed to each expert and sums of g * ||f||, [layers, N], under an `ExpertMask`."""
    counts, gate_norms = np.zeros(mask.keep.shape), np.zeros(mask.keep.shape)

    def seen(number):
        def hook(experts, args):
            hidden, index, gates = args
            for token, (chosen, weights) in enumerate(zip(index, gates, strict=True)):
                for expert, gate in zip(chosen.tolist(), weights.tolist(), strict=True):
                    output = apply_expert(experts, expert, hidden[token : token + 1])
                    counts[number, expert] += 1
                    gate_norms[number, expert] += gate * float(output.norm())

        return hook

    with masked(loaded.layers, mask), torch.no_grad():
        handles = [
            layer.experts.register_forward_pre_hook(seen(number))
            for number, layer in enumerate(loaded.layers)
        ]
        for ids, length in zip(text.ids, text.lengths, strict=True):
            loaded.model.base_model(input_ids=torch.tensor(ids[:length])[None])
        for handle in handles:
            handle.remove()
    return counts, gate_norms
