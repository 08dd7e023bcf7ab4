"""Searches the expert set of least reconstruction loss J, given a layer's `GramStatistics`.

All single removals, or all swaps of two experts, are evaluated at once and exactly. Backward
elimination and its refinement by swaps are deterministic and end in a local optimum of J, which
restarts from disturbed sets leave for better ones; only the enumeration of all sets gives a proven
optimum.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .gram_statistics import GramStatistics, tokens_last

_SMALLEST_GAIN = 1e-12
"""A swap must lower J by this share of sum a: less may be rounding, and swaps could cycle."""


Terms = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Sum, linear and quadratic term of softmax numerators m: sum m, m . q and m' G m, each [C, T].

C counts the experts that may join the set, and is 1 where none does.

With gate weights m / c the squared error is a - 2 (m . q) / c + (m' G m) / c^2.
"""


class _Routes:
    """The k + 1 best experts of every token within a set (slots), and routing without one of them.

    Without an expert of the first k slots, the token is routed to the other slots; the last slot
    stands for all experts that the token is not routed to. If the set has fewer than k + 1 experts,
    expert 0 fills the slots with a numerator of 0, which adds nothing, and the last rank.

    Tokens are the last axis here: sums over a few slots then run along contiguous memory, which
    makes them more than ten times faster.
    """

    def __init__(self, layer: GramStatistics, keep: np.ndarray) -> None:
        ranked = layer.ranked(keep)
        width = layer.top_k + 1
        filled = min(width, ranked.shape[1])
        slots = np.pad(ranked[:, :width], ((0, 0), (0, width - filled)))
        self.layer, self.keep = layer, keep
        self.real = min(layer.top_k, filled)
        """Slots with an expert that the token is routed to."""
        self.slots = tokens_last(slots)
        self.mass = tokens_last(np.take_along_axis(layer.mass, slots, axis=1))
        self.mass[filled:] = 0
        self.rank = tokens_last(np.take_along_axis(layer.rank, slots, axis=1))
        self.rank[filled:] = layer.num_experts
        self.linear = tokens_last(np.take_along_axis(layer.linear, slots, axis=1))
        self.products = tokens_last(layer.inner(slots[:, :, None], slots[:, None, :]))

        outside = np.repeat(keep[None, :], len(slots), axis=0)
        np.put_along_axis(outside, ranked[:, : layer.top_k], False, axis=1)
        self.outside = tokens_last(outside)
        """[N, T] whether an expert is retained and the token is not routed to it."""
        if layer.gates == "retained":
            self.rest = self._rest(ranked[:, :1])

    def _rest(self, best: np.ndarray) -> np.ndarray:
        """[N, T] sum of the numerators of all other retained experts."""
        mass = self.layer.mass * self.keep
        rest = mass.sum(axis=1, keepdims=True) - mass
        # Subtracting a token's largest numerator would lose digits: there the others are summed.
        np.put_along_axis(mass, best, 0.0, axis=1)
        np.put_along_axis(rest, best, mass.sum(axis=1, keepdims=True), axis=1)
        return tokens_last(rest)

    def terms(self, members: list[int]) -> Terms:
        """Terms of the experts in some slots, each [1, T].

        Summed anew for every choice of slots: subtracting one slot from a total would lose digits
        where that slot has nearly all the gate weight.
        """
        mass = np.zeros_like(self.mass)
        mass[members] = self.mass[members]
        linear = np.einsum("st,st->t", mass, self.linear)
        quadratic = np.einsum("st,sut,ut->t", mass, self.products, mass)
        return mass.sum(axis=0)[None, :], linear[None, :], quadratic[None, :]

    def others(self, slot: int) -> list[int]:
        """The slots that tokens are routed to without the expert in `slot`, best first."""
        return [other for other in range(self.layer.top_k + 1) if other != slot]

    def sum_by_gone(
        self, terms: Callable[[int], Terms], joining_mass: np.ndarray | float
    ) -> np.ndarray:
        """Sum over tokens of ||Z - Z_S||^2, [N, C], by the expert that is removed.

        `terms(slot)` are the terms without the expert in `slot`; `joining_mass` [C, T] are the
        numerators of the experts that may join the set.
        """

        def change(routed: Terms, expert: np.ndarray | np.signedinteger | int) -> np.ndarray:
            """||Z - Z_S||^2 - a without `expert`, of every token, [C, T]."""
            total, linear, quadratic = routed
            if self.layer.gates == "renormalised":
                scale = 1 / total
            elif self.layer.gates == "retained":
                scale = 1 / (self.rest[expert, np.arange(len(self.layer.mass))] + joining_mass)
            else:
                scale = 1 / self.layer.whole_mass
            errors: np.ndarray = scale * (scale * quadratic - 2 * linear)
            return errors

        unrouted = terms(self.layer.top_k)
        sums = np.zeros((self.layer.num_experts, len(unrouted[1])))
        if self.layer.gates == "retained":
            # The routing stays the same, but each removed expert raises the gates differently.
            for expert in np.flatnonzero(self.outside.any(axis=1)):
                sums[expert] = change(unrouted, expert) @ self.outside[expert]
        else:
            sums += self.outside.astype(float) @ change(unrouted, 0).T
        for slot in range(self.real):
            experts = self.slots[slot]
            for column, values in zip(sums.T, change(terms(slot), experts), strict=True):
                column += np.bincount(experts, values, minlength=len(column))
        total: np.ndarray = self.layer.energy.sum() + sums
        return total


def removal_losses(layer: GramStatistics, keep: np.ndarray) -> np.ndarray:
    """J of the set without e, [N], for every e in a set of at least two; infinite for others."""
    routes = _Routes(layer, keep)
    losses = routes.sum_by_gone(lambda slot: routes.terms(routes.others(slot)), 0.0)
    return np.where(keep, losses[:, 0], np.inf)


def swap_losses(layer: GramStatistics, keep: np.ndarray) -> np.ndarray:
    """J of the set after one swap, [N leaving, N entering]; infinite if impossible."""
    routes = _Routes(layer, keep)
    entering = np.flatnonzero(~keep)
    mass, linear, rank, squared_norm = (
        tokens_last(values[:, entering])
        for values in (layer.mass, layer.linear, layer.rank, layer.squared_norm)
    )
    products = tokens_last(layer.inner(routes.slots.T[:, :, None], entering))

    def terms(slot: int) -> Terms:
        # An entering expert replaces the weakest of those that the token is routed to.
        *core, weakest = routes.others(slot)
        enters = rank < routes.rank[weakest]
        mixed = np.einsum("st,sjt->jt", routes.mass[core], products[core])
        with_it = (mass, mass * linear, mass * (2 * mixed + mass * squared_norm))
        without = routes.terms([*core, weakest])
        total, product, square = (
            np.where(enters, shared + joined, other)
            for shared, joined, other in zip(routes.terms(core), with_it, without, strict=True)
        )
        return total, product, square

    losses = np.full((layer.num_experts, layer.num_experts), np.inf)
    losses[np.ix_(keep, ~keep)] = routes.sum_by_gone(terms, mass)[keep]
    return losses


def elimination_order(layer: GramStatistics, locked: np.ndarray | None = None) -> np.ndarray:
    """[N] experts in the order in which backward elimination drops them, the last one survives.

    Each step drops the expert whose removal gives the least J; ties go to the higher index.
    Experts in `locked`, bool [N], are dropped after all others, by descending index.
    """
    keep = np.ones(layer.num_experts, dtype=bool)
    free = keep if locked is None else ~locked
    order = []
    for _ in range(min(layer.num_experts - 1, int(free.sum()))):
        losses = np.where(free, removal_losses(layer, keep), np.inf)
        order.append(int(np.flatnonzero(losses == losses.min())[-1]))
        keep[order[-1]] = False
    return np.array([*order, *np.flatnonzero(keep)[::-1]])


def refine(
    layer: GramStatistics, keep: np.ndarray, locked: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """Swap the best pair while that lowers J; returns the set and the number of swaps.

    Experts in `locked`, bool [N], are never swapped out.
    """
    keep = keep.copy()
    current = layer.loss(keep)
    swaps = 0
    while True:
        losses = swap_losses(layer, keep)
        if locked is not None:
            losses[locked] = np.inf
        leaving, entering = np.unravel_index(losses.argmin(), losses.shape)
        best = losses[leaving, entering]
        if not best < current - _SMALLEST_GAIN * layer.energy.sum():
            return keep, swaps
        keep[leaving], keep[entering] = False, True
        current = best
        swaps += 1


def refine_again(
    layer: GramStatistics,
    keep: np.ndarray,
    restarts: int,
    rng: np.random.Generator,
    locked: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    """Exchange half of a refined set at random and refine it anew, `restarts` times from the best.

    Returns the best set and the number of restarts that found a better one. Which experts are
    exchanged depends on what they contribute to the output, not on how they are numbered. Experts
    in `locked`, bool [N], are never swapped out.
    """
    best, loss = keep, layer.loss(keep)
    contribution = np.argsort(-layer.linear.sum(axis=0), kind="stable")
    better = 0
    for _ in range(restarts):
        removable = best if locked is None else best & ~locked
        leaving = contribution[removable[contribution]]
        entering = contribution[~best[contribution]]
        exchanged = -(-min(len(leaving), len(entering)) // 2)
        start = best.copy()
        start[rng.permutation(leaving)[:exchanged]] = False
        start[rng.permutation(entering)[:exchanged]] = True
        found, _ = refine(layer, start, locked)
        if layer.loss(found) < loss - _SMALLEST_GAIN * layer.energy.sum():
            best, loss, better = found, layer.loss(found), better + 1
    return best, better


def best_subset(
    layer: GramStatistics,
    size: int,
    objective: Callable[[np.ndarray], float] = np.sum,
    locked: np.ndarray | None = None,
) -> np.ndarray:
    """The set of `size` experts of least objective, by trying all; ties go to the first.

    `objective` turns the squared errors of all tokens, [T], into one number. Experts in `locked`,
    bool [N], are in every set.
    """
    if locked is None:
        locked = np.zeros(layer.num_experts, dtype=bool)
    return min(_subsets(locked, size), key=lambda keep: objective(layer.errors(keep)))


def _subsets(locked: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Every set of `size` experts with the locked ones, bool [N], in the order of its members."""
    for members in itertools.combinations(np.flatnonzero(~locked), size - int(locked.sum())):
        keep = locked.copy()
        keep[list(members)] = True
        yield keep
