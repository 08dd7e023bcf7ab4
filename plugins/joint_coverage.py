"""Coverage and reconstruction in one: protected experts are locked while the error is minimised.

TB-Coverage (arXiv 2607.01710, algorithm 1) merges its protected set P into a finished candidate
mask, whose experts were chosen to reconstruct the output together, and then drops those of lowest
mean score. Here the set is searched that reconstructs best among all that hold P:

    minimise  sum over corpora of J_c(S) / a_c   with P within S, |S| = K

J_c is the squared error of the layer's output on corpus c and a_c the output's squared norm (see
`gram_statistics`), so that every corpus counts alike. The search is that of ExpertSparsity:
backward elimination, exchanges and restarts, or all sets where they are few. The protected set may
come from any selector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

import mbench

from .expert_sparsity import ReconstructionSample, SampleParams, layer_statistics, sample_of
from .gram_statistics import GramStatistics
from .reconstruction import best_subset, elimination_order, refine, refine_again


class JointParams(SampleParams):
    """The sample of every corpus, and how sets are searched."""

    enumerate_limit: int = Field(default=1000, ge=1)
    """All sets of a layer are tried where there are at most this many."""
    restarts: int = Field(default=5, ge=0)
    """As in `expert-sparsity`."""


def over_corpora(
    profiles: Sequence[mbench.Profile], layer: int, sample: ReconstructionSample
) -> GramStatistics:
    """One layer on the tokens of all corpora, whose J is the sum of J_c / a_c.

    Raises `UnsupportedModel` as `layer_statistics` does.
    """
    logits, grams = [], []
    for profile in profiles:
        statistics, _, _ = layer_statistics(profile, layer, sample)
        arrays = profile.samples(sample, layer)
        chosen_on = ~np.asarray(arrays["held_out"])
        logits.append(arrays["router_logits"][chosen_on])
        grams.append(arrays["gram"][chosen_on] / (statistics.energy.sum() or 1.0))
    return GramStatistics(
        np.concatenate(logits), np.concatenate(grams), profiles[0].top_k, statistics.gates
    )


class ReconstructProtected(mbench.MaskBuilder):
    """The K experts of least error over all corpora among all sets that hold the selection."""

    name = "reconstruct-protected"
    Params = JointParams
    params: JointParams

    @property
    def needs(self) -> tuple[ReconstructionSample]:
        """The sample."""
        return (sample_of(self.params),)

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return K experts per layer, noting what is lost on tokens not used for the choice.

        Raises `PluginError` where more than K are selected, `UnsupportedModel` as
        `layer_statistics` does.
        """
        profiles = [score.profile for score in scores.values()]
        most = int(selection.chosen.sum(axis=1).max())
        if most > budget.kept:
            raise mbench.PluginError(
                f"builder {self.name!r} cannot keep {most} protected experts in a layer of"
                f" {budget.kept}"
            )
        keep = np.empty_like(selection.chosen)
        lost = []
        for layer, protected in enumerate(selection.chosen):
            statistics = over_corpora(profiles, layer, self.needs[0])
            keep[layer] = self._search(statistics, protected, budget.kept, layer)
            for profile in profiles:
                choosing, held_out, _ = layer_statistics(profile, layer, self.needs[0])
                lost.append((held_out or choosing).relative_loss(keep[layer]))
        on = "held-out tokens" if held_out else "tokens that the experts were chosen on"
        note = f"relative reconstruction error {np.mean(lost):.4g} on {on}, mean of"
        return mbench.ExpertMask(keep, (*selection.notes, f"{note} layers and corpora"))

    def _search(
        self, statistics: GramStatistics, protected: np.ndarray, kept: int, layer: int
    ) -> np.ndarray:
        locked = int(protected.sum())
        sets = math.comb(len(protected) - locked, kept - locked)
        if sets <= self.params.enumerate_limit:
            return best_subset(statistics, kept, locked=protected)
        keep = np.zeros(len(protected), dtype=bool)
        keep[elimination_order(statistics, protected)[-kept:]] = True
        keep, _ = refine(statistics, keep, protected)
        rng = np.random.default_rng([self.params.seed, layer])
        return refine_again(statistics, keep, self.params.restarts, rng, protected)[0]


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The builder above."""
    return [ReconstructProtected]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """TB-Coverage's protected set with the reconstruction around it."""
    return [
        mbench.Method(
            "joint-coverage",
            scorer="reap",
            selector="round-robin",
            builder="reconstruct-protected",
            description="as tb-coverage, but the least error with B protected experts locked",
        )
    ]
