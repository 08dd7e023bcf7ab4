"""What the parts of a method must give: anything else is their plugin's mistake, said in one line.

All checks raise `PluginError`, but `check_groups`, which raises `UnsupportedModel`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mbench.core.errors import PluginError, UnsupportedModel
from mbench.core.interfaces import (
    Budget,
    ExpertMask,
    MaskBuilder,
    Selection,
    kept_per_group,
)
from mbench.core.stand_ins import keeps_router, refuse_malformed


def checked_scores(values: Any, name: str, budget: Budget, corpus: str) -> np.ndarray:
    """What a scorer returned on a corpus, as float64 [layers, N] that nobody can change."""
    shape = (budget.num_layers, budget.num_experts)
    array = np.asarray(values)
    # Of a masked array, what is masked would count as it is.
    masked = isinstance(values, np.ma.MaskedArray)
    if masked or array.shape != shape or array.dtype.kind not in "fiu":
        got = "a masked array" if masked else f"{array.dtype} {list(array.shape)}"
        raise PluginError(f"scorer {name!r} must return float64 {list(shape)}, got {got}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        layer, expert = np.argwhere(~np.isfinite(array))[0]
        raise PluginError(
            f"scorer {name!r} returned {array[layer, expert]} for layer {layer} expert {expert}"
            f" on {corpus}"
        )
    return frozen(array)


def check_selection(selection: Any, name: str, budget: Budget) -> None:
    """Refuse what a selector returned unless it is a `Selection` of the right shape."""
    shape = (budget.num_layers, budget.num_experts)
    if not isinstance(selection, Selection) or not _is_mask(selection.chosen, shape):
        raise PluginError(f"selector {name!r} must return a Selection of bool {list(shape)}")
    _check_notes(selection.notes, f"selector {name!r}")


def check_mask(mask: Any, builder: MaskBuilder, budget: Budget) -> None:
    """Refuse what a builder returned unless it keeps as many experts as the budget says."""
    shape = (budget.num_layers, budget.num_experts)
    who = f"builder {builder.name!r}"
    if not isinstance(mask, ExpertMask) or not _is_mask(mask.keep, shape):
        raise PluginError(f"{who} must return an ExpertMask of bool {list(shape)}")
    _check_notes(mask.notes, who)
    if mask.stand_in is not None:
        try:
            refuse_malformed(mask.stand_in, mask.keep)
        except ValueError as error:
            raise PluginError(f"{who}: {error}") from None
    counts = mask.keep.sum(axis=1)
    if builder.layers == "any":
        _check_uneven(counts, who, budget)
        return
    for layer, count in enumerate(counts):
        if count != budget.kept:
            raise PluginError(
                f"{who} kept {count} experts in layer {layer}, not K = {budget.kept}"
                ' (`layers = "any"` would let layers differ)'
            )


def _check_uneven(counts: np.ndarray, who: str, budget: Budget) -> None:
    if counts.sum() != budget.total:
        raise PluginError(
            f"{who} kept {counts.sum()} experts in all layers, not K x layers ="
            f" {budget.kept} x {budget.num_layers} = {budget.total}"
        )
    for layer, count in enumerate(counts):
        if count < budget.fewest:
            raise PluginError(
                f"{who} kept {count} experts in layer {layer}, where the router needs at least"
                f" {budget.fewest}"
            )


def check_groups(mask: ExpertMask, model: str, groups: int) -> None:
    """Refuse a mask that a router which is limited to groups of experts cannot work with.

    A router that keeps all experts, because something stands in for the dropped ones, can.
    """
    if keeps_router(mask.stand_in):
        return
    counts = kept_per_group(mask.keep, groups)
    uneven = np.flatnonzero(counts.min(axis=1) != counts.max(axis=1))
    if uneven.size:
        raise UnsupportedModel(
            f"the router of {model} is limited to {groups} groups of experts and"
            f" needs as many in each, but in {uneven.size} of {len(counts)} layers the mask"
            f" does not keep that, e.g. {counts[uneven[0]].tolist()} in layer {uneven[0]}"
        )


def _check_notes(notes: Any, who: str) -> None:
    if isinstance(notes, str) or not all(isinstance(note, str) for note in notes):
        raise PluginError(f"{who} must give its notes as a tuple of texts")


def frozen(array: np.ndarray) -> np.ndarray:
    """A copy that no component can change, not even by making it writable."""
    return np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)


def _is_mask(array: Any, shape: tuple[int, int]) -> bool:
    return isinstance(array, np.ndarray) and array.shape == shape and array.dtype == bool
