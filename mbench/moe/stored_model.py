"""The experts of a checkpoint as it stores them, one at a time, without loading a model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.moe.adapter import find_moe_layers
from mbench.moe.checkpoint_tensors import Place, place_tensors
from mbench.moe.config import read_config
from mbench.moe.load import skeleton_of
from mbench.moe.load_errors import naming
from mbench.moe.quantised.reader import StoredWeights, weight_files

CHUNK = 1 << 24
"""Numbers that are compared at once."""


class StoredModel:
    """A checkpoint in a local folder; its tensors are read one by one when they are asked for."""

    def __init__(self, folder: Path, *, strict: bool) -> None:
        """Read configuration and headers.

        Without `strict`, experts may be missing and tensors unknown. Raises `ModelNotFound` or
        `UnsupportedModel` for what is no Mixture-of-Experts model in safetensors files.
        """
        self.folder = folder
        self.checkpoint = read_config(str(folder), trust_remote_code=False)
        self.model = skeleton_of(self.checkpoint)
        with naming(str(folder)):
            self.layers = find_moe_layers(self.model)
            files = weight_files(folder)
            if not files:
                raise UnsupportedModel("its weights are no safetensors files; convert them")
            if lacking := [file.name for file in files if not file.is_file()]:
                raise ModelNotFound(f"weight files are missing, e.g. {lacking[0]}")
            self.weights = StoredWeights(files, self.checkpoint.form)
            self.places = place_tensors(
                self.model,
                self.layers,
                self.weights.tensors,
                self.checkpoint.form,
                strict=strict,
            )

    @cached_property
    def experts(self) -> tuple[Mapping[int, tuple[Place, ...]], ...]:
        """Per layer and expert, the tensors that hold it, alone or with all others."""
        found: list[dict[int, list[Place]]] = [{} for _ in self.layers]
        for place in self.places.values():
            if place.layer is None or place.is_router:
                continue
            shape = self.weights.tensors[place.name].shape
            numbers = range(shape[0]) if place.expert is None else (place.expert,)
            for number in numbers:
                found[place.layer].setdefault(number, []).append(place)
        return tuple({number: tuple(layer[number]) for number in sorted(layer)} for layer in found)

    @cached_property
    def routers(self) -> tuple[Mapping[str, Place], ...]:
        """Per layer, the tensors with an entry per expert, by their names in the model."""
        return tuple(
            {
                place.target: place
                for place in self.places.values()
                if place.is_router and place.layer == number
            }
            for number in range(len(self.layers))
        )

    @cached_property
    def others(self) -> dict[str, str]:
        """All weights that are neither experts' nor routers': name in the model -> weight."""
        return {
            # One of several that a conversion makes one of is known by its own name.
            place.target if place.pattern is None else place.part.weight: place.part.weight
            for place in self.places.values()
            if place.layer is None and place.is_used and place.part.weight in self.weights.parts
        }

    @property
    def precision(self) -> str:
        """How experts are stored, in words."""
        if self.checkpoint.form is not None:
            return self.checkpoint.form.words
        names = {
            str(self.raw(place, None).dtype).removeprefix("torch.")
            for layer in self.experts[:1]
            for place in layer[min(layer)]
        }
        return " and ".join(sorted(names))

    def raw(self, place: Place, expert: int | None) -> torch.Tensor:
        """A stored tensor; the entry [1, ...] of one expert where it holds all of them."""
        part = self._opened[self.weights.tensors[place.name].file].get_slice(place.name)
        tensor: torch.Tensor
        if expert is None or place.expert is not None or not part.get_shape():
            tensor = part[...]
        else:
            tensor = part[expert : expert + 1]
        return tensor

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Entries of a stored tensor's first dimension."""
        part = self._opened[self.weights.tensors[name].file].get_slice(name)
        tensor: torch.Tensor = part[start : min(stop, self.weights.tensors[name].shape[0])]
        return tensor

    def expert(self, layer: int, number: int) -> dict[str, torch.Tensor]:
        """The tensors of one expert as a loaded model has them; float32 where they were decoded.

        Raises `UnsupportedModel` where its parts contradict the stored form.
        """
        weights: dict[str, list[Place]] = {}
        for place in self.experts[layer][number]:
            weights.setdefault(place.part.weight, []).append(place)
        of_target: dict[str, dict[str, torch.Tensor]] = {}
        loaded = {}
        for weight, places in weights.items():
            first, tensor = places[0], self._decoded(weight, places, number)
            if first.pattern is not None:
                of_target.setdefault(first.target, {})[first.pattern] = tensor
            elif first.expert is None:
                loaded[first.attribute] = tensor[0]
            else:
                loaded[first.common.rpartition("experts.")[2]] = tensor
        for target, tensors in of_target.items():
            loaded[target.rpartition(".")[2]] = self._converted(target, tensors)
        return loaded

    def digest(self, layer: int, number: int, *, decoded: bool = False) -> str:
        """sha256 of an expert's bytes: as stored in fewer bits, else as a model holds them.

        `decoded`: of its numbers in any case.
        """
        if self.checkpoint.form is None or decoded:
            tensors = self.expert(layer, number)
        else:
            places = self.experts[layer][number]
            tensors = {place.common: self.raw(place, number) for place in places}
        total = hashlib.sha256()
        for name in sorted(tensors):
            tensor = tensors[name]
            total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return total.hexdigest()

    def _decoded(self, weight: str, places: list[Place], number: int) -> torch.Tensor:
        if self.checkpoint.form is None or self.weights.is_plain(weight):
            return self.raw(places[0], number)
        parts = {place.part.role: self.raw(place, number) for place in places}
        return self.checkpoint.form.decode(weight, parts)

    def _converted(self, target: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What transformers makes of the tensors of one expert: its entry in the fused tensor."""
        pattern = next(iter(tensors))
        converter = deepcopy(next(c for c in self._converters if pattern in c.source_patterns))
        for source, tensor in tensors.items():
            # It takes tensors as well as what will be one.
            converter.add_tensor(target, source, source, cast(Any, tensor))
        made = converter.convert(target, model=self.model, config=self.model.config).get(target)
        shape = self._shapes[target]
        if made is None or len(made) != 1 or made.shape[1:] != shape[1:]:
            raise UnsupportedModel(f"{target}: its experts cannot be converted one by one")
        return torch.as_tensor(made[0])

    @cached_property
    def _shapes(self) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in self.model.state_dict().items()}

    @cached_property
    def _converters(self) -> list[WeightConverter]:
        steps = get_model_conversion_mapping(self.model)
        return [step for step in steps if isinstance(step, WeightConverter)]

    @cached_property
    def _opened(self) -> dict[Path, Any]:
        # Read with pread: a mapped file counts as memory of the process.
        files = {tensor.file for tensor in self.weights.tensors.values()}
        return {file: safe_open(file, framework="pt", backend="pread") for file in files}


def same_weight(one: StoredModel, a: str, other: StoredModel, b: str) -> bool:
    """Whether weight `a` of one model and `b` of another hold the same numbers."""
    first, second = one.weights.parts[a], other.weights.parts[b]
    if one.weights.is_plain(a) and other.weights.is_plain(b):
        return _same_tensor(one, a, other, b)
    if one.checkpoint.form == other.checkpoint.form:
        return first.keys() == second.keys() and all(
            _same_tensor(one, first[role], other, second[role]) for role in first
        )
    return torch.equal(one.weights.read(a).float(), other.weights.read(b).float())


def _same_tensor(one: StoredModel, a: str, other: StoredModel, b: str) -> bool:
    """Whether two stored tensors hold the same numbers, read some rows at a time."""
    shape = one.weights.tensors[a].shape
    if shape != other.weights.tensors[b].shape:
        return False
    if not shape:
        return same_numbers(one.raw(one.places[a], None), other.raw(other.places[b], None))
    rows = max(1, CHUNK * shape[0] // max(1, math.prod(shape)))
    return all(
        same_numbers(one.rows(a, start, start + rows), other.rows(b, start, start + rows))
        for start in range(0, shape[0], rows)
    )


def same_numbers(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether two tensors are equal bit for bit, or in value where their dtypes differ."""
    if x.shape != y.shape:
        return False
    if x.dtype == y.dtype:
        first, second = (each.contiguous().reshape(-1).view(torch.uint8) for each in (x, y))
        return torch.equal(first, second)
    return torch.equal(x.double(), y.double())
