"""The head of a causal language model, run on chosen positions only and in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_LOGITS = 2**25
"""Logits held at a time: 128 MiB of float32, whatever the vocabulary."""


@dataclass(frozen=True)
class SplitModel:
    """Body and head of a causal model: `head(body(...).last_hidden_state)` are its logits."""

    body: torch.nn.Module
    head: torch.nn.Module
    goes_on: bool = False
    """Whether the body is known to go on from keys and values of what it has read before."""


@torch.no_grad()
def split(model: PreTrainedModel, ids: torch.Tensor) -> SplitModel | None:
    """Split a model into body and head, or return None if these do not give its logits.

    Some families scale or cap their logits, or have a head of several parts.

    Args:
        model: the model in the state in which it will be used.
        ids: [1, tokens] a few token ids to compare on.
    """
    body, head = model.base_model, output_layer(model)
    if body is model or head is None:
        return None
    whole = model(input_ids=ids, use_cache=False).logits
    in_two = head(body(input_ids=ids, use_cache=False).last_hidden_state)
    same = in_two.shape == whole.shape and equal_to_rounding(
        in_two, whole, whole.dtype, equal_nan=True
    )
    return SplitModel(body, head) if same else None


def output_layer(model: PreTrainedModel) -> torch.nn.Module | None:
    """The module whose output are the model's logits; None where the model names no single one."""
    layer = model.get_output_embeddings()
    return layer if isinstance(layer, torch.nn.Module) else None


def equal_to_rounding(
    first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype, *, equal_nan: bool = False
) -> bool:
    """Whether two tensors differ only as the same arithmetic in another order does in `dtype`."""
    # In float64 too, eager attention takes its softmax in float32.
    tolerance = {2: 2e-2, 4: 1e-3, 8: 1e-5}[dtype.itemsize]
    return torch.allclose(
        first.double(), second.double(), rtol=tolerance, atol=tolerance, equal_nan=equal_nan
    )


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """What log-probabilities are computed in: float32, or the model's dtype if that is wider."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class Predicted:
    """Tokens that are predicted at some positions: built once, used with one mask after another."""

    positions: torch.Tensor
    """int64 [n], each once, rising."""
    places: torch.Tensor
    """int64 [m], of each target the place of its position in `positions`, rising."""
    order: torch.Tensor
    """int64 [m], of each of `places` the number of its target."""
    targets: torch.Tensor
    """int64 [m], in the order in which they were given."""

    @classmethod
    def of(cls, positions: np.ndarray, targets: np.ndarray) -> Predicted:
        """From int64 [m] positions and the tokens after them, on the CPU."""
        distinct, places = np.unique(positions, return_inverse=True)
        order = np.argsort(places, kind="stable")
        arrays = (distinct, places[order], order, targets)
        return cls(*(torch.from_numpy(np.asarray(each, dtype=np.int64)) for each in arrays))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy from the CPU; to a GPU without waiting for what it still has to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def log_probabilities(
    head: torch.nn.Module | None, hidden: torch.Tensor, predicted: Predicted
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of tokens after given positions, and the most likely tokens there.

    Args:
        head: hidden states [n, H] to logits [n, V]; None: `hidden` are logits.
        hidden: [positions, H].
        predicted: [m] tokens after rows of `hidden`; a repeated row goes through the head once.

    Returns:
        [m] log-probabilities from a softmax of at least float32, and int64 [m] token ids.
    """
    device = hidden.device
    vocabulary = hidden.shape[1] if head is None else next(head.parameters()).shape[0]
    size = max(1, MOST_LOGITS // vocabulary)
    starts = range(0, len(predicted.positions), size)
    # On the CPU, where nothing has to be waited for.
    cuts = torch.searchsorted(predicted.places, torch.tensor([*starts, len(predicted.positions)]))
    positions, places, order, targets = (
        to_device(each, device)
        for each in (predicted.positions, predicted.places, predicted.order, predicted.targets)
    )
    target_logs = torch.empty(len(targets), dtype=softmax_dtype(hidden.dtype), device=device)
    likeliest = torch.empty(len(targets), dtype=torch.int64, device=device)
    for start, (low, high) in zip(starts, pairwise(cuts.tolist()), strict=True):
        chosen = hidden[positions[start : start + size]]
        logits = chosen if head is None else head(chosen)
        del chosen
        logs = torch.log_softmax(logits, -1, dtype=softmax_dtype(logits.dtype))
        # Before the next ones are computed, these are gone.
        del logits
        chunk, place = order[low:high], places[low:high] - start
        target_logs[chunk] = logs[place, targets[chunk]]
        likeliest[chunk] = logs.argmax(-1)[place]
        del logs
    return target_logs, likeliest
