"""What is said of figures from some of the items: on the first screen, and in the details."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from mbench.core.cell_results import CellResult
from mbench.core.early import EarlyFigure
from mbench.core.results import Results
from mbench.core.run_record import IN_ALL
from mbench.report.page.part import Part, Text
from mbench.report.statistics.boards import RunBoards
from mbench.report.statistics.ranking import Ranking
from mbench.report.tables.early import early_figures
from mbench.report.words import listing, score_text

HOW = (
    "Such a figure is an estimate for all items of its task: the mask's own outcomes on the items"
    " that it was evaluated on, which were drawn at random, and on the others what the outcomes of"
    " the unpruned model and of masks with all items tell."
)

OF_INTERVALS = (
    "The interval is of the difference to the unpruned model over all items, and holds by itself,"
    " however often it was looked at: of 100 such intervals, about five may miss. In rankings"
    " intervals hold for all masks of a budget at once (Bonferroni), and for an average for all"
    " tasks at once: it lies between the means of the bounds."
)

OF_PAIRS = (
    "Two methods are compared in items like these, by their differences on the items that both have"
    " and what is predicted of the others, after the least share of its items that any task of the"
    " two has; they are told apart where zero is outside an interval that holds for the whole"
    " family and however often it was looked at. That rests on normal theory with corrections for"
    " few items. There are no p-values."
)

EITHER_WAY = (
    "The same run without a precision or hours goes on from here to exact figures."
    " They may change a verdict either way: methods that are tied may then be told"
    " apart, and methods that are told apart by little may be tied, as their difference over all"
    " items is smaller and is tested by itself. Each holds at 5 %, and neither is an error of the"
    " other as long as the early interval has that difference in it."
)

WHOLE_ONLY = (
    "Pages of items, items won and lost, flips, divergence of choices, subtasks, every metric,"
    " methods crossed with texts and equal bytes are of whole evaluations alone: what is listed"
    " here is not in them."
)


def early_note(results: Results, model: str) -> str:
    """How much of a model's evaluations is early, and how well such figures are known; empty where
    nothing is, and nothing is missing since the hours were over."""
    cells = [cell for cell in results.cells if cell.model == model]
    early = [figure for cell in cells for figure in cell.early.values()]
    states = Counter(
        cell.task_status(task).status for cell in cells for task in results.task_metrics
    )
    late = states["interrupted"] if _hours_were_over(results) else 0
    if not early and not late:
        return ""
    every = states.total() - states["left out"]
    said = []
    if early:
        word = "is estimated" if len(early) == 1 else "are estimated"
        said.append(f"{len(early)} of {every} evaluations {word} from {_shares(early)} of items")
    of = "" if early else f" of {every} evaluations"
    said.append(f"{states['ok']}{of} {'is' if states['ok'] == 1 else 'are'} whole")
    if late:
        said.append(f"{late} are missing, as the hours were over")
    return f"Early verdict{_asked(results)}: {', '.join(said)}.{_widths(cells, results)}"


def _hours_were_over(results: Results) -> bool:
    """Whether that is why something is missing, and no signal."""
    runs = results.provenance.runs
    return any(run.goal and run.goal.hours and not run.cost.interrupted for run in runs)


def _asked(results: Results) -> str:
    """`, asked for 2 hours`, and how long it took where that is more."""
    found = []
    for run in results.provenance.runs:
        if run.goal is None:
            continue
        took = run.cost.seconds.get(IN_ALL, 0.0) / 3600
        over = run.goal.hours is not None and took > 1.01 * run.goal.hours
        found.append(run.goal.in_words + (f" (took {took:.2g})" if over else ""))
    return f", asked for {listing(dict.fromkeys(found))}" if found else ""


def _shares(figures: Iterable[EarlyFigure]) -> str:
    """`30 to 60 %`: of their items, those that were evaluated."""
    shares = sorted(figure.items / figure.of for figure in figures)
    ends = dict.fromkeys(f"{100 * share:.0f}" for share in (shares[0], shares[-1]))
    return f"{' to '.join(ends)}\N{NO-BREAK SPACE}%"


def _widths(cells: Sequence[CellResult], results: Results) -> str:
    """How well the differences to the unpruned model are known."""
    plain, relative = [], []
    for cell in cells:
        for task, figure in cell.early.items():
            if not math.isfinite(figure.half):
                continue
            if results.task_metrics[task] == "perplexity":
                relative.append(f"{100 * figure.half / figure.figure:.1f}")
            else:
                plain.append(score_text(figure.half))
    parts = []
    for halves, unit in ((plain, ""), (relative, "\N{NO-BREAK SPACE}% of a perplexity")):
        if halves:
            ends = (choose(halves, key=float) for choose in (min, max))
            parts.append(f"±{' to '.join(dict.fromkeys(ends))}{unit}")
    if not parts:
        return ""
    return f" By itself, each difference to unpruned is known to {listing(parts)} (95 %)."


def early_at(ranking: Ranking) -> str:
    """How many methods of a budget are early, and from which difference on they are told apart."""
    early = sum(len(row.names) for row in ranking.ranked if row.early is not None)
    references = [own for own in (ranking.random,) if own is not None and own.early is not None]
    if not early and not references:
        return ""
    every = sum(len(row.names) for row in ranking.ranked)
    with_figures = " with figures" if ranking.lacking else ""
    whose = [f"{early} of {every} methods{with_figures}"] if early else []
    whose += ["random pruning"] if references else []
    compared = [c for c in ranking.comparisons.values() if c.early and c.family == "methods"]
    halves = [(own.high - own.low) / 2 for own in compared if not own.problem]
    said = f"early: {listing(whose)}"
    if halves:
        return f"{said}; two methods are told apart from about {score_text(median(halves))} on"
    return "; ".join(
        (said, *dict.fromkeys(own.problem.removeprefix("early: ") for own in compared))
    )


def items_in_words(figures: Iterable[EarlyFigure]) -> str:
    """`early, 480 of 1,200 items`; empty where there is none."""
    each = list(figures)
    if not each:
        return ""
    return f"early, {sum(f.items for f in each):,} of {sum(f.of for f in each):,} items"


def early_part(run: RunBoards) -> Part | None:
    """Every early figure; None where there is none."""
    table = early_figures(run)
    if table is None:
        return None
    said = (HOW, OF_INTERVALS, OF_PAIRS, EITHER_WAY, WHOLE_ONLY)
    return Part("Early figures", (*map(Text, said), table), id="early-figures")
