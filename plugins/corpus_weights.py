"""Corpora are combined with weights that leave no corpus behind, learned from their scores.

With s_c(l, e) an expert's share of its layer's score on corpus c, the weights w are those of

    minimise over w >= 0, sum w = 1
        the mean over layers of the sum of the K greatest sum_c w_c s_c(l, e)

whose optimum equals, by duality, the most that masks can cover of their worst corpus:

    maximise over 0 <= x <= 1, sum_e x(l, e) = K
        the least over c of the mean over layers of sum_e s_c(l, e) x(l, e)

where a mask is an x of zeros and ones. Both are solved exactly by one linear program (scipy, HiGHS
simplex; deterministic); a second one takes, of all best x, the one that covers most of all corpora.
The experts of greatest x are kept, equal ones by their weighted share; x is fractional in no more
layers than there are corpora, and only there can rounding lose anything.
With the scorer `reap` and `variant: sum` the score is gate * ||output||, and what a corpus loses is
the share of it that is not kept. Nothing but calibration statistics is looked at.

arXiv 2607.01710 names learned corpus weights as future work; the objective is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import mbench

from .aggregation import normalized


def least_covered(shares: np.ndarray, keep: np.ndarray) -> float:
    """The mean share over layers that `keep` [layers, N] covers on its worst corpus.

    `shares` is [corpora, layers, N].
    """
    covered: np.ndarray = (shares * keep).sum(axis=2).mean(axis=1)
    return float(covered.min())


def fairest(shares: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Solve the linear programs above for shares [corpora, layers, N].

    Returns the weights [corpora], x [layers, N], and the optimum.
    """
    from scipy.sparse import csr_array, hstack, kron

    corpora, layers, experts = shares.shape
    # Variables: x in rows of layers, then t, the least covered share. For every corpus
    # t - covered_c(x) <= 0, and K experts in every layer.
    covered = csr_array(shares.reshape(corpora, -1) / layers)
    counts = kron(csr_array(np.eye(layers)), csr_array(np.ones((1, experts))))
    limits = {
        "A_ub": hstack([-covered, csr_array(np.ones((corpora, 1)))]),
        "b_ub": np.zeros(corpora),
        "A_eq": hstack([counts, csr_array((layers, 1))]),
        "b_eq": np.full(layers, float(kept)),
    }
    most = _maximised(np.append(np.zeros(layers * experts), 1.0), limits, 0.0)
    weights = np.maximum(-most.ineqlin.marginals, 0)
    least = float(most.x[-1])
    # A little less: the second program must not fail by rounding.
    also = _maximised(np.append(shares.sum(axis=0).ravel(), 0.0), limits, least * (1 - 1e-9))
    return weights / weights.sum(), also.x[:-1].reshape(layers, experts), least


def _maximised(worth: np.ndarray, limits: Mapping[str, Any], least: float) -> Any:
    """The solution in x and t >= `least` of greatest worth, with scipy's fields."""
    from scipy.optimize import linprog

    bounds = [(0.0, 1.0)] * (len(worth) - 1) + [(least, None)]
    solved = linprog(-worth, **limits, bounds=bounds, method="highs-ds")
    if not solved.success:
        raise mbench.PluginError(f"the weights of corpora could not be found: {solved.message}")
    return solved


class LearnedWeights(mbench.Selector):
    """The K best experts by scores weighted so that the worst corpus is covered best."""

    name = "learned-weights"

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return K experts per layer, noting the weights and what the worst corpus keeps.

        Raises `PluginError` where scores are negative.
        """
        values = np.stack([score.values for score in scores.values()])
        if values.min() < 0:
            raise mbench.PluginError(f"selector {self.name!r} needs scores that are not negative")
        shares = np.stack([normalized(each, "sum") for each in values])
        weights, fraction, optimum = fairest(shares, budget.kept)
        weighted = np.tensordot(weights, shares, axes=1)
        order = np.lexsort((-weighted, -fraction.round(9)), axis=1)
        chosen = np.zeros(weighted.shape, dtype=bool)
        np.put_along_axis(chosen, order[:, : budget.kept], True, axis=1)
        given = ", ".join(f"{name} {w:.3f}" for name, w in zip(scores, weights, strict=True))
        reached = least_covered(shares, chosen)
        note = f"the worst corpus keeps {reached:.2%} of its score, at best {optimum:.2%}"
        return mbench.Selection(chosen, (f"weights of corpora: {given}", note))


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [LearnedWeights]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Learned weights on gate * norm."""
    return [
        mbench.Method(
            "learned-weights",
            scorer=mbench.Use("reap", {"variant": "sum"}),
            selector="learned-weights",
            description="corpora weighted so that the worst one keeps most of its gate * norm",
        )
    ]
