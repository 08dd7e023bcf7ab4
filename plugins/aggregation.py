"""Aggregation ablations: one score per expert, the mean or maximum over corpora.

arXiv 2607.01710 leaves these to future work (in its discussion of the protection budget). They are
whole methods here, and rules for the protected set of TB-Coverage instead of round-robin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

import mbench

from .protection import (
    ProtectedSelector,
    ProtectionParams,
    best_first,
    protection_size,
)

Normalize = Literal["none", "rank", "zscore", "max", "sum"]


def normalized(values: np.ndarray, how: Normalize) -> np.ndarray:
    """Rescale one corpus's scores [layers, N], layer by layer."""
    if how == "rank":
        ranks = np.empty_like(values)
        positions = np.arange(values.shape[1], 0, -1, dtype=np.float64)
        np.put_along_axis(ranks, best_first(values), positions[None, :], axis=1)
        return ranks
    scaled = values
    if how == "zscore":
        spread = values.std(axis=1, keepdims=True)
        scaled = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    if how in ("max", "sum"):
        unit = (values.max if how == "max" else values.sum)(axis=1, keepdims=True)
        scaled = values / np.where(unit > 0, unit, 1)
    return scaled


class AggregateParams(mbench.Parameters):
    """How the scores of several corpora are combined."""

    reduce: Literal["mean", "max"] = "mean"
    normalize: Normalize = "none"
    """Raw REAP magnitudes differ between corpora; `none` is what the paper's mean score does."""


def aggregate(scores: Mapping[str, mbench.Scores], params: AggregateParams) -> np.ndarray:
    """Mean or maximum over corpora, float64 [layers, N]."""
    stacked = np.stack([normalized(score.values, params.normalize) for score in scores.values()])
    reduced: np.ndarray = stacked.mean(axis=0) if params.reduce == "mean" else stacked.max(axis=0)
    return reduced


def top(values: np.ndarray, count: int) -> np.ndarray:
    """bool [layers, N], the `count` best of every layer."""
    chosen = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(chosen, best_first(values)[:, :count], True, axis=1)
    return chosen


class Aggregate(mbench.Selector):
    """The K best experts by the aggregate."""

    name = "aggregate"
    Params = AggregateParams
    params: AggregateParams

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return exactly K experts per layer."""
        return mbench.Selection(top(aggregate(scores, self.params), budget.kept))


class AggregateProtectedParams(AggregateParams, ProtectionParams):
    """The aggregate, and how many of its best experts are protected."""


class AggregateProtected(ProtectedSelector):
    """The B best experts by the aggregate, as a protected set."""

    name = "aggregate-protected"
    Params = AggregateProtectedParams
    params: AggregateProtectedParams

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return min(B, K) experts per layer."""
        size, notes = protection_size(self.params, budget)
        return mbench.Selection(top(aggregate(scores, self.params), size), notes)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selectors above."""
    return [Aggregate, AggregateProtected]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Each aggregate as a whole method and as a protected set."""
    methods = []
    for reduce in ("mean", "max"):
        whole = mbench.Use("aggregate", {"reduce": reduce})
        protected = mbench.Use("aggregate-protected", {"reduce": reduce})
        methods += [
            mbench.Method(
                reduce,
                scorer="reap",
                selector=whole,
                description=f"top-K by the {reduce} over corpora of the REAP scores",
            ),
            mbench.Method(
                f"{reduce}-protected",
                scorer="reap",
                selector=protected,
                builder="protect",
                candidate="expert-sparsity",
                description=f"as tb-coverage, protecting the top-B by the {reduce} over corpora",
            ),
        ]
    return methods
