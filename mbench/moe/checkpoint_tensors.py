"""Tells which layer and which experts each tensor of a checkpoint belongs to, by its stored name.

transformers fuses the experts of a layer when it loads them. Its own conversion table says where
each tensor of a checkpoint goes, so no family needs code here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.moe.adapter import MoELayer
from mbench.moe.prune import expert_dims
from mbench.moe.quantised.form import Form, Part
from mbench.storage.safetensor_files import StoredTensor

EXPERT_NUMBER = re.compile(r"(?P<before>.*\.)(?P<number>\d+)(?P<after>\..*)")
"""The last number in a name; layers come before experts."""

IGNORED_BUFFERS = r"rotary_emb\.inv_freq"
"""Old checkpoints store this buffer, which transformers computes now."""


@dataclass(frozen=True)
class Place:
    """Where a stored tensor belongs in the model."""

    name: str
    """As the checkpoint has it."""
    part: Part
    """Which weight it is a part of; an unquantised tensor is all of its own."""
    target: str
    """The weight's name in the model's state dict."""
    pattern: str | None = None
    """Of the conversion that the weight goes through when it is loaded, if it does."""
    layer: int | None = None
    """Number of the MoE layer whose experts or router it is of; None: neither of them."""
    expert: int | None = None
    """The only expert that it is of; None: of no single one."""
    dim: int | None = None
    """The dimension that counts experts, if it is of all of them or of the router."""
    is_router: bool = False
    attribute: str = ""
    """Of the experts' module, if that is known: e.g. `down_proj`."""
    converted: bool = False
    """Whether loading changes it beyond its name."""
    is_used: bool = True
    """Whether the model's class has it; those of layers for speculative decoding, for instance, it
    leaves out."""
    is_known: bool = True
    """Whether the model's class has it, or leaves it out on purpose."""

    @property
    def common(self) -> str:
        """The name without the expert's number, the same for all experts of a layer."""
        return self._split("") if self.expert is not None else self.name

    def renumbered(self, expert: int) -> str:
        """Its name as a part of another expert."""
        return self._split(str(expert))

    def _split(self, number: str) -> str:
        return EXPERT_NUMBER.sub(rf"\g<before>{number}\g<after>", self.name)


def place_tensors(
    model: PreTrainedModel,
    layers: Sequence[MoELayer],
    stored: Mapping[str, StoredTensor],
    form: Form | None = None,
    *,
    strict: bool = True,
) -> dict[str, Place]:
    """Return the place of every stored tensor by its name, sorted by numbers in the names.

    `model` may be on the meta device; `form` is how the checkpoint stores weights in fewer bits,
    None if it does not. Without `strict`, experts may be missing or more than the configuration
    says, and tensors unknown. Raises `UnsupportedModel` for a tensor whose experts cannot be told
    or that the model's class does not know, and `ModelNotFound` if experts or router tensors are
    missing.
    """
    walk = _Walk(model, layers, form, strict)
    places = {name: walk.visit(name, stored[name]) for name in sorted(stored, key=dot_natural_key)}
    if strict:
        walk.check_complete()
        _refuse_quantised_routers(places)
    return places


class _Walk:
    """Visits the tensors of a checkpoint, and remembers which experts it has seen."""

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[MoELayer], form: Form | None, strict: bool
    ) -> None:
        self._layers = layers
        self._strict = strict
        self._form = form
        self._count = layers[0].num_experts
        self._prefix = model.base_model_prefix
        self._shapes = {name: t.shape for name, t in model.state_dict().items()}
        self._dims = expert_dims(model, layers)
        self._of_experts = expert_dims(model, layers, router=False)
        conversions = get_model_conversion_mapping(model)
        self._renamings = [step for step in conversions if isinstance(step, WeightRenaming)]
        self._converters = [step for step in conversions if isinstance(step, WeightConverter)]
        ignored = model._keys_to_ignore_on_load_unexpected or ()
        self._ignored = re.compile("|".join((IGNORED_BUFFERS, *ignored)))
        self._missing = set(self._dims)
        # (layer, weight without the expert's number) -> experts seen
        self._seen: dict[tuple[int, str], set[int]] = {}

    def visit(self, name: str, stored: StoredTensor) -> Place:
        part = self._form.part(name) if self._form else Part(name, name.rpartition(".")[2])
        target, pattern = self._target(part.weight)
        if target in self._dims:
            self._missing.discard(target)
            layer, dim = self._dims[target]
            attribute = target.rpartition(".")[2] if target in self._of_experts else ""
            if pattern is not None and "*." in pattern:
                return self._one_expert(name, part, target, pattern, layer, attribute)
            converted = pattern is not None
            if self._strict:
                self._check_rows(name, part, stored, dim, converted)
            return Place(
                name,
                part,
                target,
                pattern,
                layer,
                dim=dim,
                is_router=not attribute,
                attribute=attribute,
                converted=converted,
            )
        for number, described in enumerate(self._layers):
            # Experts stored one by one under the module's own path, without a conversion.
            if re.match(rf"{re.escape(described.path)}\.\d+\.", target):
                self._missing -= {f"{described.path}.{each}" for each in described.expert_tensors}
                return self._one_expert(name, part, target, pattern, number, "")
        # What concerns the cache of keys and values may stand where the model has no layer.
        if target in self._shapes or (self._form and part.role in self._form.beside):
            return Place(name, part, target, pattern)
        known = self._ignored.search(target) is not None
        if self._strict and not known:
            raise UnsupportedModel(f"the model's class has no tensor {name}, so it is not copied")
        return Place(name, part, target, pattern, is_used=False, is_known=known)

    def _target(self, name: str) -> tuple[str, str | None]:
        """Name in the model's state dict and pattern of its conversion, as on loading."""
        target, pattern = rename_source_key(
            name, self._renamings, self._converters, self._prefix, self._shapes
        )
        if target not in self._shapes and name in self._shapes:
            return rename_source_key(name, [], [], self._prefix, self._shapes)
        return target, pattern

    def _one_expert(
        self, name: str, part: Part, target: str, pattern: str | None, layer: int, attribute: str
    ) -> Place:
        match = EXPERT_NUMBER.fullmatch(name)
        if match is None or (self._strict and int(match["number"]) >= self._count):
            raise UnsupportedModel(f"{name} does not name one of the {self._count} experts")
        number = int(match["number"])
        of_weight = EXPERT_NUMBER.fullmatch(part.weight)
        if of_weight is None or of_weight["before"] != match["before"]:
            raise UnsupportedModel(f"{name}: which expert it is of cannot be told")
        common = of_weight["before"] + of_weight["after"]
        self._seen.setdefault((layer, common), set()).add(number)
        return Place(
            name, part, target, pattern, layer, number, attribute=attribute, converted=True
        )

    def _check_rows(
        self, name: str, part: Part, stored: StoredTensor, dim: int, converted: bool
    ) -> None:
        shape = stored.shape
        # A conversion may move dimensions; where only one has this length it is the experts'. A
        # part that is a mere list of numbers, e.g. a shape, has none that is clearly theirs.
        unclear = converted and shape.count(self._count) != 1
        unclear |= part.weight != name and len(shape) < 2
        if unclear or len(shape) <= dim or shape[dim] != self._count:
            raise UnsupportedModel(
                f"{name} {list(shape)}: no dimension is clearly that of the {self._count} experts"
            )

    def check_complete(self) -> None:
        """Raise unless the checkpoint held every expert of every layer and all router tensors."""
        if self._missing:
            raise ModelNotFound(f"the checkpoint has no tensor for {min(self._missing)}")
        for (_, name), experts in self._seen.items():
            if len(experts) != self._count:
                raise ModelNotFound(
                    f"the checkpoint has {len(experts)} of {self._count} experts of {name}"
                )


def in_fewer_bits(places: Iterable[Place]) -> dict[str, list[str]]:
    """The weights that are no plain tensors, each with the names of its parts."""
    parts: dict[str, list[str]] = {}
    for place in places:
        parts.setdefault(place.part.weight, []).append(place.name)
    return {weight: names for weight, names in parts.items() if names != [weight]}


def _refuse_quantised_routers(places: Mapping[str, Place]) -> None:
    """Rows of a router share scales with other rows, or packed numbers."""
    routers = in_fewer_bits(place for place in places.values() if place.is_router)
    for weight, names in routers.items():
        raise UnsupportedModel(
            f"{weight} is a router's and stored in fewer bits ({', '.join(names)}), so that its"
            " rows cannot be told apart"
        )
