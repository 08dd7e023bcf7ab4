"""REAP in rounds: drop some experts, look again at what the others do now, drop some more.

    kept after round r of R = N - round((N - K) * r / R), the best by REAP under the last mask

Where experts are gone, others get their tokens, at other gates: in one shot, scores of the full
model decide about a model that it no longer is. Iterative pruning with fresh statistics goes back
to Han et al. (arXiv 1506.02626) for weights, without retraining here; REAP itself is one-shot
(arXiv 2510.13999), so that no published program fixes the rounds: a linear schedule is assumed,
as many experts in each round in every layer. The first round uses the method's whole calibration
corpora; later ones cost a pass each over the first `sequences` of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

import mbench

from .reap import Reap
from .uneven_layers import best_by_count


class RoundsParams(mbench.SearchParameters):
    """How gradually it goes."""

    rounds: int = Field(default=4, ge=1)
    """1 is REAP itself, by its mean over corpora."""


class IterativeReap(mbench.MaskSearch):
    """The K experts per layer that are left after rounds of pruning by REAP's mean over corpora."""

    name = "iterative-reap"
    Params = RoundsParams
    params: RoundsParams

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """What REAP needs."""
        return Reap().needs

    def search(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
        probe: mbench.Probe,
        rng: np.random.Generator,
    ) -> mbench.ExpertMask:
        """Return the mask of the last round.

        Raises `SearchLimit` before any pass if the tokens are not enough for all rounds.
        """
        steps = kept_by_round(budget, self.params.rounds)
        if len(steps) - 1 > probe.masks_left:
            raise mbench.SearchLimit(
                f"{len(steps)} rounds need {len(steps) - 1} passes of {probe.tokens_per_mask}"
                f" tokens, but `tokens` leaves {probe.limit}"
            )
        profiles = [score.profile for score in scores.values()]
        keep = np.ones((budget.num_layers, budget.num_experts), dtype=bool)
        for kept in steps:
            if not keep.all():
                mask = mbench.ExpertMask(keep)
                profiles = [probe.profile(mask, corpus) for corpus in probe.corpora]
            values = np.mean([Reap().score(profile) for profile in profiles], axis=0)
            # Dropped experts stay dropped, whatever is left.
            values = np.where(keep, values, -np.inf)
            keep = best_by_count(values, np.full(budget.num_layers, kept), budget.groups)
        return mbench.ExpertMask(keep)


def kept_by_round(budget: mbench.Budget, rounds: int) -> list[int]:
    """Experts that every layer keeps after each round, without rounds that would drop none.

    Always a multiple of the groups that the router is limited to.
    """
    most, least = budget.num_experts // budget.groups, budget.kept // budget.groups
    steps = [most - round((most - least) * done / rounds) for done in range(1, rounds + 1)]
    return [kept * budget.groups for kept in dict.fromkeys(steps) if kept < most or least == most]


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The search above."""
    return [IterativeReap]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """In four rounds."""
    return [
        mbench.Method(
            "iterative-reap",
            selector="all",
            builder="iterative-reap",
            description="REAP in rounds, each on the model that the last one left",
        )
    ]
