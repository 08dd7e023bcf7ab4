"""Computes one MoE layer's output error for any expert set from inner products of expert outputs.

ExpertSparsity (Lu et al. 2024, "Not All Experts are Equal") keeps the set S of experts that
minimises J(S), the sum over tokens of ||Z - Z_S||^2: Z is the layer's routed output, Z_S the same
after routing within S. Z_S is a weighted sum of at most k expert outputs f_e, so the inner
products <f_e, f_e'> of every token decide J exactly, and no candidate has to be run:

    J(S) = sum over tokens of  a - 2 w_S . q + w_S' G w_S

with G the inner products, w_S the gate weights within S, q = <Z, f_e> and a = ||Z||^2. A factor
common to all gate weights, such as a routed scaling factor, would only scale J and is left out.

Shapes: T tokens, N experts, k experts per token. Expert sets are bool [N].
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Gates = Literal["renormalised", "retained", "full"]
"""What the softmax numerator of a routed expert is divided by to give its gate weight.

`renormalised`: the sum over the experts the token is routed to. `retained`: the sum over all
retained experts, as in a sliced router that does not renormalise. `full`: the sum over all N.
"""

_LOWEST_LOGIT = -250.0
"""Logits are taken relative to the token's largest, and at least this: the gate is then negligible,
but its numerator exp(-250) can still be squared and divided without underflow."""

_TOLERANCE = 0.01
"""How far gates may be from a softmax of the logits (relative root mean square), and the share of
tokens that may be routed differently. Gates rounded to bfloat16 are within 0.002."""


def packed_size(experts: int) -> int:
    """Entries in the upper triangle, diagonal included, of an N x N matrix."""
    return experts * (experts + 1) // 2


def tokens_last(values: np.ndarray) -> np.ndarray:
    """[T, ...] as contiguous [..., T]."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))


class GramStatistics:
    """One layer's router and inner products on T tokens: all that a search needs.

    Routing takes the largest logits, and equal ones by lower index. All sums are float64.
    """

    def __init__(self, logits: np.ndarray, gram: np.ndarray, top_k: int, gates: Gates) -> None:
        """Take router logits [T, N] and inner products [T, N (N + 1) / 2].

        The latter are each token's upper triangle of G in the order of `np.triu_indices`. The
        target Z is the layer's own output with all experts. Raises `ValueError` where the shapes
        do not fit each other.
        """
        tokens, experts = logits.shape
        if gram.shape != (tokens, packed_size(experts)):
            raise ValueError(f"inner products {gram.shape} do not fit router logits {logits.shape}")
        self.num_experts, self.top_k, self.gates = experts, min(top_k, experts), gates
        self._gram = np.ascontiguousarray(gram).reshape(-1)
        self._row = np.arange(tokens) * packed_size(experts)
        self._pair = np.zeros((experts, experts), dtype=np.intp)
        upper = np.triu_indices(experts)
        self._pair[upper] = self._pair[upper[::-1]] = np.arange(packed_size(experts))

        logits = np.asarray(logits, dtype=np.float64)
        self._order = np.argsort(-logits, axis=1, kind="stable")
        self.rank = np.empty_like(self._order)
        """[T, N] place of every expert among all, 0 for the token's best."""
        np.put_along_axis(self.rank, self._order, np.arange(experts)[None, :], axis=1)
        relative = logits - logits.max(axis=1, keepdims=True)
        self.mass = np.exp(np.maximum(relative, _LOWEST_LOGIT))
        """[T, N] softmax numerators, 1 for the token's best expert."""

        self.whole_mass = self.mass.sum(axis=1)
        """[T] sum of all softmax numerators."""

        everyone = np.arange(experts)[None, :]
        self.squared_norm = self.inner(everyone, everyone)
        """||f_e||^2, [T, N]."""
        routed, weights = self.route(np.ones(experts, dtype=bool))
        self.linear = np.zeros((tokens, experts))
        """q = <Z, f_e>, [T, N]."""
        for slot in range(self.top_k):
            self.linear += weights[:, slot, None] * self.inner(everyone, routed[:, slot, None])
        self.energy = (weights * np.take_along_axis(self.linear, routed, axis=1)).sum(axis=1)
        """a = ||Z||^2, [T]."""

    def inner(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """<f_first, f_second> for arrays of expert numbers that broadcast to [T or 1, ...]."""
        pair = self._pair[first, second]
        row = self._row.reshape(-1, *[1] * (pair.ndim - 1))
        products: np.ndarray = self._gram.take(row + pair).astype(np.float64)
        return products

    def ranked(self, keep: np.ndarray) -> np.ndarray:
        """[T, |S|] experts of a set, every token's best first."""
        kept: np.ndarray = self._order[keep[self._order]]
        return kept.reshape(len(self._order), -1)

    def route(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Experts [T, min(k, |S|)] that tokens are routed to within a set, and gate weights."""
        routed = self.ranked(keep)[:, : self.top_k]
        mass = np.take_along_axis(self.mass, routed, axis=1)
        if self.gates == "renormalised":
            whole = mass.sum(axis=1)
        else:
            whole = self.mass @ keep if self.gates == "retained" else self.whole_mass
        return routed, mass / whole[:, None]

    def errors(self, keep: np.ndarray) -> np.ndarray:
        """||Z - Z_S||^2 of every token, [T], for a set of at least one expert."""
        routed, weights = self.route(keep)
        linear = np.take_along_axis(self.linear, routed, axis=1)
        products = self.inner(routed[:, :, None], routed[:, None, :])
        quadratic = (products @ weights[:, :, None])[:, :, 0]
        errors: np.ndarray = self.energy + (weights * (quadratic - 2 * linear)).sum(axis=1)
        return errors

    def loss(self, keep: np.ndarray) -> float:
        """J(S) for a set of at least one expert."""
        return float(self.errors(keep).sum())

    def relative_loss(self, keep: np.ndarray) -> float:
        """J(S) / sum a: the share of the output's squared norm that is lost."""
        energy = float(self.energy.sum())
        return self.loss(keep) / energy if energy else 0.0


def renormalises(logits: np.ndarray, top_k_index: np.ndarray, top_k_weight: np.ndarray) -> bool:
    """Tell whether gates [t, k] are a softmax of logits [t, N] over the chosen experts only.

    A constant factor, the routed scaling factor, is allowed. Raises `ValueError` if the gates are
    neither that nor a softmax over all N, or if the chosen experts do not have the largest logits.
    """
    logits = np.asarray(logits, dtype=np.float64)
    numerators = np.exp(logits - logits.max(axis=1, keepdims=True))
    chosen = np.take_along_axis(numerators, top_k_index, axis=1)
    others = numerators.copy()
    np.put_along_axis(others, top_k_index, 0.0, axis=1)
    # A few tokens may differ: near ties that rounding decides.
    if (others.max(axis=1) > chosen.min(axis=1)).mean() > _TOLERANCE:
        raise ValueError("it does not choose the experts with the largest logits")

    def misfit(whole: np.ndarray) -> float:
        gates = chosen / whole.sum(axis=1, keepdims=True)
        factor = (gates * top_k_weight).sum() / (gates**2).sum()
        return float(np.linalg.norm(top_k_weight - factor * gates) / np.linalg.norm(top_k_weight))

    over_all, over_chosen = misfit(numerators), misfit(chosen)
    if min(over_all, over_chosen) > _TOLERANCE:
        raise ValueError("its gates are not a softmax of its logits")
    return over_chosen < over_all
