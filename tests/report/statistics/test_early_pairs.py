"""Comparisons of which one side is early: their error, and the part of it that a look may make."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from helpers.demo_results import synthetic
from mbench.core.cell_results import TaskStatus
from mbench.core.early import EarlyFigure
from mbench.report.statistics.difference_moments import moments_of
from mbench.report.statistics.early_pairs import EarlyPairs
from mbench.report.statistics.families import adjusted_family
from mbench.report.statistics.groups import arrange
from mbench.report.statistics.pairwise import Pairwise
from mbench.report.statistics.scores import Score

TASK = "cloze-bible"
SCORE = Score("cloze", ((TASK, "acc_norm"),), higher=True)
ENDS = (0, 20, 60, 120, 200)
"""Items of 200 after each look, from none."""


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("told", [0.0, 0.9])
def test_documents_whose_windows_are_alike_have_the_error_that_draws_of_them_show(share, told):
    rng = np.random.default_rng(0)
    document = np.repeat(np.arange(60), 10)
    means, variances, apart = [], [], []
    for _ in range(1500):
        common = rng.normal(0, 0.6, 60)[document]
        outcomes = common + rng.normal(0, 0.8, 600)
        drawn = rng.permutation(600)[: round(share * 600)]
        residuals = (outcomes - told * common)[drawn]
        mean = told * common.mean() + residuals.mean()
        known = mean, outcomes[drawn], residuals, 600, None
        means.append(mean)
        variances.append(moments_of(*known, document[drawn]).variance)
        apart.append(moments_of(*known, None).variance)
    true = np.var(means)
    assert np.mean(variances) == pytest.approx(true, rel=0.12)
    assert np.mean(apart) < 0.8 * true


def looked(items, looks, known):
    """The items of the first `known` of so many looks, in the order of the looks."""
    ends = (0, *ENDS[len(ENDS) - looks :])
    look = np.repeat(np.arange(looks), np.diff(ends)).astype("int8")
    table = items[["item", "acc_norm"]].rename(columns={"acc_norm": "value"})
    return table.assign(unit=table.index.astype("int32"), look=look)[look < known]


def after(results, known, looks=4):
    """The results with methods at the middle budget known after so many looks, by method."""
    cells = []
    for cell in results.cells:
        made = looks if cell.method == "none" else known.get(cell.method, looks)
        table = looked(cell.evaluations[TASK].items, looks, made)
        if cell.method == "none":
            cell = dataclasses.replace(cell, looked={TASK: table})
        elif made < looks and cell.retain == 0.5:
            figure = EarlyFigure(
                len(table), 200, made, looks, 0.5, 0.0, *[-0.1, 0.1] * 3, 2, 1, "precise"
            )
            cell = dataclasses.replace(
                cell,
                evaluations={t: own for t, own in cell.evaluations.items() if t != TASK},
                tasks={**cell.tasks, TASK: TaskStatus("early", "after some")},
                early={TASK: figure},
                looked={TASK: table},
            )
        cells.append(cell)
    (group,) = arrange(dataclasses.replace(results, cells=tuple(cells)))
    budget = next(own for own in group.budgets if own.retain == 0.5)
    entries = {entry.method: entry for entry in budget.entries}
    return EarlyPairs(group, budget, SCORE), entries["max"], entries["mean"], entries["frequency"]


def test_a_comparison_has_the_part_of_the_error_of_the_look_that_both_have():
    results = synthetic(failures=False)
    for look, share in ((1, 1 / 6), (2, 1 / 3), (3, 1 / 2)):
        pairs, first, second, whole = after(results, {"max": look, "mean": 3})
        assert pairs.share(first, second) == pytest.approx(share)
        assert pairs.share(first, whole) == pytest.approx(share)
    # Of a task with fewer items the first look is after 30 %.
    for look in (1, 2):
        pairs, first, second, _ = after(results, {"max": look, "mean": 2}, looks=3)
        assert pairs.share(first, second) == pytest.approx((1 / 2, 1 / 2)[look - 1])


def test_an_interval_misses_as_often_as_its_look_may():
    one, shares = np.ones(2), np.array([1 / 6, 1.0])
    early, whole = adjusted_family("methods", Pairwise(one, one, one, 30 * one, 0 * one), shares)
    for found, share in ((early, 1 / 6), (whole, 1.0)):
        half = stats.t.isf(0.05 * share / 2 / 2, 30)  # of two comparisons, and two ends
        assert (found.low, found.high) == pytest.approx((1 - half, 1 + half))
