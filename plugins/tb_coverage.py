"""Generic TB-Coverage: task-balanced coverage of several generic corpora.

arXiv 2607.01710, algorithm 1: in round-robin order, each corpus protects the best expert of its
ranking; the protected set is then merged into the reconstruction candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

import mbench

from .protection import ProtectedSelector, protection_size


def round_robin(rankings: Sequence[np.ndarray], count: int) -> list[int]:
    """`count` experts in the order in which corpora take turns to protect their best one left.

    `rankings` has every corpus's experts [N] from best to worst.
    """
    protected: dict[int, None] = {}
    for turn in range(count):
        ranking = rankings[turn % len(rankings)]
        protected[next(int(e) for e in ranking if int(e) not in protected)] = None
    return list(protected)


class RoundRobin(ProtectedSelector):
    """In turn, each corpus protects its best unprotected expert, until B are protected."""

    name = "round-robin"

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return min(B, K) experts per layer; corpora alternate in the order of `scores`."""
        size, notes = protection_size(self.params, budget)
        rankings = [score.ranking() for score in scores.values()]
        chosen = np.zeros((budget.num_layers, budget.num_experts), dtype=bool)
        for layer, protected in enumerate(chosen):
            protected[round_robin([ranking[layer] for ranking in rankings], size)] = True
        return mbench.Selection(chosen, notes)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [RoundRobin]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """The method `tb-coverage`."""
    return [
        mbench.Method(
            "tb-coverage",
            scorer="reap",
            selector="round-robin",
            builder="protect",
            candidate="expert-sparsity",
            description="per-corpus REAP rankings protect B experts round-robin (arXiv 2607.01710)",
        )
    ]
