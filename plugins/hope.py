"""HOPE: the set of experts to drop whose members matter least together, pairs included.

Tseng et al. 2026, "Higher-Order Pruning of Experts" (arXiv 2609.18916), read in its program,
github.com/awslabs/HOPE (`calibrate.py`, `solve.py`). Per layer, F[i, j] is the mean of
g_i ||f_i|| g_j ||f_j|| over the tokens routed to both i and j, and 0 where there is none; the
diagonal is the mean of (g ||f||)^2. With m experts to drop, minimise b' F b over b in {0, 1}^N of
sum m. As in the program, b may first take any value from 0 to 1 (SLSQP from m / N each), and the m
largest are dropped; that is no proven optimum. F is divided by its largest entry first: the
solver's tolerance is absolute, so that the program stops early where outputs are small.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import mbench


def interactions(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """F, float64 [layers, N, N], of the sums of `mbench.CoActivation`."""
    f: np.ndarray = sums["product"] / np.maximum(sums["count"], 1)
    return f


def relaxed_choice(matrix: np.ndarray, number: int) -> np.ndarray:
    """float64 [N] from 0 to 1, of sum `number`, at which b' F b is least near the start."""
    from scipy.optimize import minimize

    size = len(matrix)
    scaled = matrix / (matrix.max() or 1.0)
    found = minimize(
        lambda b: b @ scaled @ b,
        np.full(size, number / size),
        jac=lambda b: 2 * scaled @ b,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * size,
        constraints={
            "type": "eq",
            "fun": lambda b: b.sum() - number,
            "jac": lambda b: np.ones(size),
        },
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    choice: np.ndarray = found.x
    return choice


class Hope(mbench.Selector):
    """Keeps what is left when the set that matters least together is dropped; needs no scorer."""

    name = "hope"
    needs = (mbench.CoActivation(),)

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return exactly K experts per layer; raises `PluginError` unless there is one corpus."""
        if len(scores) != 1:
            raise mbench.PluginError(f"selector 'hope' takes one corpus, got {len(scores)}")
        (profile,) = (score.profile for score in scores.values())
        dropped = budget.num_experts - budget.kept
        chosen = np.ones((budget.num_layers, budget.num_experts), dtype=bool)
        if dropped:
            for row, matrix in zip(chosen, interactions(profile.sums(self.needs[0])), strict=True):
                order = np.argsort(-relaxed_choice(matrix, dropped), kind="stable")
                row[order[:dropped]] = False
        return mbench.Selection(chosen)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [Hope]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """HOPE on one corpus."""
    return [
        mbench.Method(
            "hope",
            selector="hope",
            corpora=1,
            description="drops the set of least gate times norm, pairs included (HOPE)",
        )
    ]
