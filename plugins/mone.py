"""MoNE: rarely used experts with stable outputs are replaced by their mean output, a novice.

Zhang et al. 2025, "MoNE: Replacing Redundant Experts with Lightweight Novices for Structured
Pruning of MoE" (arXiv 2507.00390); formulas as in its program (github.com/zxgx/mode-pd, the ranking
`fusion` within layers, as in its published scripts). Over the n tokens routed to an expert with
unweighted outputs f,

    score = sqrt(sum over H of var(f)) * (sum of gates) / (tokens of the corpus),
    novice = mean(f),

with the unbiased variance. The router stays whole: a token routed to a novice gets its gate times
the novice. Two things differ: the program's running variance measures each batch from the mean so
far and leaves the first batch out, here it is exact; its option to let novices learn on is left
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

import mbench

from .merging import VALUES_AT_ONCE, pooled

if TYPE_CHECKING:
    import torch


class RoutedOutputs(mbench.Statistic):
    """Sums over the tokens routed to each expert.

    `count` [N]: such tokens. `gate` [N]: the weight of the output. `output` [N, H]: the unweighted
    output. `square` [N]: its squared norm. Routed experts are computed twice for it.
    """

    name = "routed-outputs"

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's four sums."""
        import torch

        index = batch.top_k_index.reshape(-1)
        outputs = batch.routed_outputs().reshape(len(index), -1)
        square = batch.output_norm.reshape(-1).double() ** 2
        gate = batch.top_k_weight.reshape(-1).double()
        values = {"count": torch.ones_like(gate), "gate": gate, "square": square}
        sums = {
            name: value.new_zeros(batch.num_experts).index_add_(0, index, value)
            for name, value in values.items()
        }
        # A float64 copy of all outputs would be large.
        width = outputs.shape[1]
        total = square.new_zeros(batch.num_experts, width)
        for part in torch.arange(len(index), device=index.device).split(VALUES_AT_ONCE // width):
            total.index_add_(0, index[part], outputs[part].double())
        return {**sums, "output": total}


def mean_outputs(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """float64 [layers, N, H], 0 for experts that no token is routed to."""
    means: np.ndarray = sums["output"] / np.maximum(sums["count"], 1)[..., None]
    return means


class Mone(mbench.Scorer):
    """Standard deviation of the output, as a norm over H, times the mean gate over all tokens."""

    name = "mone"

    @property
    def needs(self) -> tuple[RoutedOutputs]:
        """Sums over routed tokens."""
        return (RoutedOutputs(),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]; 0 for experts with fewer than two tokens."""
        sums = profile.sums(RoutedOutputs())
        squared_mean = (mean_outputs(sums) ** 2).sum(axis=-1)
        spread = np.maximum(sums["square"] - sums["count"] * squared_mean, 0)
        deviation = np.sqrt(spread / np.maximum(sums["count"] - 1, 1))
        score: np.ndarray = deviation * sums["gate"] / profile.tokens
        return score


class Novices(mbench.MaskBuilder):
    """The selection, with the mean output of every dropped expert in its place.

    The mean is over the tokens routed to it, of all corpora; 0 where there are none.
    """

    name = "novices"

    @property
    def needs(self) -> tuple[RoutedOutputs]:
        """Sums over routed tokens."""
        return (RoutedOutputs(),)

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return the selection and its novices."""
        outputs = mean_outputs(pooled(scores, self.needs[0])).astype(np.float32)
        outputs[selection.chosen] = 0
        return mbench.ExpertMask(
            selection.chosen, selection.notes, stand_in=mbench.Constants(outputs)
        )


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The scorer and the builder above."""
    return [Mone, Novices]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """The method `mone`."""
    return [
        mbench.Method(
            "mone",
            scorer="mone",
            builder="novices",
            corpora=1,
            description="dropped experts give their mean output (MoNE, arXiv 2507.00390)",
        )
    ]
