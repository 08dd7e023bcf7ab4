"""Finds the tensors of each expert in a checkpoint, by the names that the checkpoint uses.

transformers fuses the experts of a layer when it loads them. Its own conversion table says where
each tensor of a checkpoint goes, so no family needs code here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Merged, keeps_router
from mbench.export.merged_tensors import MergedLayer, Piece
from mbench.moe.adapter import MoELayer
from mbench.moe.prune import expert_dims
from mbench.storage.safetensor_files import NewTensor, StoredTensor

EXPERT_NUMBER = re.compile(r"(?P<before>.*\.)(?P<number>\d+)(?P<after>\..*)")
"""The last number in a name; layers come before experts."""

IGNORED_BUFFERS = r"rotary_emb\.inv_freq"
"""Old checkpoints store this buffer, which transformers computes now."""


@dataclass(frozen=True)
class PrunedTensors:
    """The tensors of a pruned checkpoint."""

    tensors: tuple[NewTensor, ...]
    """In the order in which the full checkpoint stores them."""
    left_out: tuple[str, ...]
    """Names that the model's class ignores, e.g. of layers for speculative decoding, whose experts
    are not in the mask."""


def prune_tensors(
    model: PreTrainedModel,
    layers: Sequence[MoELayer],
    mask: ExpertMask,
    stored: Mapping[str, StoredTensor],
) -> PrunedTensors:
    """Return the tensors of the pruned checkpoint under a mask.

    Routers keep all rows where what stands in for dropped experts needs them; constants are not
    among the tensors. `model` may be on the meta device. Raises `UnsupportedModel` for a tensor
    whose experts cannot be identified or merged or that the model's class does not know,
    `ModelNotFound` if experts are missing.
    """
    walk = _Walk(model, layers, mask)
    made = {name: walk.visit(name, stored[name]) for name in sorted(stored, key=dot_natural_key)}
    walk.check_complete()
    tensors = [made[name] for name in stored]
    return PrunedTensors(tuple(t for t in tensors if t is not None), tuple(walk.left_out))


class _Walk:
    """Visits the tensors of a checkpoint, and remembers which experts it has seen."""

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[MoELayer], mask: ExpertMask
    ) -> None:
        self.left_out: list[str] = []
        self._layers = layers
        self._kept: list[list[int]] = [np.flatnonzero(row).tolist() for row in mask.keep]
        self._count = mask.keep.shape[1]
        self._merged = [
            MergedLayer(layer, mask.stand_in, number)
            for number, layer in enumerate(layers)
            if isinstance(mask.stand_in, Merged)
        ]
        self._prefix = model.base_model_prefix
        self._shapes = {name: t.shape for name, t in model.state_dict().items()}
        self._dims = expert_dims(model, layers)
        self._of_experts = expert_dims(model, layers, router=False)
        self._router_stays = keeps_router(mask.stand_in)
        conversions = get_model_conversion_mapping(model)
        self._renamings = [step for step in conversions if isinstance(step, WeightRenaming)]
        self._converters = [step for step in conversions if isinstance(step, WeightConverter)]
        ignored = model._keys_to_ignore_on_load_unexpected or ()
        self._ignored = re.compile("|".join((IGNORED_BUFFERS, *ignored)))
        self._missing = set(self._dims)
        # (layer, name without the expert's number) -> experts seen
        self._seen: dict[tuple[int, str], set[int]] = {}

    def visit(self, name: str, stored: StoredTensor) -> NewTensor | None:
        target, pattern = self._target(name)
        if target in self._dims:
            self._missing.discard(target)
            number, dim = self._dims[target]
            attribute = target.rpartition(".")[2] if target in self._of_experts else ""
            if not attribute and self._router_stays:
                return NewTensor(name, stored)
            converted = pattern is not None
            if pattern is not None and "*." in pattern:
                return self._one_expert(name, stored, number, attribute)
            rows = self._some_rows(name, stored, number, dim, converted=converted)
            if not attribute or not self._merged:
                return rows
            return self._merged_rows(rows, number, attribute, converted)
        for number, layer in enumerate(self._layers):
            # Experts stored one by one under the module's own path, without a conversion.
            if re.match(rf"{re.escape(layer.path)}\.\d+\.", target):
                self._missing -= {f"{layer.path}.{tensor}" for tensor in layer.expert_tensors}
                return self._one_expert(name, stored, number, "")
        if target in self._shapes:
            return NewTensor(name, stored)
        if not self._ignored.search(target):
            raise UnsupportedModel(f"the model's class has no tensor {name}, so it is not copied")
        self.left_out.append(name)
        return None

    def _target(self, name: str) -> tuple[str, str | None]:
        """Name in the model's state dict and pattern of its conversion, as on loading."""
        target, pattern = rename_source_key(
            name, self._renamings, self._converters, self._prefix, self._shapes
        )
        if target not in self._shapes and name in self._shapes:
            return rename_source_key(name, [], [], self._prefix, self._shapes)
        return target, pattern

    def _one_expert(
        self, name: str, stored: StoredTensor, layer: int, attribute: str
    ) -> NewTensor | None:
        match = EXPERT_NUMBER.fullmatch(name)
        if match is None or int(match["number"]) >= self._count:
            raise UnsupportedModel(f"{name} does not name one of the {self._count} experts")
        before, number, after = match["before"], int(match["number"]), match["after"]
        common = before + after
        self._seen.setdefault((layer, common), set()).add(number)
        if self._merged:
            self._merged[layer].see(common, attribute, True, number, Piece(stored, None))
        if number not in self._kept[layer]:
            return None
        made = NewTensor(f"{before}{self._kept[layer].index(number)}{after}", stored)
        return self._merged[layer].changed(made, common, [number]) if self._merged else made

    def _merged_rows(
        self, rows: NewTensor, layer: int, attribute: str, converted: bool
    ) -> NewTensor:
        """A tensor of all experts, with sums in the place of those that take others up."""
        if rows.dim != 0:
            raise UnsupportedModel(
                f"{rows.name}: experts are in dimension {rows.dim}, so they cannot be merged in the"
                " checkpoint's own form"
            )
        for expert in range(self._count):
            piece = Piece(rows.stored, expert)
            self._merged[layer].see(rows.name, attribute, converted, expert, piece)
        return self._merged[layer].changed(rows, rows.name, self._kept[layer])

    def _some_rows(
        self, name: str, stored: StoredTensor, layer: int, dim: int, *, converted: bool
    ) -> NewTensor:
        shape = stored.shape
        # A conversion may move dimensions; where only one has this length it is the experts'.
        unclear = converted and shape.count(self._count) != 1
        if unclear or len(shape) <= dim or shape[dim] != self._count:
            raise UnsupportedModel(
                f"{name} {list(shape)}: no dimension is clearly that of the {self._count} experts"
            )
        return NewTensor(name, stored, dim, tuple(self._kept[layer]))

    def check_complete(self) -> None:
        """Raise unless the checkpoint held every expert of every layer and all router tensors."""
        if self._missing:
            raise ModelNotFound(f"the checkpoint has no tensor for {min(self._missing)}")
        for (_, name), experts in self._seen.items():
            if len(experts) != self._count:
                raise ModelNotFound(
                    f"the checkpoint has {len(experts)} of {self._count} experts of {name}"
                )
