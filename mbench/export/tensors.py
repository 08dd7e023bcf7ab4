"""Leaves the dropped experts out of a checkpoint's tensors, and numbers the kept ones anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Merged, keeps_router
from mbench.export.merged_tensors import MergedLayer, Piece
from mbench.moe.adapter import MoELayer
from mbench.moe.checkpoint_tensors import Place, in_fewer_bits, place_tensors
from mbench.moe.quantised.form import Form
from mbench.moe.replace import changed_groups
from mbench.storage.safetensor_files import NewTensor, StoredTensor


@dataclass(frozen=True)
class PrunedTensors:
    """The tensors of a pruned checkpoint."""

    tensors: tuple[NewTensor, ...]
    """In the order in which the full checkpoint stores them."""
    places: Mapping[str, Place]
    """By name in the full checkpoint."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names that the model's class ignores, e.g. of layers for speculative decoding, whose
        experts are not in the mask."""
        return tuple(name for name, place in self.places.items() if not place.is_used)


def prune_tensors(
    model: PreTrainedModel,
    layers: Sequence[MoELayer],
    mask: ExpertMask,
    stored: Mapping[str, StoredTensor],
    form: Form | None = None,
) -> PrunedTensors:
    """Return the tensors of the pruned checkpoint under a mask.

    `form` is how the checkpoint stores weights in fewer bits, None if it does not; such weights are
    copied part by part. Routers keep all rows where what stands in for dropped experts needs them;
    constants are not among the tensors. `model` may be on the meta device. Raises
    `UnsupportedModel` for experts that cannot be merged, and what `place_tensors` raises.
    """
    places = place_tensors(model, layers, stored, form)
    merged = _merged_layers(layers, mask, places, stored)
    made = {
        name: _pruned(places[name], tensor, mask, merged)
        for name, tensor in stored.items()
        if places[name].is_used
    }
    return PrunedTensors(tuple(tensor for tensor in made.values() if tensor is not None), places)


def _merged_layers(
    layers: Sequence[MoELayer],
    mask: ExpertMask,
    places: Mapping[str, Place],
    stored: Mapping[str, StoredTensor],
) -> dict[int, MergedLayer]:
    """The layers with all their stored experts, if experts are merged and their tensors change."""
    stand_in = mask.stand_in
    if not isinstance(stand_in, Merged):
        return {}
    numbers = set(range(len(layers)))
    for weight, names in in_fewer_bits(places.values()).items():
        number = places[names[0]].layer
        if number is not None:
            _refuse_sums(stand_in, number, weight)
            numbers.discard(number)
    merged = {number: MergedLayer(layers[number], stand_in, number) for number in sorted(numbers)}
    for place in places.values():
        if place.layer not in merged or place.is_router:
            continue
        see = merged[place.layer].see
        tensor = stored[place.name]
        if place.expert is not None:
            see(place.common, place.attribute, True, place.expert, Piece(tensor, None))
            continue
        if place.dim != 0:
            raise UnsupportedModel(
                f"{place.name}: experts are in dimension {place.dim}, so they cannot be merged in"
                " the checkpoint's own form"
            )
        for expert in range(mask.keep.shape[1]):
            see(place.name, place.attribute, place.converted, expert, Piece(tensor, expert))
    return merged


def _refuse_sums(stand_in: Merged, number: int, weight: str) -> None:
    """Raise if an expert of a layer takes up others, whose sum its stored form cannot hold."""
    order = stand_in.neurons
    for taker, members in changed_groups(stand_in, number):
        shares = {m: stand_in.weights[number, m] for m in members if stand_in.weights[number, m]}
        moved = isinstance(order, np.ndarray) and (np.diff(order[number, taker]) != 1).any()
        if shares != {taker: 1.0} or moved:
            raise UnsupportedModel(
                f"{weight} is stored in fewer bits, which hold no exact sum of experts, but expert"
                f" {taker} of MoE layer {number} takes up others"
            )


def _pruned(
    place: Place, stored: StoredTensor, mask: ExpertMask, merged: Mapping[int, MergedLayer]
) -> NewTensor | None:
    """A tensor with kept experts only; None for one of a dropped expert."""
    if place.layer is None or (place.is_router and keeps_router(mask.stand_in)):
        return NewTensor(place.name, stored)
    kept: list[int] = np.flatnonzero(mask.keep[place.layer]).tolist()
    if place.expert is None:
        experts = kept
        made = NewTensor(place.name, stored, place.dim or 0, tuple(kept))
    elif place.expert in kept:
        experts = [place.expert]
        made = NewTensor(place.renumbered(kept.index(place.expert)), stored)
    else:
        return None
    if place.is_router or place.layer not in merged:
        return made
    return merged[place.layer].changed(made, place.common, experts)
