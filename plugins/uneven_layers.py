"""What rules for uneven layers share: the counts a model allows, and the best experts by counts.

A layer's count is a multiple of the groups that its router is limited to (1 for most routers), and
every group of a layer keeps equally many: such a router chooses among groups first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import mbench


def fewest_per_group(budget: mbench.Budget) -> int:
    """The least that every group of every layer may keep."""
    return -(-budget.fewest // budget.groups)


def check_uneven(budget: mbench.Budget) -> None:
    """Raise `Infeasible` where no counts add up to the budget's total."""
    lowest = fewest_per_group(budget) * budget.groups
    if budget.total % budget.groups:
        raise mbench.Infeasible(
            f"{budget.total} experts in all cannot be kept in {budget.groups} equal groups"
        )
    if budget.kept < lowest:
        raise mbench.Infeasible(
            f"{budget.kept} experts per layer on average are fewer than the {lowest} that every"
            " layer needs"
        )


def in_groups(values: np.ndarray, groups: int) -> np.ndarray:
    """[layers, N] as [layers, groups, N / groups]."""
    return values.reshape(len(values), groups, -1)


def best_by_count(values: np.ndarray, counts: np.ndarray, groups: int) -> np.ndarray:
    """bool [layers, N], the `counts[l]` best of layer l, equally many of each group.

    Equal values are kept by lower index.
    """
    grouped = in_groups(values, groups)
    order = np.argsort(-grouped, axis=2, kind="stable")
    places = np.argsort(order, axis=2, kind="stable")
    chosen: np.ndarray = places < (counts // groups)[:, None, None]
    return chosen.reshape(values.shape)


class AsSelectedUneven(mbench.MaskBuilder):
    """The selection itself, with as many experts in each layer as it holds there."""

    name = "as-selected-uneven"
    layers = "any"

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where no counts add up to the budget's total."""
        check_uneven(budget)

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return the selection as a mask, noting the least and the most that a layer keeps."""
        least, most = np.sort(selection.chosen.sum(axis=1))[[0, -1]]
        kept = f"layers keep {least} to {most}" if least < most else f"every layer keeps {least}"
        note = f"{kept} of {budget.num_experts} experts"
        return mbench.ExpertMask(selection.chosen, (*selection.notes, note))


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The builder above."""
    return [AsSelectedUneven]
