"""Loads a checkpoint in FP8 so that its experts stay stored; see `stored_experts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter

from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.checkpoint_tensors import Place, place_tensors
from mbench.moe.quantised.form import Form
from mbench.moe.quantised.fp8 import Fp8
from mbench.moe.quantised.reader import StoredWeights
from mbench.moe.quantised.stored_experts import SCALES, StoredShape, keep_stored


def form_to_keep(form: Form | None) -> Fp8:
    """The form, in which experts can stay as they are stored; raises `UnsupportedModel` if not."""
    if isinstance(form, Fp8):
        return form
    stored = f"stored in {form.words}" if form else "plain numbers"
    raise UnsupportedModel(
        f"experts: stored is for weights in FP8 (quant_method: fp8); those here are {stored}"
    )


@dataclass(frozen=True)
class _Sources:
    """A weight of a layer's experts, and the weights of the checkpoint that it is made of."""

    names: tuple[tuple[str, ...], ...]
    """[expert][source]."""
    shape: StoredShape


class KeptWeights(StoredWeights):
    """The weights of a checkpoint, the experts' as codes, and scales of all experts of a layer.

    Scales have a name of their own, e.g. `model.layers.0.mlp.experts.down_proj_scales`.
    """

    def __init__(self, files: Sequence[Path], form: Fp8, model: PreTrainedModel) -> None:
        """Read the headers; `model` may be on the meta device.

        Raises what `StoredWeights` raises, and `UnsupportedModel` for experts that cannot stay
        stored.
        """
        super().__init__(files, form)
        self._form = form
        layers = find_moe_layers(model)
        orders = _orders(model)
        places = place_tensors(model, layers, self.tensors, form)
        self.layers = [
            self._of_layer(layer, number, places, orders) for number, layer in enumerate(layers)
        ]
        """Per layer, name of a weight in the experts' module -> what it is made of."""
        self._codes: set[str] = set()
        self._scales: dict[str, _Sources] = {}
        for layer, found in zip(layers, self.layers, strict=True):
            for attribute, sources in found.items():
                self._codes |= {name for of_expert in sources.names for name in of_expert}
                scales = f"{layer.path}.{attribute}{SCALES}"
                self._scales[scales] = sources
                first = self.parts[sources.names[0][0]]["weight"]
                self.parts[scales] = {SCALES: first}

    def shapes(self, layer: int) -> dict[str, StoredShape]:
        """How the experts of a layer are stored, by the names of their weights."""
        return {name: sources.shape for name, sources in self.layers[layer].items()}

    def is_plain(self, weight: str) -> bool:
        """See the base class; scales of all experts are none of its tensors."""
        return weight not in getattr(self, "_scales", ()) and super().is_plain(weight)

    def read(
        self,
        weight: str,
        device: torch.device | str | int = "cpu",
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Codes of experts, in float8; scales in float32; and all else as the base class does."""
        if weight in self._codes:
            return self._matrix(weight)[0].to(device)
        if weight in self._scales:
            of_experts = [
                torch.stack([self._matrix(name)[1] for name in names])
                for names in self._scales[weight].names
            ]
            return torch.stack(of_experts).to(device)
        return super().read(weight, device, dtype)

    def _matrix(self, weight: str) -> tuple[torch.Tensor, torch.Tensor]:
        parts = {role: self._tensor(name) for role, name in self.parts[weight].items()}
        codes, scales = self._form.checked(weight, parts)
        return codes, scales.to(torch.float32).reshape(self._form.scale_shape(codes.shape))

    def _of_layer(
        self,
        layer: MoELayer,
        number: int,
        places: Mapping[str, Place],
        orders: Mapping[str, int],
    ) -> dict[str, _Sources]:
        found: dict[str, dict[tuple[int, int], str]] = {name: {} for name in layer.expert_tensors}
        for place in places.values():
            if place.layer != number or place.is_router or place.part.role != "weight":
                continue
            order = orders.get(place.pattern or "")
            if order is None or place.expert is None or self.is_plain(place.part.weight):
                raise UnsupportedModel(
                    f"{place.part.weight} is no matrix of one expert in {self._form.words}, so"
                    " experts cannot stay stored"
                )
            found[place.attribute][place.expert, order] = place.part.weight
        sources = {}
        for attribute, names in found.items():
            count = 1 + max((source for _, source in names), default=-1)
            if len(names) != layer.num_experts * count or not count:
                raise UnsupportedModel(
                    f"{layer.path}.{attribute} is not stored expert by expert in"
                    f" {self._form.words}, so experts cannot stay stored"
                )
            of_experts = tuple(
                tuple(names[expert, source] for source in range(count))
                for expert in range(layer.num_experts)
            )
            sources[attribute] = _Sources(of_experts, self._shape(layer, of_experts))
        return sources

    def _shape(self, layer: MoELayer, names: tuple[tuple[str, ...], ...]) -> StoredShape:
        shapes = {self.tensors[self.parts[name]["weight"]].shape for each in names for name in each}
        if len(shapes) != 1 or len(shape := min(shapes)) != 2:
            raise UnsupportedModel(
                f"{layer.path}: its experts' matrices have shapes {sorted(shapes)}, so experts"
                " cannot stay stored"
            )
        return StoredShape(
            layer.num_experts,
            len(names[0]),
            shape[0],
            shape[1],
            self._form.scale_shape(shape),
            self._form.block or (shape[0], shape[1]),
        )


def _orders(model: PreTrainedModel) -> dict[str, int]:
    """Pattern of an expert's matrix -> its place among those that are put together.

    Only of conversions that stack the experts and put matrices one below the other.
    """
    orders: dict[str, int] = {}
    for step in get_model_conversion_mapping(model):
        if not isinstance(step, WeightConverter):
            continue
        stacks, *others = step.operations
        is_stacked = isinstance(stacks, MergeModulelist) and stacks.dim == 0
        below = all(isinstance(each, Concatenate) and each.dim == 1 for each in others)
        if is_stacked and below and len(others) <= 1:
            orders |= {pattern: place for place, pattern in enumerate(step.source_patterns)}
    return orders


def keeping(
    model_class: type[PreTrainedModel], weights: KeptWeights, computed_in: torch.dtype
) -> type[PreTrainedModel]:
    """A class whose models keep experts stored, and which otherwise is the other.

    transformers looks up how to convert a checkpoint's tensors by a class's name and module.
    """

    def build(self: PreTrainedModel, config: PreTrainedConfig) -> None:
        model_class.__init__(self, config)
        for number, layer in enumerate(find_moe_layers(self)):
            keep_stored(layer.experts, weights.shapes(number), computed_in)

    names: dict[str, Any] = {"__init__": build, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), names)
