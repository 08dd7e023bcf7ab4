"""The scores that methods are ranked by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mbench.core.cell_results import CellResult
from mbench.core.evaluation import LOWER_IS_BETTER, Metric
from mbench.core.results import Results


@dataclass(frozen=True)
class Score:
    """An unweighted mean of one metric per task."""

    name: str
    parts: tuple[tuple[str, str], ...]
    """(task, metric)."""
    higher: bool
    """Whether more is better."""

    def value(self, cell: CellResult) -> float | None:
        """The score, or None unless every part has a result."""
        figures = self._figures(cell)
        if figures is None:
            return None
        return math.fsum(figure.value for figure in figures) / len(figures)

    def stderr(self, cell: CellResult) -> float:
        """Standard error over the items, which are independent between tasks; NaN without a
        score."""
        figures = self._figures(cell)
        if figures is None:
            return math.nan
        return math.sqrt(math.fsum(figure.stderr**2 for figure in figures)) / len(figures)

    def _figures(self, cell: CellResult) -> list[Metric] | None:
        figures = [cell.metric(*part) for part in self.parts]
        present = [figure for figure in figures if figure is not None]
        return present if len(present) == len(figures) else None


def average_score(results: Results) -> Score | None:
    """The suite's average of declared metrics, if it has one."""
    parts = tuple((task, results.task_metrics[task]) for task in results.average_tasks)
    return Score(results.average, parts, higher=True) if parts else None


def perplexity_score(results: Results) -> Score | None:
    """The mean over corpora of log perplexity, which is the mean loss per token in nats."""
    parts = tuple((t, "mean_nll") for t, m in results.task_metrics.items() if m in LOWER_IS_BETTER)
    return Score("Mean log perplexity", parts, higher=False) if parts else None


def primary_score(results: Results) -> Score | None:
    """What methods are ranked by: the average if the suite has one, else log perplexity."""
    return average_score(results) or perplexity_score(results)


def second_score(results: Results) -> Score | None:
    """Mean log perplexity, if the suite has perplexities and ranks by something else."""
    score = perplexity_score(results)
    return None if score == primary_score(results) else score


def task_score(task: str, metric: str) -> Score:
    """One task's metric as a score of its own; of a perplexity, its logarithm."""
    if metric in LOWER_IS_BETTER:
        return Score(f"{task}, log perplexity", ((task, "mean_nll"),), higher=False)
    return Score(task, ((task, metric),), higher=True)
