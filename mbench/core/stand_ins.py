"""What stands in for the experts that a mask drops: nothing, a constant, or a merged expert."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

RouterRows = Literal["mapped", "sliced"]
"""Whether a router keeps the rows of dropped experts that are merged into others."""


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
    of the expert that takes it up; that one's own row is applied to itself, and is best in order.
    `matched`: the order is found from the weights where the mask is applied, by
    `mbench.moe.align.matched`. None: as they are."""
    router: RouterRows = "mapped"
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


def keeps_router(stand_in: StandIn | None) -> bool:
    """Whether the router chooses among all N experts as in the full model, in either mode."""
    return isinstance(stand_in, Constants) or getattr(stand_in, "router", "") == "mapped"


def refuse_malformed(stand_in: object, keep: np.ndarray) -> None:
    """Raise `ValueError`, in one line, for what cannot stand in for the experts not in `keep`.

    Args:
        stand_in: that of a mask.
        keep: bool [layers, N], what the mask keeps.
    """
    if isinstance(stand_in, Constants):
        _refuse_constants(stand_in, keep)
    elif isinstance(stand_in, Merged):
        _refuse_merged(stand_in, keep)
    else:
        raise ValueError(f"stand_in must be None, Constants or Merged, not {stand_in!r}")


def _refuse_constants(constants: Constants, keep: np.ndarray) -> None:
    outputs = _array("Constants.outputs", constants.outputs, np.float32, (*keep.shape, None))
    _refuse_where("Constants.outputs", "is not finite", ~np.isfinite(outputs).all(axis=2))
    _refuse_where(
        "Constants.outputs", "must be 0, as it is kept", (outputs != 0).any(axis=2) & keep
    )


def _refuse_merged(merged: Merged, keep: np.ndarray) -> None:
    if merged.router not in (valid := get_args(RouterRows)):
        raise ValueError(
            f"Merged.router must be {' or '.join(map(repr, valid))}, not {merged.router!r}"
        )
    into = _array("Merged.into", merged.into, np.int64, keep.shape)
    weights = _array("Merged.weights", merged.weights, np.float32, keep.shape)
    count = keep.shape[1]
    _refuse_where("Merged.into", f"must be -1 to {count - 1}", (into < -1) | (into >= count))
    itself = into == np.arange(count)
    _refuse_where("Merged.into", "must be itself, as it is kept", keep & ~itself)
    takers = np.take_along_axis(keep, np.maximum(into, 0), axis=1)
    _refuse_where("Merged.into", "must be a kept expert", (into >= 0) & ~takers)
    if merged.router == "mapped":
        _refuse_where("Merged.into", "must not be -1 where the router is mapped", into < 0)
    _refuse_where("Merged.weights", "is not finite", ~np.isfinite(weights))
    _refuse_where("Merged.weights", "must be 0 where `into` is -1", (weights != 0) & (into < 0))
    if isinstance(merged.neurons, str):
        if merged.neurons != "matched":
            raise ValueError(
                f"Merged.neurons must be an array or 'matched', not {merged.neurons!r}"
            )
    elif merged.neurons is not None:
        neurons = _array("Merged.neurons", merged.neurons, np.int64, (*keep.shape, None))
        ordered = np.arange(neurons.shape[2])
        wrong = (np.sort(neurons, axis=2) != ordered).any(axis=2)
        _refuse_where("Merged.neurons", f"must be an order of 0 to {len(ordered) - 1}", wrong)


def _array(name: str, value: object, dtype: type, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array, if it has this dtype and shape; None stands for any length from 1."""
    wanted = f"{np.dtype(dtype)} [{', '.join('?' if n is None else str(n) for n in shape)}]"
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} must be an array {wanted}, not {type(value).__name__}")
    fits = len(value.shape) == len(shape) and all(
        length == n if n is not None else length > 0
        for length, n in zip(value.shape, shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise ValueError(f"{name} must be {wanted}, not {value.dtype} {list(value.shape)}")
    return value


def _refuse_where(name: str, problem: str, wrong: np.ndarray) -> None:
    """Raise if any expert of `wrong` (bool [layers, N]) is, naming the first."""
    if wrong.any():
        layer, expert = np.argwhere(wrong)[0].tolist()
        raise ValueError(f"{name} of expert {expert} in layer {layer} {problem}")


def _digest(kind: str, *arrays: np.ndarray) -> str:
    content = hashlib.sha256(kind.encode())
    for array in arrays:
        content.update(repr(array.shape).encode())
        # Minus zero does what zero does.
        content.update((array + array.dtype.type(0)).tobytes())
    return content.hexdigest()
