"""A guard for super experts: those with extreme outputs are never dropped.

Su et al. 2025, "Unveiling Super Experts" (arXiv 2507.23279): a few experts whose outputs have
extreme outliers give rise to massive activations, and a model without them collapses. The rule is
that of the program published with REAP (github.com/CerebrasResearch/reap, `model_util.py`): an
expert is one if its peak, the largest magnitude in its outputs, exceeds both the 99.5 % quantile of
the peaks of all layers and a tenth of the highest one, in the first three quarters of the layers.
The program's peak is the largest positive value; here it is the magnitude, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

import mbench

if TYPE_CHECKING:
    import torch


class OutputPeaks(mbench.Statistic):
    """The largest magnitude in each expert's unweighted outputs."""

    name = "output-peaks"
    combine: ClassVar[Literal["sum", "concatenate"]] = "concatenate"

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return `peak`, float32 [1, N] of this batch; 0 for experts no token was routed to."""
        import torch

        # As many numbers as tokens times k, of which one row is kept: peaks cannot be added up.
        largest = torch.linalg.vector_norm(batch.routed_outputs(), ord=torch.inf, dim=2).float()
        peak = largest.new_zeros(batch.num_experts)
        peak.scatter_reduce_(0, batch.top_k_index.reshape(-1), largest.reshape(-1), "amax")
        return {"peak": peak[None]}


def peaks_of(profile: mbench.Profile) -> np.ndarray:
    """float64 [layers, N], the largest magnitude of each expert's outputs on the whole corpus."""
    layers = range(len(profile.layers))
    peaks = [profile.samples(OutputPeaks(), layer)["peak"].max(axis=0) for layer in layers]
    return np.array(peaks, dtype=np.float64)


class SuperExperts(mbench.Selector):
    """The K best by any scorer, but super experts first, the best of them if they exceed K."""

    name = "super-experts"
    needs = (OutputPeaks(),)

    class Params(mbench.Parameters):
        """What counts as a super expert."""

        quantile: float = Field(default=0.995, ge=0, le=1)
        """Of the peaks of all experts in all layers, which a peak must exceed."""
        share: float = Field(default=0.1, ge=0, le=1)
        """Of the highest peak, which a peak must exceed."""
        layers: float = Field(default=0.75, ge=0, le=1)
        """Share of the layers, from the first, that have super experts."""

    def super_experts(self, peaks: np.ndarray) -> np.ndarray:
        """bool [layers, N], of peaks [layers, N]."""
        least = max(np.quantile(peaks, self.params.quantile), peaks.max() * self.params.share)
        found: np.ndarray = peaks > least
        found[int(len(peaks) * self.params.layers) :] = False
        return found

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return exactly K experts per layer; raises `PluginError` unless there is one corpus."""
        if len(scores) != 1:
            raise mbench.PluginError(f"selector {self.name!r} takes one corpus, got {len(scores)}")
        (score,) = scores.values()
        guarded = self.super_experts(peaks_of(score.profile))
        plain, chosen = np.zeros((2, *guarded.shape), dtype=bool)
        ranking = score.ranking()
        np.put_along_axis(plain, ranking[:, : budget.kept], True, axis=1)
        late = np.take_along_axis(~guarded, ranking, axis=1).argsort(axis=1, kind="stable")
        first = np.take_along_axis(ranking, late, axis=1)[:, : budget.kept]
        np.put_along_axis(chosen, first, True, axis=1)
        saved = int((chosen & ~plain).sum())
        notes = [f"super experts: {guarded.sum()}, of which {saved} were kept only for that"]
        if (guarded & ~chosen).any():
            lost = int((guarded & ~chosen).sum())
            notes.append(f"super experts dropped: {lost}, more than K in a layer")
        return mbench.Selection(chosen, tuple(notes))


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The selector above."""
    return [SuperExperts]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """REAP with the guard."""
    return [
        mbench.Method(
            "reap-guarded",
            scorer="reap",
            selector="super-experts",
            corpora=1,
            description="top-K by the REAP score, super experts first (arXiv 2507.23279)",
        )
    ]
