"""Experts that lie in memory as a checkpoint stores them, in FP8, and are decoded when called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mbench.moe.quantised.fp8 import scaled

AT_ONCE = 1 << 26
"""Numbers that are decoded at once in float32."""
SCALES = "_scales"
"""What is added to the name of a weight for that of its scales."""


@dataclass(frozen=True)
class StoredShape:
    """How a layer's experts store one of their weights, e.g. `gate_up_proj`."""

    experts: int
    sources: int
    """Matrices of the checkpoint that it is made of, one below the other: of gate and up, 2."""
    rows: int
    """Of one of them."""
    columns: int
    scales: tuple[int, int]
    """Rows and columns of the scales of one of them."""
    block: tuple[int, int]
    """Rows and columns that share a scale."""


class StoredExperts(nn.Module):
    """What an experts module of transformers becomes a subclass of: its weights decode themselves.

    As parameters it has a weight's codes [N, rows, columns] in float8, under the weight's name, and
    its scales [N, sources, ...]. As attributes, weights are the numbers of all experts, decoded
    anew, but once within a forward call. What stock code computes with them, and what `weight_of`
    gives for one expert, are the very numbers that would lie in memory otherwise.
    """

    stored: dict[str, StoredShape]
    computed_in: torch.dtype
    decoded: dict[str, torch.Tensor] | None = None

    def weight_of(self, name: str, expert: int) -> torch.Tensor:
        """One expert's weight [rows, columns], in the dtype that is computed in."""
        return self._decode(name, slice(expert, expert + 1))[0]

    def weights(self, name: str) -> torch.Tensor:
        """All experts' weights [N, rows, columns]."""
        if self.decoded is not None and name in self.decoded:
            return self.decoded[name]
        codes = self._tensor(name)
        whole = torch.empty(codes.shape, dtype=self.computed_in, device=codes.device)
        step = max(1, AT_ONCE // codes[0].numel())
        for start in range(0, len(codes), step):
            entries = slice(start, start + step)
            whole[entries] = self._decode(name, entries)
        if self.decoded is not None:
            self.decoded[name] = whole
        return whole

    def _decode(self, name: str, entries: slice) -> torch.Tensor:
        shape, codes = self.stored[name], self._tensor(name)[entries]
        scales = self._tensor(name + SCALES)[entries]
        numbers = scaled(codes.unflatten(1, (shape.sources, -1)), scales, shape.block)
        return numbers.flatten(1, 2).to(self.computed_in)

    def _tensor(self, name: str) -> torch.Tensor:
        # Not as an attribute, which is the numbers.
        tensor: torch.Tensor = vars(self)["_parameters"][name]
        return tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute as the class of transformers does."""
        self.decoded = {}
        try:
            return super().forward(*args, **kwargs)
        finally:
            self.decoded = None


def keep_stored(
    experts: nn.Module, shapes: dict[str, StoredShape], computed_in: torch.dtype
) -> None:
    """Make an experts module on the meta device one that holds codes and scales."""
    for name, shape in shapes.items():
        codes = torch.empty(
            (shape.experts, shape.sources * shape.rows, shape.columns),
            dtype=torch.float8_e4m3fn,
            device="meta",
        )
        scales = torch.empty(
            (shape.experts, shape.sources, *shape.scales), dtype=torch.float32, device="meta"
        )
        experts._parameters[name] = nn.Parameter(codes, requires_grad=False)
        experts.register_parameter(name + SCALES, nn.Parameter(scales, requires_grad=False))
    kind = type(experts)
    decoding: dict[str, Any] = {name: _decoding(name) for name in shapes}
    # transformers and mbench know modules by the names of their classes.
    experts.__class__ = type(
        kind.__name__, (StoredExperts, kind), decoding | {"__module__": kind.__module__}
    )
    # transformers would initialise the numbers, which are decoded anew, for nothing.
    vars(experts).update(stored=shapes, computed_in=computed_in, _is_hf_initialized=True)


def _decoding(name: str) -> property:
    def weights(self: StoredExperts) -> torch.Tensor:
        return self.weights(name)

    return property(weights)
