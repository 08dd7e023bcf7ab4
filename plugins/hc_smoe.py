"""HC-SMoE: experts with similar mean outputs are clustered bottom-up and merged.

Chen et al. 2025, "Retraining-Free Merging of Sparse MoE via Hierarchical Clustering" (ICML 2025,
arXiv 2410.08589); formulas as in its program (github.com/wazenmai/HC-SMoE) with its published
settings (`expert-output`, `average`, `freq`). An expert is represented by its mean unweighted
output over all calibration tokens, whoever they are routed to. The two clusters with the least mean
Euclidean distance between their members become one until K are left in every layer. A cluster
becomes the average of its members' weights, weighted by usage (tokens routed to them), as they are:
neurons are not aligned. The router stays whole: a token routed to any member goes to the merged
expert. The mean is over a sample of tokens; the program takes all of its 32 sequences of C4.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import mbench

from .merging import MeanOutputs, TokenSample, groups, pooled, shares


def clusters(points: np.ndarray, count: int) -> np.ndarray:
    """int [N], the cluster of every point [N, H], named by its lowest member.

    Average linkage of Euclidean distances, stopped at `count` clusters.
    """
    from scipy.cluster.hierarchy import linkage

    members = [{point} for point in range(len(points))]
    label = np.arange(len(points))
    if count < len(points):
        # Its rows are the joins in their order, and a joined cluster is numbered after all others.
        for first, second, *_ in linkage(points, "average")[: len(points) - count]:
            members.append(members[int(first)] | members[int(second)])
            label[list(members[-1])] = min(members[-1])
    return label


def closest_to_centre(points: np.ndarray, label: np.ndarray) -> np.ndarray:
    """int64 [N], for every point the one of its cluster that is closest to the cluster's mean.

    Two points are equally close to their mean: the lower index counts, not the rounding.
    """
    centre = np.empty(len(points), dtype=np.int64)
    for _, members in groups(label):
        distance = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        centre[members] = members[(distance <= distance.min() * (1 + 1e-9)).argmax()]
    return centre


class HcSmoe(mbench.MaskBuilder):
    """K clusters of mean outputs in every layer, whatever was selected."""

    name = "hc-smoe"
    Params = TokenSample
    params: TokenSample

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """Usage, and mean outputs."""
        return (mbench.RoutingSums(), MeanOutputs(**self.params.model_dump()))

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return the experts closest to their clusters' means, and what is merged into them."""
        usage = pooled(scores, self.needs[0])["count"]
        outputs = pooled(scores, self.needs[1])
        means = outputs["output"] / outputs["tokens"][..., None]
        into = np.stack([closest_to_centre(m, clusters(m, budget.kept)) for m in means])
        keep = into == np.arange(budget.num_experts)
        merged = mbench.Merged(into, shares(usage, into))
        return mbench.ExpertMask(keep, stand_in=merged)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The builder above."""
    return [HcSmoe]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """The method `hc-smoe`; the scores play no part in it."""
    return [
        mbench.Method(
            "hc-smoe",
            scorer=mbench.Use("reap", {"variant": "count"}),
            builder="hc-smoe",
            corpora=1,
            description="clusters of mean outputs are merged (HC-SMoE, arXiv 2410.08589)",
        )
    ]
