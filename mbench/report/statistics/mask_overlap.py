"""Overlaps of masks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import permutations, product

import numpy as np

from mbench.report.statistics.groups import BudgetEntries


def jaccard_by_layer(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Experts both keep over experts either keeps, float64 [layers]; masks are bool [layers, N]."""
    both = (first & second).sum(axis=1)
    either = (first | second).sum(axis=1)
    shares: np.ndarray = both / either
    return shares


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over layers of `jaccard_by_layer`."""
    return float(jaccard_by_layer(first, second).mean())


def mean_jaccard(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float | None:
    """Of two methods' masks, over all pairs of their seeds; None without any."""
    return _mean(jaccard(a, b) for a, b in product(first, second))


def mean_jaccard_of_seeds(masks: Sequence[np.ndarray]) -> float | None:
    """Of one method's masks, over all pairs of different seeds; None without any."""
    return _mean(jaccard(a, b) for a, b in permutations(masks, 2))


def _mean(shares: Iterable[float]) -> float | None:
    values = list(shares)
    return float(np.mean(values)) if values else None


def chance(experts: int, kept: int) -> float:
    """Expected Jaccard overlap of two independent random sets of `kept` of `experts` experts.

    The overlap's size is hypergeometric, and sizes o give Jaccard o / (2 * kept - o).
    """
    total = math.comb(experts, kept)
    return math.fsum(
        math.comb(kept, o) * math.comb(experts - kept, kept - o) / total * o / (2 * kept - o)
        for o in range(max(0, 2 * kept - experts), kept + 1)
    )


def union_size(masks: Sequence[np.ndarray]) -> float:
    """Experts per layer that at least one mask keeps, averaged over layers; bool [layers, N]."""
    return float(np.logical_or.reduce(masks).sum(axis=1).mean())


def shared_size(masks: Sequence[np.ndarray]) -> float:
    """Experts per layer that all masks keep, averaged over layers; bool [layers, N]."""
    return float(np.logical_and.reduce(masks).sum(axis=1).mean())


def equal_masks(budget: BudgetEntries) -> list[list[str]]:
    """Groups of methods whose masks are equal at a budget, under the same router mode."""
    by_mask: dict[tuple[str, str], list[str]] = {}
    for entry in budget.entries:
        for cell in entry.cells:
            if cell.mask:
                name = entry.method if cell.seed is None else f"{entry.method} (seed {cell.seed})"
                by_mask.setdefault((cell.mask, cell.router), []).append(name)
    return [names for names in by_mask.values() if len(names) > 1]
