"""TB-Coverage with a protection budget B that follows from the statistics, layer by layer.

The paper (arXiv 2607.01710) fixes B by hand (20 of 60 experts, 24 of 64) and leaves its choice
open. Here B of a layer is the least number for which round-robin covers every corpus:

    B = least b with  sum of m_c(e) over the first b protected  >=  share * sum of m_c(e) over all

for every corpus c, where m_c(e) is the sum of gate * ||output|| over the corpus's tokens, what REAP
averages. A layer whose corpora agree on a few experts protects few, one whose corpora spread over
many protects many. B is at most K.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

import mbench

from .tb_coverage import round_robin


class CoverageParams(mbench.Parameters):
    """How much of every corpus the protected experts must cover."""

    share: float = Field(default=0.5, ge=0, le=1)
    """Of each corpus's sum of gate * ||output|| in a layer."""


class AdaptiveRoundRobin(mbench.Selector):
    """Round-robin until the protected experts cover a share of every corpus, or K are protected."""

    name = "adaptive-round-robin"
    Params = CoverageParams
    params: CoverageParams

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """Sums over routed tokens."""
        return (mbench.RoutingSums(),)

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return at most K experts per layer; corpora alternate in the order of `scores`."""
        rankings = [score.ranking() for score in scores.values()]
        masses = [
            score.profile.sums(mbench.RoutingSums())["gate_norm"] for score in scores.values()
        ]
        chosen = np.zeros((budget.num_layers, budget.num_experts), dtype=bool)
        sizes = []
        for layer, protected in enumerate(chosen):
            order = round_robin([ranking[layer] for ranking in rankings], budget.num_experts)
            mass = np.stack([values[layer, order] for values in masses])
            # Rounding must not ask for one more expert than the share of an exact sum does.
            wanted = self.params.share * mass.sum(axis=1) * (1 - 1e-12)
            covered = np.concatenate([np.zeros((len(mass), 1)), mass.cumsum(axis=1)], axis=1)
            enough = (covered >= wanted[:, None]).all(axis=0)
            sizes.append(int(enough.argmax()))
            protected[order[: min(sizes[-1], budget.kept)]] = True
        clamped = sum(size > budget.kept for size in sizes)
        notes = [f"protection budget {min(sizes)} to {max(sizes)}, mean {np.mean(sizes):.3g}"]
        if clamped:
            notes.append(f"it is clamped to the {budget.kept} experts kept in {clamped} layers")
        return mbench.Selection(chosen, tuple(notes))


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [AdaptiveRoundRobin]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """TB-Coverage with this protected set."""
    return [
        mbench.Method(
            "adaptive-tb-coverage",
            scorer="reap",
            selector="adaptive-round-robin",
            builder="protect",
            candidate="expert-sparsity",
            description="as tb-coverage, protecting as many as cover half of every corpus",
        )
    ]
