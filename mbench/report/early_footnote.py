"""The footnote of early figures in tables for papers: from how many items, and how well known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mbench.core.early import EarlyFigure
from mbench.report.statistics.boards import GroupBoards
from mbench.report.statistics.early import estimate_of
from mbench.report.statistics.scores import Score
from mbench.report.words import listing, score_text

SIGN = "†"

_MEANING = (
    "± is half of a 95 % interval of what all of these items give, which holds over all looks: of"
    " a task, of one mask's difference to the unpruned model; of a score of tasks, of all masks of"
    " a budget at once. Two figures are told apart by another interval, to which the error over"
    " items is added."
)


def early_footnote(boards: GroupBoards) -> str:
    """What the sign means, and of each column what is known; empty where no figure is early."""
    cells = boards.group.cells.values()
    known = [
        f"{task} {_of_task(figures)}"
        for task in boards.results.task_metrics
        if (figures := [cell.early[task] for cell in cells if task in cell.early])
    ]
    if not known:
        return ""
    for score in filter(None, (boards.score, boards.second_score)):
        if halves := list(_halves(boards, score)):
            known.append(f"{score.name} {_range(halves)}")
    what = "early, an estimate from some of the items, of several seeds the mean"
    return f"{SIGN}: {what}: {'; '.join(known)}. {_MEANING}"


def _of_task(figures: Sequence[EarlyFigure]) -> str:
    fewest, most = (choose(each.items for each in figures) for choose in (min, max))
    items = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    halves = [each.half for each in figures if not each.untold]
    untold = dict.fromkeys(each.untold for each in figures if each.untold)
    known = [_range(halves)] if halves else []
    return listing([", ".join([f"{items} of {figures[0].of:,} items", *known]), *untold])


def _halves(boards: GroupBoards, score: Score) -> Iterator[float]:
    """Half of each interval of a score that is not known exactly."""
    for board in boards.boards:
        for entry in board.budget.entries:
            found = estimate_of(entry, score, boards.group.unpruned)
            if found is not None and not found.known:
                yield (found.high - found.low) / 2


def _range(halves: Sequence[float]) -> str:
    """`±0.021 to 0.029`."""
    ends = (score_text(choose(halves)) for choose in (min, max))
    return "±" + " to ".join(dict.fromkeys(ends))
