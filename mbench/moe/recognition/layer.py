"""Which experts of a full model's layer a pruned one holds: by their bytes, else by likeness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from mbench.moe.recognition.likeness import LayerSample, Likeness, places
from mbench.moe.stored_model import StoredModel, same_numbers


class Misfit(Exception):
    """Experts that have not the shapes of the full model's; the text says which."""


@dataclass
class LayerFound:
    """What is found out about one layer."""

    order: list[int | None] = field(default_factory=list)
    """The full model's expert that each is; None where there is none, or it cannot be told."""
    change: float | None = None
    """Largest change of an expert's numbers; None where all are the same bytes."""
    turned: int = 0
    """Experts with their inner neurons in another order."""
    problems: dict[int, str] = field(default_factory=dict)
    """By expert, why it is not one of the full model's."""

    def known(self) -> tuple[int, ...]:
        """`order` where each is another one of the full model's; else nothing."""
        known = tuple(each for each in self.order if each is not None)
        return known if len(set(known)) == len(self.order) else ()


def recognise_layer(full: StoredModel, pruned: StoredModel, layer: int) -> LayerFound:
    """Compare the experts of one layer; of the full model all are read, twice where bytes differ.

    They are read a third time where an expert is like none of them. Raises `Misfit` for experts of
    other shapes, and what reading raises.
    """
    known: dict[str, list[int]] = {}
    forms = full.checkpoint.form, pruned.checkpoint.form
    # Settings may differ in what decides no number, e.g. in names of experts.
    decoded = forms[0] != forms[1]
    if not decoded or None not in forms:
        for number in full.experts[layer]:
            known.setdefault(full.digest(layer, number, decoded=decoded), []).append(number)
    layers = _Layers(full, pruned, layer)
    found = LayerFound()
    for number in pruned.experts[layer]:
        same = known.get(pruned.digest(layer, number, decoded=decoded), []) if known else []
        if len(same) == 1:
            found.order.append(same[0])
        elif same:
            taken = {each for each in found.order if each is not None}
            found.order.append(layers.by_router(number, same, taken))
            if found.order[-1] is None:
                names = " or ".join(map(str, same))
                found.problems[number] = f"cannot be told apart: {names} of the full model"
        else:
            _by_likeness(layers, number, found)
    for expert in {
        each for each in found.order if found.order.count(each) > 1 and each is not None
    }:
        twice = [number for number, each in enumerate(found.order) if each == expert]
        found.problems[twice[1]] = f"is {expert} of the full model, as expert {twice[0]} is"
    return found


def _by_likeness(layers: _Layers, number: int, found: LayerFound) -> None:
    likeness, turned = layers.likeness(number)
    expert, change = likeness.expert, likeness.change
    if likeness.near:
        # Its row in the router may say which.
        expert = layers.by_router(number, likeness.near)
        change = 0.0 if expert is None else layers.change(number, expert)
    found.order.append(expert)
    if expert is None:
        found.problems[number] = likeness.problem
    found.turned += turned
    if expert is not None:
        found.change = max(found.change or 0.0, change)


class _Layers:
    """One layer of both models."""

    def __init__(self, full: StoredModel, pruned: StoredModel, layer: int) -> None:
        self._full, self._pruned, self._layer = full, pruned, layer

    def by_router(
        self, number: int, among: Sequence[int], taken: set[int] | None = None
    ) -> int | None:
        """The only one of several experts with the same entries in the router.

        Given those that are `taken` of experts that are the same, one of those left.
        """
        rows = self._full.routers[self._layer]
        mine = self._pruned.routers[self._layer]
        if not rows or rows.keys() != mine.keys():
            return None

        def same(expert: int) -> bool:
            return all(
                number < self._mine[name].shape[0]
                and same_numbers(self._theirs[name][expert], self._mine[name][number])
                for name in rows
            )

        matching = [expert for expert in among if same(expert)]
        if taken is not None:
            matching = ([each for each in matching if each not in taken] or matching)[:1]
        return matching[0] if len(matching) == 1 else None

    @cached_property
    def _theirs(self) -> dict[str, torch.Tensor]:
        return router_rows(self._full, self._layer)

    @cached_property
    def _mine(self) -> dict[str, torch.Tensor]:
        return router_rows(self._pruned, self._layer)

    def likeness(self, number: int) -> tuple[Likeness, bool]:
        """What an expert is, and whether its neurons are in another order.

        Raises `Misfit` where its tensors are not those of the full model's experts.
        """
        tensors = self._pruned.expert(self._layer, number)
        self._refuse_misfit(tensors)
        likeness = self._sample.likeness(_sample(tensors))
        if not likeness.is_unlike:
            return likeness, False
        mine = self._neurons(tensors)
        same = [
            expert
            for expert, sizes in enumerate(self._sizes)
            if len(mine) and np.allclose(sizes, mine, rtol=1e-12, atol=0.0)
        ]
        return (Likeness(same[0]), True) if len(same) == 1 else (likeness, False)

    def change(self, number: int, expert: int) -> float:
        """By how much an expert differs from one of the full model's; see `Likeness.change`."""
        tensors = self._pruned.expert(self._layer, number)
        return self._sample.change(_sample(tensors), expert)

    def _refuse_misfit(self, tensors: Mapping[str, torch.Tensor]) -> None:
        mine = {name: list(tensor.shape) for name, tensor in tensors.items()}
        if self._shapes.keys() != mine.keys():
            names, others = (", ".join(sorted(each)) for each in (mine, self._shapes))
            raise Misfit(f"experts hold {names} instead of {others}")
        for name, shape in sorted(self._shapes.items()):
            if mine[name] != shape:
                raise Misfit(f"experts of another shape: {name} {mine[name]} instead of {shape}")

    @cached_property
    def _shapes(self) -> dict[str, list[int]]:
        tensors = self._full.expert(self._layer, 0)
        return {name: list(tensor.shape) for name, tensor in tensors.items()}

    @cached_property
    def _sample(self) -> LayerSample:
        return LayerSample([_sample(tensors) for tensors in self._every()])

    @cached_property
    def _sizes(self) -> list[np.ndarray]:
        return [self._neurons(tensors) for tensors in self._every()]

    def _every(self) -> Iterator[dict[str, torch.Tensor]]:
        for number in self._full.experts[self._layer]:
            yield self._full.expert(self._layer, number)

    def _neurons(self, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Squared lengths of each inner neuron's rows and columns, sorted by neuron; maybe none.

        They are the same whatever the order of the neurons is.
        """
        experts = self._full.layers[self._layer].experts
        sizes: list[np.ndarray] = []
        for name in ("gate_up_proj", "up_proj", "down_proj"):
            if name not in tensors:
                continue
            hidden = int(bool(experts.is_transposed) == (name == "down_proj"))
            squares = tensors[name].double().square().sum(dim=hidden).numpy()
            if name != "gate_up_proj":
                sizes.append(squares)
            elif experts.is_concatenated:
                sizes += np.split(squares, 2)
            else:
                sizes += [squares[::2], squares[1::2]]
        if not sizes:
            return np.zeros(0)
        neurons = np.stack(sizes)
        ordered: np.ndarray = neurons[:, np.lexsort(neurons)].ravel()
        return ordered


def router_rows(stored: StoredModel, layer: int) -> dict[str, torch.Tensor]:
    """The tensors of a layer's router by their names in the model, experts first."""
    rows = {}
    for target, place in stored.routers[layer].items():
        tensor = stored.weights.read(place.part.weight)
        dim = place.dim or 0
        count = len(stored.experts[layer])
        if place.converted and tensor.dim() and tensor.shape[dim] != count:
            lengths = list(tensor.shape)
            dim = lengths.index(count) if count in lengths else dim
        rows[target] = tensor.movedim(dim, 0) if tensor.dim() else tensor.reshape(1)
    return rows


def _sample(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {
        name: tensor.flatten()[torch.from_numpy(places(tensor.numel()))].double().numpy()
        for name, tensor in tensors.items()
        if tensor.numel()
    }
