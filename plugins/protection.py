"""Protected sets: B experts per layer that a mask must keep, merged into a candidate mask.

Steps 4 and 5 of Generic TB-Coverage (arXiv 2607.01710, algorithm 1), shared by every rule that
chooses the protected set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

import mbench


class ProtectionParams(mbench.Parameters):
    """How many experts per layer are protected."""

    protected: int | None = Field(default=None, ge=0)
    """B. None takes a third of the experts, the paper's ratio for Qwen1.5-MoE (20 of 60)."""
    overflow: Literal["clamp", "error"] = "clamp"
    """If B exceeds K: protect only K experts, or refuse. The paper requires B <= K but uses B = 20
    with K = 15."""


def requested(params: ProtectionParams, budget: mbench.Budget) -> int:
    """B before clamping."""
    return budget.num_experts // 3 if params.protected is None else params.protected


def protection_size(params: ProtectionParams, budget: mbench.Budget) -> tuple[int, tuple[str, ...]]:
    """B after clamping, with a note if the protected set fills the budget."""
    size = requested(params, budget)
    if size < budget.kept:
        return size, ()
    no_influence = "so the candidate mask has no influence"
    if size == budget.kept:
        return size, (f"all {size} experts kept per layer are protected, {no_influence}",)
    clamped = f"protection budget clamped from {size} to the {budget.kept} experts kept per layer"
    return budget.kept, (f"{clamped}, {no_influence}",)


class ProtectedSelector(mbench.Selector):
    """Base of the rules for choosing the protected set, which differ in `select`."""

    Params = ProtectionParams
    params: ProtectionParams

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where B > N, or B > K under `overflow: error`."""
        size = requested(self.params, budget)
        if size > budget.num_experts:
            raise mbench.Infeasible(
                f"protected: {size} exceeds the {budget.num_experts} experts per layer"
            )
        if self.params.overflow == "error" and size > budget.kept:
            raise mbench.Infeasible(
                f"protected: {size} exceeds the {budget.kept} experts kept per layer at retain"
                f" {budget.retain:g} (`overflow: clamp` would protect {budget.kept})"
            )

    def notes(self, budget: mbench.Budget) -> tuple[str, ...]:
        """Note if B fills the budget."""
        return protection_size(self.params, budget)[1]


def mean_scores(scores: Mapping[str, mbench.Scores]) -> np.ndarray:
    """Unweighted mean over corpora, float64 [layers, N]."""
    mean: np.ndarray = np.mean([score.values for score in scores.values()], axis=0)
    return mean


def best_first(values: np.ndarray) -> np.ndarray:
    """[layers, N] experts by descending value, ties by lower index."""
    return np.argsort(-values, axis=1, kind="stable")


class Protect(mbench.MaskBuilder):
    """Candidate plus protected set, minus the unprotected experts of lowest mean score."""

    name = "protect"
    takes_candidate = True

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return the mask with exactly K experts per layer.

        Raises `PluginError` for a candidate that keeps other numbers or has stand-ins.
        """
        assert candidate is not None  # always given to a builder that `takes_candidate`
        if candidate.stand_in is not None:
            # What stands in was made for the experts that the candidate drops.
            raise mbench.PluginError(
                f"builder {self.name!r} cannot start from a candidate that replaces or merges"
                " experts: name one that only drops them"
            )
        counts = candidate.keep.sum(axis=1)
        if (counts != budget.kept).any():
            raise mbench.PluginError(
                f"builder {self.name!r} cannot start from a candidate with {counts.min()} to"
                f" {counts.max()} experts per layer: name one that keeps {budget.kept} in each"
            )
        keep = candidate.keep | selection.chosen
        for layer, worst_first in enumerate(best_first(mean_scores(scores))[:, ::-1]):
            removable = [
                e for e in worst_first if keep[layer, e] and not selection.chosen[layer, e]
            ]
            keep[layer, removable[: keep[layer].sum() - budget.kept]] = False
        return mbench.ExpertMask(keep, selection.notes)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The builder above."""
    return [Protect]
