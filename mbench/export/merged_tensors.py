"""Sums of experts for an exported checkpoint, computed from the files of the full one.

A sum over experts may be taken before or after a checkpoint's tensors are joined into those of
transformers, so that each stored tensor becomes a sum of stored tensors, one at a time in memory.
Only the order of inner neurons depends on which stored dimension counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.core.layer_data import ExpertWeights
from mbench.core.stand_ins import Merged
from mbench.moe.adapter import MoELayer
from mbench.moe.align import matched
from mbench.moe.deepseek import DTYPES
from mbench.moe.neurons import InnerNeurons
from mbench.moe.replace import changed_groups, weighted_sum
from mbench.storage.safetensor_files import NewTensor, StoredTensor


@dataclass(frozen=True)
class Piece:
    """What a stored tensor holds of one expert: one of its tensors, or a part of it."""

    stored: StoredTensor
    entry: int | None
    """Which entry of the first dimension; None: all of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the expert's own numbers."""
        return self.stored.shape if self.entry is None else self.stored.shape[1:]

    def read(self, name: str) -> torch.Tensor:
        """The numbers, from the file; `name` is what errors call the tensor."""
        if self.stored.dtype not in DTYPES:
            raise UnsupportedModel(f"{name} is {self.stored.dtype}, which cannot be merged")
        size = self.stored.size if self.entry is None else self.stored.size // self.stored.shape[0]
        with self.stored.file.open("rb") as file:
            file.seek(self.stored.start + (self.entry or 0) * size)
            data = file.read(size)
        if len(data) != size:
            raise ModelNotFound(f"{self.stored.file} is truncated")
        return torch.frombuffer(bytearray(data), dtype=DTYPES[self.stored.dtype]).view(self.shape)


@dataclass
class MergedLayer:
    """The experts of one layer, as far as their stored tensors have been seen."""

    layer: MoELayer
    stand_in: Merged
    number: int
    """Of the layer."""
    _pieces: dict[str, dict[int, Piece]] = field(default_factory=dict)
    """Name without the expert's number -> expert -> its piece."""
    _attributes: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """The same name -> attribute of the experts' module, and whether the loader converts it."""
    _orders: np.ndarray | None = None

    @cached_property
    def _inner(self) -> InnerNeurons:
        return InnerNeurons.of(self.layer)

    def see(self, name: str, attribute: str, converted: bool, expert: int, piece: Piece) -> None:
        """Remember a stored piece; all have been seen before anything is computed."""
        self._pieces.setdefault(name, {})[expert] = piece
        self._attributes[name] = attribute, converted
        if self.stand_in.neurons is not None:
            self._dim(name)

    def changed(self, tensor: NewTensor, name: str, experts: list[int]) -> NewTensor:
        """Return a tensor of the kept experts, whose bytes are sums where these are merged."""
        groups = dict(changed_groups(self.stand_in, self.number))
        if not groups.keys() & set(experts):
            return tensor
        return replace(tensor, made=partial(self._bytes, name, experts, groups))

    def _bytes(
        self, name: str, experts: list[int], groups: Mapping[int, list[int]]
    ) -> Iterator[bytes]:
        for expert in experts:
            row = self._pieces[name][expert].read(name)
            if expert in groups:
                row = self._sum(name, expert, groups[expert])
            yield row.contiguous().view(torch.uint8).numpy().tobytes()

    def _sum(self, name: str, expert: int, group: list[int]) -> torch.Tensor:
        pieces = (self._pieces[name][member].read(name) for member in group)
        rows = (
            self._ordered(name, piece, member) for piece, member in zip(pieces, group, strict=True)
        )
        weights = self.stand_in.weights[self.number, group]
        return weighted_sum(f"{name} of expert {expert}", rows, weights)

    def _ordered(self, name: str, row: torch.Tensor, expert: int) -> torch.Tensor:
        """A piece with its inner neurons in the order in which they are summed."""
        if self.stand_in.neurons is None:
            return row
        order = self._order(expert)
        attribute, converted = self._attributes[name]
        if not converted:
            return self._inner.ordered(attribute, row, order)
        dim = self._dim(name)
        return row if dim is None else row.index_select(dim, torch.from_numpy(order))

    def _order(self, expert: int) -> np.ndarray:
        if self._orders is None:
            orders = self.stand_in.neurons
            if isinstance(orders, np.ndarray):
                self._orders = orders[self.number]
            else:
                self._orders = matched(self._weights, self.stand_in.into[self.number])
        order: np.ndarray = self._orders[expert]
        return order

    def _weights(self, expert: int) -> ExpertWeights:
        """An expert's projections from their stored pieces; those before the activation in one."""
        rows: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for name, (attribute, converted) in self._attributes.items():
            dim = self._dim(name)
            if attribute.endswith("_bias") or dim is None:
                continue
            row = self._pieces[name][expert].read(name).float().movedim(dim, 0)
            if not converted and attribute == "gate_up_proj":
                if self._inner.pairs == "halves":
                    row = torch.cat(row.chunk(2), dim=1)
                else:
                    row = row.reshape(self._inner.count, -1)
            rows[attribute == "down_proj"].append(row)
        return ExpertWeights(None, torch.cat(rows[False], dim=1), torch.cat(rows[True], dim=1).T)

    def _dim(self, name: str) -> int | None:
        """The dimension of a piece that counts inner neurons, or pairs of them as the model does.

        Raises `UnsupportedModel` where the loader converts it and that does not follow from its
        shape.
        """
        inner = self._inner
        attribute, converted = self._attributes[name]
        if not converted:
            return inner.dim(attribute)
        if attribute == "down_proj_bias":
            return None
        shape = next(iter(self._pieces[name].values())).shape
        row = getattr(self.layer.experts, attribute)[0].numel() if attribute else 0
        part = row // 2 if attribute.startswith("gate_up") else row
        if np.prod(shape) != part or shape.count(inner.count) != 1:
            raise UnsupportedModel(
                f"{name} {list(shape)}: which of its numbers belong to which inner neuron is not"
                " known, so experts cannot be aligned in the checkpoint's own form"
            )
        return shape.index(inner.count)
