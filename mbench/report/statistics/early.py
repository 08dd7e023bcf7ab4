"""Scores of masks that were evaluated on some of the items, and what can be told of them.

The interval of an early figure is of all items of the task: those that were not evaluated are its
only error. Here it holds at once for all masks of the budget, and for all tasks where a score has
several. Before two methods are told apart, the error over items like these is added, which is all
that is left when every item has been evaluated: from both methods' standard errors to the unpruned
model as if these were independent (what two masks change is alike, which makes their difference
surer than that), and from their masks' spread, at the level of Bonferroni's correction. So an early
verdict asks for more than the tests of whole evaluations do. It is none, and has no p-value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from mbench.core.early import EarlyFigure
from mbench.core.results import CellResult
from mbench.report.statistics.families import LEVEL, Comparison, FamilyName
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.pairing import pair
from mbench.report.statistics.pairwise import pairwise
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.words import bounds, listing

TOO_FEW = "early: too few items to tell"


@dataclass(frozen=True)
class Estimate:
    """A score, or a mean of several masks' scores, and where it lies over all items."""

    value: float
    low: float
    """Bounds that hold at once for all masks of the budget; whole evaluations are known."""
    high: float
    error: float = 0.0
    """Standard error of the difference to the unpruned model over items like these, at most; of
    several masks their spread is in it."""
    masks: float = math.inf
    """For how many masks of the budget they hold at once."""

    @property
    def known(self) -> bool:
        """Whether every part of it was evaluated on all items."""
        return self.low == self.value == self.high


def estimate(
    cell: CellResult, score: Score, unpruned: CellResult | None, *, errors: bool = True
) -> Estimate | None:
    """A cell's score; None where a part has neither an outcome nor an early figure.

    Over several tasks, the mean of bounds that hold for all tasks at once bounds the mean. Without
    `errors`, those of whole evaluations are left at 0: they take long, and only comparisons with
    early figures ask for them.
    """
    several = len(score.parts) > 1
    parts = [_part(cell, part, unpruned, several, errors) for part in score.parts]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return mean(found)


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Of several, whose bounds hold at once."""
    count = len(estimates)
    value, low, high, error = (
        math.fsum(getattr(each, name) for each in estimates) / count
        for name in ("value", "low", "high", "error")
    )
    if all(each.known for each in estimates):
        low = high = value
    return Estimate(value, low, high, error, min(each.masks for each in estimates))


def estimate_of(
    entry: Entry, score: Score, unpruned: CellResult | None, *, errors: bool = True
) -> Estimate | None:
    """The mean of a method's masks; None unless each has the score."""
    each = [estimate(cell, score, unpruned, errors=errors) for cell in entry.cells]
    found = [own for own in each if own is not None]
    if len(found) < len(each):
        return None
    spread = summarize(own.value for own in found).std if len(found) > 1 else 0.0
    together = mean(found)
    return replace(together, error=math.hypot(together.error, spread / math.sqrt(len(found))))


def _part(
    cell: CellResult,
    part: tuple[str, str],
    unpruned: CellResult | None,
    several: bool,
    errors: bool,
) -> Estimate | None:
    """One task's part of a score."""
    task, metric = part
    if (whole := cell.value(task, metric)) is not None:
        error = _item_error(cell, part, unpruned) if errors else 0.0
        return Estimate(whole, whole, whole, error)
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
    error = figure.stderr * (1.0 if _is_log(base, full) else full / base if base else 1.0)
    return Estimate(value, low, high, error, figure.masks)


def _item_error(cell: CellResult, part: tuple[str, str], unpruned: CellResult | None) -> float:
    """Of a whole evaluation, from its items; of one that cannot be paired, no error is known."""
    if unpruned is None or cell is unpruned:
        return 0.0
    together = pair({"cell": cell, "unpruned": unpruned}, [part])
    if len(together.columns) < 2:
        return math.nan
    columns = [[together.columns[name]] for name in ("cell", "unpruned")]
    return math.sqrt(float(pairwise(together.strata, columns).variance[0, 1]))


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


def told(
    first: Estimate, second: Estimate, family: FamilyName, size: int, masks: int, problem: str = ""
) -> Comparison:
    """First minus second, where one of them is early.

    `masks` is how many the budget has; bounds that hold for fewer at once tell nothing (runs that
    were merged may be early each by itself).
    """
    value = first.value - second.value
    holds = min(first.masks, second.masks)
    if not problem and holds < masks:
        problem = f"early intervals hold for {holds:.0f} masks at once, and here are {masks}"
    if problem:
        return Comparison(value, family=family, size=size, problem=problem, early=True)
    items = NormalDist().inv_cdf(1 - LEVEL / 2 / max(1, size))
    items *= math.hypot(first.error, second.error)
    low, high = first.low - second.high - items, first.high - second.low + items
    if not (math.isfinite(low) and math.isfinite(high)):
        return Comparison(value, family=family, size=size, problem=TOO_FEW, early=True)
    return Comparison(value, low, high, family=family, size=size, early=True)


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
    """E.g. `early: 400 of 2,000 items`, `[−0.020, +0.004] to unpruned` and `precise`; of several
    masks how many are early; nothing where all are whole."""
    figures = [cell.early[task] for cell in entry.cells if task in cell.early]
    if not figures:
        return ()
    endings = listing(dict.fromkeys(figure.ended for figure in figures))
    if len(entry.cells) == 1:
        (figure,) = figures
        interval = bounds(figure.low, figure.high)
        apart = f"{interval} to unpruned" if interval else TOO_FEW
        return f"early: {items_of(figure)}", apart, endings
    fewest, most = (choose(figure.items for figure in figures) for choose in (min, max))
    items = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    of = f"{len(figures)} of {len(entry.cells)} masks early"
    return of, f"{items} of {figures[0].of:,} items", endings


def items_of(figure: EarlyFigure) -> str:
    """`400 of 2,000 items`."""
    return f"{figure.items:,} of {figure.of:,} items"
