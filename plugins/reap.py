"""REAP: router-weighted expert activation, and the scores made of the same sums.

REAP is equation 2 of arXiv 2607.01710 (Lasby et al. 2025, arXiv 2510.13999): the mean, over the
tokens routed to an expert, of its gate weight g times the norm ||f|| of its unweighted output.
Leaving out the gate, the mean, or both gives the others: frequency and sums of gates; EAN, the sum
of ||f||; and of arXiv 2606.15716, whose abstract alone was read, MAN, the mean of ||f||, and MSAN,
taken to be the mean of ||f||^2.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

import mbench

from .published_gates import PublishedRoutingSums


class Reap(mbench.Scorer):
    """Mean over routed tokens of g * ||f||, or one of its variants.

    An expert no token selected scores 0. Variants: `count` (frequency), `gate` (sum of g), `norm`
    (sum of ||f||), `sum` (sum of g * ||f||), `mean-norm` (mean of ||f||) and `mean-squared-norm`
    (mean of ||f||^2).
    """

    name = "reap"

    class Params(mbench.Parameters):
        """Which variant, and of which gates."""

        variant: Literal[
            "mean", "sum", "count", "gate", "norm", "mean-norm", "mean-squared-norm"
        ] = "mean"
        gates: Literal["model", "softmax", "renormalised"] = "model"
        """`model`: g is what the model itself combines outputs with, for the experts it chooses.
        The others are those of REAP's own program, for the top-k of the logits: a `softmax` over
        all experts, `renormalised` over the top-k. It renormalises where a configuration says
        `norm_topk_prob` (GLM, Qwen3), so not for Mixtral, and until 13 March 2026 only if asked."""

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """Sums over routed tokens."""
        if self.params.gates == "model":
            return (mbench.RoutingSums(),)
        return (PublishedRoutingSums(renormalised=self.params.gates == "renormalised"),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]."""
        sums = profile.sums(self.needs[0])
        routed = np.maximum(sums["count"], 1)
        scores: dict[str, np.ndarray] = {
            "mean": sums["gate_norm"] / routed,
            "sum": sums["gate_norm"],
            "count": sums["count"],
            "gate": sums["gate"],
            "norm": sums["norm"],
            "mean-norm": sums["norm"] / routed,
            "mean-squared-norm": sums["squared_norm"] / routed,
        }
        return scores[self.params.variant]


VARIANTS = {
    "expert-frequency": ("count", "the number of tokens routed to an expert"),
    "gate-sum": ("gate", "the sum of an expert's gate weights"),
    "ean": ("norm", "the sum of its output norms (EAN)"),
    "weighted-ean": ("sum", "the sum of gate weight times output norm"),
    "man": ("mean-norm", "its mean output norm over routed tokens (arXiv 2606.15716)"),
    "msan": ("mean-squared-norm", "its mean squared output norm (arXiv 2606.15716)"),
}
"""Methods that are a variant of the score: variant and description."""


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The scorer above."""
    return [Reap]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Top-K by the score, or by a variant, on one corpus."""
    reap = mbench.Method("reap", scorer="reap", corpora=1, description="top-K by the REAP score")
    return [
        reap,
        *(
            mbench.Method(
                name,
                scorer=mbench.Use("reap", {"variant": variant}),
                corpora=1,
                description=f"top-K by {what}",
            )
            for name, (variant, what) in VARIANTS.items()
        ),
    ]
