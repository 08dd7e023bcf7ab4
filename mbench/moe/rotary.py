"""Rotary angles that follow what is being read, and nothing that was read before."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel


def forget_longest(model: PreTrainedModel) -> None:
    """Have angles that follow the longest text (`dynamic`) follow the one that is being read.

    transformers keeps those of the longest one so far for whatever is longer than the positions
    that the model was trained on, so that a figure would depend on what came before it.
    """
    for module in model.modules():
        if any("dynamic" in kind for kind in _kinds(module).values()):
            module.register_forward_pre_hook(_forget)


def _kinds(module: torch.nn.Module) -> dict[str, str]:
    """What the names of a rotary module's tensors begin with, and the kind of its angles."""
    kinds: Any = getattr(module, "rope_type", None)
    if not hasattr(module, "max_seq_len_cached") or kinds is None:
        return {}
    if isinstance(kinds, str):
        return {"": kinds}
    return {f"{layer_type}_": kind for layer_type, kind in kinds.items()}


def _forget(module: torch.nn.Module, _inputs: object) -> None:
    for prefix, kind in _kinds(module).items():
        if "dynamic" in kind:
            device = getattr(module, f"{prefix}inv_freq").device
            first = getattr(module, f"{prefix}original_inv_freq").to(device)
            setattr(module, f"{prefix}inv_freq", first)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
