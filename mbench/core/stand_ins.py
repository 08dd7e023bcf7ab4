"""What stands in for the experts that a mask drops: nothing, a constant, or a merged expert."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Constants:
    """A dropped expert gives a constant instead of its output, as in MoNE.

    The router keeps all N experts and their gates, whatever the suite's router mode: a token that
    is routed to a dropped expert gets the gate times the constant.
    """

    outputs: np.ndarray = field(repr=False)
    """float32 [layers, N, H], 0 for kept experts."""

    @property
    def digest(self) -> str:
        """Hash of all that it says."""
        return _digest("constants", np.asarray(self.outputs, "<f4"))


@dataclass(frozen=True)
class Merged:
    """Kept experts take up dropped ones: their weights become a weighted sum over a group.

    Every tensor of a kept expert (projections and biases) becomes
    `sum of weights[layer, e] * tensor of e` over the experts e with `into[layer, e]` equal to it,
    itself among them.
    """

    into: np.ndarray = field(repr=False)
    """int64 [layers, N]: the kept expert that takes an expert up; kept ones name themselves.
    -1: dropped and taken up by none, which only a `sliced` router allows."""
    weights: np.ndarray = field(repr=False)
    """float32 [layers, N]: each expert's share; 0 where `into` is -1."""
    neurons: np.ndarray | Literal["matched"] | None = field(default=None, repr=False)
    """In which order an expert's inner neurons are taken before they are summed, so that like ones
    meet. int64 [layers, N, I]: inner neuron `neurons[layer, e, i]` of expert e meets inner neuron i
    of the expert that takes it up. `matched`: the order is found from the weights where the mask
    is applied, by `mbench.moe.align.matched`. None: as they are."""
    router: Literal["mapped", "sliced"] = "mapped"
    """`mapped`: the router keeps all N rows and gates, and a token routed to a dropped expert goes
    to the one that took it up (M-SMoE, HC-SMoE). `sliced`: the rows of dropped experts are gone,
    so that the result is a stock checkpoint of fewer experts (REAM)."""

    @property
    def digest(self) -> str:
        """Hash of all that it says."""
        arrays = [np.asarray(self.into, "<i8"), np.asarray(self.weights, "<f4")]
        kind = f"merged {self.router}"
        if isinstance(self.neurons, str):
            kind = f"{kind} {self.neurons}"
        elif self.neurons is not None:
            arrays.append(np.asarray(self.neurons, "<i8"))
        return _digest(kind, *arrays)


StandIn = Constants | Merged


def _digest(kind: str, *arrays: np.ndarray) -> str:
    content = hashlib.sha256(kind.encode())
    for array in arrays:
        content.update(repr(array.shape).encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
