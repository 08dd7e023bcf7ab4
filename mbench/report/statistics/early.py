"""Scores of masks that were evaluated on some of the items, and what can be told of them.

The interval of an early figure is of all items of the task: those that were not evaluated are its
only error. Here it holds at once for all masks of the budget, and for all tasks where a score has
several. Two methods are told apart by the items that both have, see `early_pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mbench.core.cell_results import CellResult
from mbench.core.early import EarlyFigure
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.scores import Score
from mbench.report.words import listing, score_text


@dataclass(frozen=True)
class Estimate:
    """A score, or a mean of several masks' scores, and where it lies over all items."""

    value: float
    low: float
    high: float
    """Bounds that hold at once for all masks of the budget; whole evaluations are known."""

    @property
    def known(self) -> bool:
        """Whether every part of it was evaluated on all items."""
        return self.low == self.value == self.high


def estimate(cell: CellResult, score: Score, unpruned: CellResult | None) -> Estimate | None:
    """A cell's score; None where a part has neither an outcome nor an early figure.

    Over several tasks, the mean of bounds that hold for all tasks at once bounds the mean.
    """
    several = len(score.parts) > 1
    parts = [_part(cell, part, unpruned, several) for part in score.parts]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return mean(found)


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Of several, whose bounds hold at once."""
    count = len(estimates)
    if count == 1:
        return estimates[0]
    value, low, high = (
        math.fsum(getattr(each, name) for each in estimates) / count
        for name in ("value", "low", "high")
    )
    if all(each.known for each in estimates):
        low = high = value
    return Estimate(value, low, high)


def estimate_of(entry: Entry, score: Score, unpruned: CellResult | None) -> Estimate | None:
    """The mean of a method's masks; None unless each has the score."""
    each = [estimate(cell, score, unpruned) for cell in entry.cells]
    found = [own for own in each if own is not None]
    return mean(found) if len(found) == len(each) else None


def _part(
    cell: CellResult, part: tuple[str, str], unpruned: CellResult | None, several: bool
) -> Estimate | None:
    """One task's part of a score."""
    task, metric = part
    if (whole := cell.value(task, metric)) is not None:
        return Estimate(whole, whole, whole)
    figure = cell.early.get(task)
    if figure is None or cell.task_status(task).status != "early" or unpruned is None:
        return None
    full = unpruned.value(task, metric)
    if full is None:
        return None
    low, high = figure.among_low, figure.among_high
    if several:
        low, high = figure.overall_low, figure.overall_high
    base = figure.figure - figure.difference
    scaled = [_scaled(base, each, metric, full) for each in (figure.difference, low, high)]
    if not all(map(math.isfinite, scaled)):
        return None
    value, low, high = (full + each for each in scaled)
    return Estimate(value, low, high)


def _scaled(base: float, difference: float, metric: str, full: float) -> float:
    """A difference of the task's metric in the units of the score's.

    Scores have the loss in place of perplexity, and of bits per byte, which are proportional to it;
    a task that is scored by its own metric has the unpruned model's figure in common.
    """
    if metric != "mean_nll" or math.isclose(base, full, rel_tol=1e-9):
        return difference
    if _is_log(base, full):
        return math.log((base + difference) / base) if base + difference > 0 else -math.inf
    return difference * full / base


def _is_log(base: float, full: float) -> bool:
    """Whether the score's figure of the unpruned model is the logarithm of the task's."""
    return base > 0 and math.isclose(math.log(base), full, rel_tol=1e-6, abs_tol=1e-9)


def value_or_early(cell: CellResult, task: str, metric: str) -> float | None:
    """A task's declared metric, of all items or estimated; None where there is neither."""
    figure = cell.early.get(task)
    if figure is None:
        return cell.value(task, metric)
    return figure.figure if math.isfinite(figure.figure) else None


def early_lines(
    entries: Iterable[Entry], tasks: Mapping[str, str]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Method -> task -> how an early figure came about, in a few short lines."""
    return {
        entry.method: found
        for entry in entries
        if (found := {task: told for task in tasks if (told := lines_of(entry, task))})
    }


def lines_of(entry: Entry, task: str) -> tuple[str, ...]:
    """E.g. `400 of 2,000 items` and `±0.012, precise`, by half the interval of the difference to
    unpruned; of several masks how many are early; nothing where all are whole."""
    figures = [cell.early[task] for cell in entry.cells if task in cell.early]
    if not figures:
        return ()
    endings = listing(dict.fromkeys(figure.ended for figure in figures))
    if len(entry.cells) == 1:
        (figure,) = figures
        known = figure.untold or f"±{score_text(figure.half)}"
        return items_of(figure), f"{known}, {endings}"
    fewest, most = (choose(figure.items for figure in figures) for choose in (min, max))
    items = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    of = f"{len(figures)} of {len(entry.cells)} masks early"
    return of, f"{items} of {figures[0].of:,} items", endings


def items_of(figure: EarlyFigure) -> str:
    """`400 of 2,000 items`."""
    return f"{figure.items:,} of {figure.of:,} items"
