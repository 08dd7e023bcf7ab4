"""Keys and values of what many requests begin with, from which any number of lines go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mbench.evaluate.lm_head import to_device


class _BegunLayer(DynamicLayer):
    """Keys and values [1, heads, P, head size] of the first pass; later ones go on from them."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values that every row sees; only those of the first pass are kept."""
        if not self.is_initialized:
            return super().update(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        keys, values = (
            torch.cat([held.expand(len(new), -1, -1, -1), new], -2)
            for held, new in ((self.keys, key_states), (self.values, value_states))
        )
        return keys, values


class Begun(DynamicCache):
    """What requests go on from: filled by its first pass, and the same after any other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_class_to_replicate = _BegunLayer


@torch.no_grad()
def read_once(body: torch.nn.Module, tokens: Sequence[int], device: torch.device) -> Begun:
    """Keys and values of tokens, by the body of a causal model."""
    begun = Begun()
    ids = to_device(torch.tensor([list(tokens)]), device)
    body(input_ids=ids, past_key_values=begun, use_cache=True)
    return begun
