"""The head of a causal language model, run on chosen positions only and in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS = 2**25
"""Logits held at a time: 128 MiB of float32, whatever the vocabulary."""


@dataclass(frozen=True)
class Halves:
    """A causal model taken apart: `head(body(...).last_hidden_state)` are its logits."""

    body: torch.nn.Module
    head: torch.nn.Module


@torch.no_grad()
def halves(model: PreTrainedModel, ids: torch.Tensor) -> Halves | None:
    """Take a model apart, or return None where its logits are more than its head's output.

    Some families scale or cap their logits, or have a head of several parts: so the halves are
    used only if they reproduce the model's own logits.

    Args:
        model: the model, in whatever state it will be used.
        ids: [1, tokens] a few token ids to compare on.
    """
    parts = Halves(model.base_model, model.get_output_embeddings())
    if parts.body is model or not isinstance(parts.head, torch.nn.Module):
        return None
    whole = model(input_ids=ids, use_cache=False).logits
    made = parts.head(parts.body(input_ids=ids, use_cache=False).last_hidden_state)
    same = made.shape == whole.shape and torch.allclose(
        made.double(), whole.double(), **tolerance(whole.dtype), equal_nan=True
    )
    return parts if same else None


def positions_of(model: PreTrainedModel) -> float:
    """The most tokens the model was made for; infinite where its configuration has no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """How far two orders of the same arithmetic may differ: `rtol` and `atol` of `allclose`."""
    # In float64 too, eager attention takes its softmax in float32.
    size = {2: 2e-2, 4: 1e-3, 8: 1e-5}[dtype.itemsize]
    return {"rtol": size, "atol": size}


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the softmax: float32, or the model's own if that is wider."""
    return torch.promote_types(dtype, torch.float32)


def log_probabilities(
    head: torch.nn.Module, hidden: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of tokens after given positions, and whether each is the likeliest one.

    Args:
        head: hidden states [n, H] to logits [n, V].
        hidden: [positions, H].
        rows: [m] which positions; one that occurs repeatedly is computed once.
        targets: [m] the token after each.

    Returns:
        [m] log-probabilities from a softmax of at least float32, and [m] bool.
    """
    positions, where = torch.unique(rows, return_inverse=True)
    vocabulary = next(head.parameters()).shape[0]
    size = max(1, LOGITS // vocabulary)
    found = torch.empty(len(rows), dtype=wide(hidden.dtype), device=hidden.device)
    likeliest = torch.empty(len(rows), dtype=torch.bool, device=hidden.device)
    for start in range(0, len(positions), size):
        logits = head(hidden[positions[start : start + size]])
        logs = torch.log_softmax(logits, -1, dtype=wide(logits.dtype))
        own = torch.nonzero((where >= start) & (where < start + size))[:, 0]
        found[own] = logs[where[own] - start, targets[own]]
        likeliest[own] = logs.argmax(-1)[where[own] - start] == targets[own]
    return found, likeliest
