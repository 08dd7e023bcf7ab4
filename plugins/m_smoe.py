"""M-SMoE: rarely used experts are merged into the dominant one that is routed to most like them.

Li et al. 2024, "Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing Policy"
(ICLR 2024, arXiv 2310.01334), the merging part of MC-SMoE; formulas as in its program
(github.com/UNITES-Lab/MC-SMoE). The dominant experts are the most used ones of the whole model, so
that layers keep different numbers. Every other expert joins the dominant expert of its layer with
the greatest

    (cosine of both experts' router logits over all tokens + 1) / 2,

and a group becomes the average of its members' weights, weighted by usage (tokens routed to them).
The router stays whole: a token routed to any member goes to the merged expert. Before averaging,
inner neurons are matched by weights (see `mbench.moe.align.matched`), to the dominant expert of the
group here, to expert 0 of the layer in the program. Its script for Mixtral does not match neurons;
for as large experts as those (14,336 neurons) it would take hours, so set `align: false`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import mbench

from .merging import RouterProducts, cosine, pooled, shares


class MSmoeParams(mbench.Parameters):
    """How groups are merged."""

    align: bool = True
    """Whether inner neurons are matched before weights are averaged."""


class MSmoe(mbench.MaskBuilder):
    """The selected experts, with all others merged into the most similar of them."""

    name = "m-smoe"
    layers = "any"
    Params = MSmoeParams
    params: MSmoeParams

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """Usage, and products of router logits."""
        return (mbench.RoutingSums(), RouterProducts())

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return the selection and what is merged into it; statistics are summed over corpora."""
        usage = pooled(scores, mbench.RoutingSums())["count"]
        products = pooled(scores, RouterProducts())["products"]
        into = np.tile(np.arange(budget.num_experts), (budget.num_layers, 1))
        for layer, dominant in enumerate(selection.chosen):
            kept = np.flatnonzero(dominant)
            # Of equally similar ones, the most used.
            kept = kept[np.argsort(-usage[layer, kept], kind="stable")]
            nearest = kept[cosine(products[layer])[:, kept].argmax(axis=1)]
            into[layer, ~dominant] = nearest[~dominant]
        merged = mbench.Merged(
            into, shares(usage, into), neurons="matched" if self.params.align else None
        )
        return mbench.ExpertMask(selection.chosen, selection.notes, stand_in=merged)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The builder above."""
    return [MSmoe]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """With the most used experts of the model as dominant ones, and of every layer."""
    usage = mbench.Use("reap", {"variant": "count"})
    return [
        mbench.Method(
            "m-smoe",
            scorer=usage,
            selector="global-ranking",
            builder="m-smoe",
            corpora=1,
            description="merged into the model's most used experts by router logits (M-SMoE)",
        ),
        mbench.Method(
            "m-smoe-uniform",
            scorer=usage,
            builder="m-smoe",
            corpora=1,
            description="M-SMoE with K dominant experts in every layer",
        ),
    ]
