"""Which of lm-eval's metrics a task keeps, what its items count in them, and why others are out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from lm_eval.api.metrics import mean, nanmean

from mbench.core.errors import TaskError, unknown
from mbench.core.evaluation import GENERATED_METRICS, PERPLEXITY_METRICS

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task

MEANS = (mean, nanmean, np.mean, np.nanmean)
"""Aggregations that are means over items; the figures of others have no value per item."""

SKIPPING = (nanmean, np.nanmean)
"""Those that leave out items without a number."""

ROLLING = {
    "word_perplexity": "is not given: of one text it orders models as bits_per_byte does",
    "byte_perplexity": "is not given: it is 2 to the power of bits_per_byte",
}
"""lm-eval's other metrics of whole texts."""

BESIDE = "says how answers look and is shown beside the metrics: nothing is ranked by it"
"""Why a suite cannot name one of `GENERATED_METRICS`."""

Columns = dict[tuple[str, str], str]
"""(metric, filter) -> column of the per-item table."""


@dataclass(frozen=True)
class Figures:
    """The columns of a task's per-item table that hold metrics."""

    columns: Mapping[str, Columns]
    """By member: one task, or the members of a group or tag."""
    rolling: bool
    """Whether whole texts are scored, whose metrics follow from losses."""
    weights: Mapping[str, float] | None
    """What an item of each member counts, at most 1; None: all count alike."""
    left_out: Mapping[str, str]
    """Metric -> why it has no column."""

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics as a suite may name them."""
        if self.rolling:
            return PERPLEXITY_METRICS
        names = (column for columns in self.columns.values() for column in columns.values())
        return tuple(dict.fromkeys(names))

    def refuse_unless_kept(self, metric: str) -> None:
        """Raise a `TaskError` that says why a task does not have a metric, unless it has it."""
        if metric in self.names:
            return
        reason = self.left_out.get(metric.partition(",")[0])
        if reason is None:
            raise TaskError(unknown("metric", metric, self.names))
        raise TaskError(f"metric {metric!r} {reason} (valid: {', '.join(sorted(self.names))})")


def figures_of(
    name: str, tasks: Mapping[str, Task], group: Group | None, sizes: Mapping[str, int]
) -> Figures:
    """The metrics of a task that are means over items and better when higher.

    A column has the metric's name, or lm-eval's `metric,filter` where there are several filters.
    A group that aggregates has the metrics that it aggregates, weighted as it says; of any other
    group or tag all items count alike.

    Args:
        name: what the suite calls it.
        tasks: its members by name.
        group: if it is one.
        sizes: items of each member.

    Raises:
        TaskError: there is no such metric, or a group weighs its metrics differently.
    """
    rolling = any(task.OUTPUT_TYPE == "loglikelihood_rolling" for task in tasks.values())
    aggregated = _aggregated(group)
    if rolling and aggregated is not None and len(tasks) > 1:
        raise TaskError(
            f"task {name!r}: a group's figure of whole texts is a mean of figures, not of losses:"
            " list its members one by one in the suite"
        )
    left_out = dict(ROLLING) if rolling else {}
    if any(task.OUTPUT_TYPE == "generate_until" for task in tasks.values()):
        left_out |= dict.fromkeys(GENERATED_METRICS, BESIDE)
    filters = {task: [str(each.name) for each in tasks[task]._filters] for task in tasks}
    several = len({each for names in filters.values() for each in names}) > 1
    columns: dict[str, Columns] = {}
    for subtask, task in tasks.items():
        columns[subtask] = {}
        for metric, how in {} if rolling else task.aggregation().items():
            reason = _unusable(task, metric, how)
            if aggregated is not None and metric not in aggregated:
                reason = "is not aggregated by the group, so that lm-eval gives no figure of it"
            if reason:
                left_out[metric] = reason
                continue
            for applied in filters[subtask]:
                if aggregated is None or aggregated[metric].takes(applied):
                    column = f"{metric},{applied}" if several else metric
                    columns[subtask][metric, applied] = column
    figures = Figures(columns, rolling, _weights(name, columns, group, sizes), left_out)
    if not figures.names:
        reasons = "; ".join(f"{metric} {reason}" for metric, reason in left_out.items())
        raise TaskError(f"task {name!r} has no metric that can be used ({reasons or 'none'})")
    return figures


def _unusable(task: Task, metric: str, how: object) -> str:
    """Why a metric cannot be compared item by item; empty if it can."""
    if metric in GENERATED_METRICS and task.OUTPUT_TYPE == "generate_until":
        return BESIDE
    # lm-eval has the mean of something else under this name.
    if how not in MEANS or (task.OUTPUT_TYPE == "loglikelihood" and metric == "perplexity"):
        return "is no mean over items, so that methods cannot be compared on the same items"
    if task.higher_is_better().get(metric) is False:
        return "is better when lower, but tasks are ranked by what is better when higher"
    return ""


@dataclass(frozen=True)
class _Aggregated:
    filters: Sequence[str] | None
    by_size: bool

    def takes(self, applied: str) -> bool:
        return self.filters is None or applied in self.filters


def _aggregated(group: Group | None) -> dict[str, _Aggregated] | None:
    """How a group aggregates each metric, as lm-eval does; None if it aggregates nothing."""
    if group is None or not group.aggregate_metric_list:
        return None
    return {
        each.metric: _Aggregated(each.filter_list, each.weight_by_size)
        for each in group.aggregate_metric_list
    }


def _weights(
    name: str, columns: Mapping[str, Columns], group: Group | None, sizes: Mapping[str, int]
) -> dict[str, float] | None:
    aggregated = _aggregated(group)
    if group is None or aggregated is None:
        return None
    kept = {metric for of_task in columns.values() for metric, _ in of_task}
    ways = {aggregated[metric].by_size for metric in kept}
    if len(ways) > 1:
        raise TaskError(
            f"task {name!r}: the group weighs some metrics by size and others not: list its"
            " members one by one in the suite, and use `average`"
        )
    # A member of two of its groups counts twice.
    times = Counter(task.task_name for task in group.get_all_tasks())
    weights = {
        member: times[member] / (1 if ways == {True} else size) for member, size in sizes.items()
    }
    most = max(weights.values(), default=1.0)
    weights = {member: weight / most for member, weight in weights.items()}
    return None if set(weights.values()) <= {1.0} else weights
