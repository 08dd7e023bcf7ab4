"""Which expert of a layer another one was made from, by the numbers in it.

An expert that was trained further, scaled, merged or stored in fewer bits shares no byte with the
one that it was. Its numbers are explained as a weighted sum of all the layer's experts, by least
squares on a sample: one weight near 1 and little left over is that expert, several are a merger.
The standard errors of the weights tell where experts are too much alike to be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

SAMPLE = 8192
"""Most numbers that are looked at in one tensor of an expert."""
LEFT = 0.6
"""Most of an expert's numbers (root mean square) that may be left unexplained."""
LEAST, MOST = 0.5, 2.0
"""Weights of an expert between which another one counts as that expert, scaled."""
SHARE = 0.05
"""Weight from which an expert counts as merged."""
ERRORS = 6.0
"""Standard errors within which a weight is not told from another."""
ALIKE = 1e-12
"""Share of the largest eigenvalue below which experts differ by rounding only."""
LISTED = 4

Sample = Mapping[str, np.ndarray]
"""Numbers of one expert at the same places of its tensors as in every other, by tensor."""


@dataclass(frozen=True)
class Likeness:
    """What an expert is, seen from a layer of the full model."""

    expert: int | None
    """The only one that it was made from; None: there is no such one, or it cannot be told."""
    change: float = 0.0
    """By how much its numbers differ from that expert's (root mean square, relative)."""
    problem: str = ""
    """In words, e.g. `is a merger: 0.50 x 7 + 0.50 x 9`, where no expert is named."""
    near: tuple[int, ...] = ()
    """The experts among which it cannot be told."""
    is_unlike: bool = False
    """Whether no sum of the layer's experts is like it."""


@cache
def places(size: int) -> np.ndarray:
    """Where a tensor of `size` numbers is looked at: everywhere, or at fixed random places.

    Evenly spaced ones would meet few columns of a matrix.
    """
    if size <= SAMPLE:
        return np.arange(size)
    return np.unique(np.random.default_rng(0).integers(0, size, SAMPLE))


class LayerSample:
    """The experts of one layer of the full model."""

    def __init__(self, experts: Sequence[Sample]) -> None:
        """`experts` are all of the layer's, in order."""
        self._names = sorted(experts[0])
        stacked = {
            name: np.stack([each[name] for each in experts]).astype(np.float64)
            for name in self._names
        }
        # Biases and matrices count alike, however large their numbers are.
        self._scales = {
            name: float(np.sqrt(np.mean(np.square(values)))) or 1.0
            for name, values in stacked.items()
        }
        basis = np.concatenate([stacked[n] / self._scales[n] for n in self._names], 1).T
        self._finite = bool(np.isfinite(basis).all())
        self._basis = basis if self._finite else np.zeros_like(basis)
        self._norms = np.linalg.norm(self._basis, axis=0)
        powers, self._vectors = np.linalg.eigh(self._basis.T @ self._basis)
        seen = powers > ALIKE * powers.max(initial=0.0)
        self._inverse = np.where(seen, 1 / np.where(seen, powers, 1.0), 0.0)
        self._alike = np.square(self._vectors[:, ~seen]).sum(axis=1) > 1e-9

    def likeness(self, sample: Sample) -> Likeness:
        """Tell what an expert is; its sample has the same names and lengths as the layer's."""
        mine = np.concatenate([sample[n].astype(np.float64) / self._scales[n] for n in self._names])
        if not np.isfinite(mine).all() or not self._finite:
            return Likeness(None, problem="holds numbers that are not finite")
        size = float(np.linalg.norm(mine))
        if size == 0.0:
            problem = "holds nothing but zeros, as far as was looked"
            return Likeness(None, problem=problem, is_unlike=True)
        numbers, experts = self._basis.shape
        if numbers < 2 * experts:
            return Likeness(None, problem="has too few numbers to be told from others")
        weights = self._vectors @ (self._inverse * (self._vectors.T @ (self._basis.T @ mine)))
        rest = mine - self._basis @ weights
        left = float(np.linalg.norm(rest)) / size
        variance = float(rest @ rest) / (numbers - experts)
        # Of sums in float64, where nothing is left.
        variance += (1e-12 * size) ** 2 / numbers
        errors = np.sqrt(variance * np.square(self._vectors) @ self._inverse)
        errors[self._alike] = np.inf
        if left >= LEFT:
            problem = f"is none of the full model's ({left * 100:.0f} % unexplained)"
            return Likeness(None, problem=problem, is_unlike=True)
        return self._named(mine, weights, ERRORS * errors, left)

    def change(self, sample: Sample, expert: int) -> float:
        """By how much an expert differs from one of the layer's; see `Likeness.change`."""
        mine = np.concatenate([sample[n].astype(np.float64) / self._scales[n] for n in self._names])
        return float(np.linalg.norm(mine - self._basis[:, expert]) / self._norms[expert])

    def _named(
        self, mine: np.ndarray, weights: np.ndarray, within: np.ndarray, left: float
    ) -> Likeness:
        best = int(np.argmax(np.where(np.isfinite(within), np.abs(weights), -1.0)))
        unsure = np.flatnonzero(within >= LEAST)
        distances = np.linalg.norm(self._basis - mine[:, None], axis=0)
        if len(unsure):
            nearest = unsure[np.argsort(distances[unsure], kind="stable")].tolist()
            # An expert that is sure, with nothing of the others, is not touched by their likeness.
            if best in nearest or weights[best] < LEAST or abs(weights[unsure].sum()) >= SHARE:
                named = " or ".join(map(str, sorted(nearest[:LISTED])))
                others = " or others" if len(nearest) > LISTED else ""
                problem = f"cannot be told apart: {named}{others} of the full model"
                return Likeness(None, problem=problem, near=tuple(sorted(nearest)))
        parts = np.flatnonzero((np.abs(weights) >= SHARE) & (np.abs(weights) >= within))
        if parts.tolist() == [best] and LEAST <= weights[best] <= MOST:
            change = float(distances[best] / self._norms[best])
            return Likeness(best, change)
        unexplained = f" ({left * 100:.0f} % unexplained)" if left >= 0.005 else ""
        if not len(parts):
            return Likeness(None, problem=f"is like no single one of the full model's{unexplained}")
        parts = parts[np.argsort(-np.abs(weights[parts]), kind="stable")]
        terms = " + ".join(f"{weights[each]:.2f} x {each}" for each in parts[:LISTED])
        more = f" + {len(parts) - LISTED} others" if len(parts) > LISTED else ""
        kind = "a merger: " if len(parts) > 1 else ""
        return Likeness(None, problem=f"is {kind}{terms}{more}{unexplained}")
