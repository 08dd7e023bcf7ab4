"""Ranks the methods of each budget by one score, and compares them in three families."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mbench.core.cell_results import UNPRUNED, CellKey, CellResult
from mbench.report.statistics.against_random import reversing_seeds, worse_seeds
from mbench.report.statistics.early import Estimate, estimate, estimate_of
from mbench.report.statistics.families import Comparison, FamilyName
from mbench.report.statistics.floors import floors
from mbench.report.statistics.gap import GapClosed, gap_closed
from mbench.report.statistics.groups import RANDOM, BudgetEntries, Entry, Group
from mbench.report.statistics.many_comparisons import ranks
from mbench.report.statistics.pairing import Paired, problem_of
from mbench.report.statistics.placed import Placed
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import Summary, summarize
from mbench.report.statistics.strata import pairs
from mbench.report.statistics.untested import Units, units_of, untested_families
from mbench.report.words import listing


@dataclass(frozen=True)
class Ranked:
    """A row of the ranking: a method, or several with the same masks, which are one model."""

    names: tuple[str, ...]
    """Of the methods, in the order of the suite."""
    entry: Entry
    """Of the first one."""
    summary: Summary
    """The score over seeds, or of the only cell."""
    rank: int
    """The best rank it may have."""
    last_rank: int
    """The worst rank it may have."""
    tied: bool
    """Whether it is the best row, or not told apart from it."""
    gap_closed: GapClosed | None
    """None where random pruning and the unpruned model are not told apart."""
    masks_beaten: int | None
    """How many of the random masks have a worse score; None without random pruning."""
    reversing_seeds: tuple[int | None, ...]
    """Seeds of random pruning that, as the only baseline, would change the difference's sign."""
    early: Estimate | None = None
    """Where its score lies over all items, where some were not evaluated; else None."""

    @property
    def label(self) -> str:
        """Its methods in one text."""
        return " = ".join(self.names)


@dataclass(frozen=True)
class Reference:
    """Random pruning or the unpruned model, which have no rank."""

    entry: Entry
    summary: Summary
    figures: tuple[float, ...]
    """The score of each of its masks."""
    early: Estimate | None = None
    """As of `Ranked`."""


@dataclass(frozen=True)
class Unranked:
    """A method at a budget that is incomplete or cannot be compared."""

    entry: Entry
    summary: Summary | None
    """The score over those seeds that have one."""
    problem: str
    """Why it cannot be compared although it is complete; empty if it is incomplete."""


@dataclass(frozen=True)
class Ranking:
    """The methods of one budget by one score."""

    score: Score
    ranked: tuple[Ranked, ...]
    """From best to worst."""
    random: Reference | None
    unpruned: Reference | None
    unranked: tuple[Unranked, ...]
    units: tuple[Units, ...]
    """By task."""
    untested: Mapping[FamilyName, str]
    """Family -> why nothing of it is tested; families that are tested are not in it."""
    won: np.ndarray | None = field(repr=False, compare=False)
    """[rows and unpruned, the same]: items that the first has right and the second wrong; NaN where
    one has several masks, None where outcomes are not right or wrong."""
    comparisons: Mapping[tuple[str, str], Comparison] = field(repr=False)
    """(first, second) -> first minus second; names are labels of rows, `random` and `none`."""

    @property
    def tied(self) -> tuple[Ranked, ...]:
        """The best row and those not told apart from it; empty if none is ranked."""
        return tuple(row for row in self.ranked if row.tied)

    @property
    def lacking(self) -> tuple[Unranked, ...]:
        """Methods that were asked for the score and have no place; without random pruning."""
        tasks = [task for task, _ in self.score.parts]
        return tuple(
            own
            for own in self.unranked
            if own.entry.method != RANDOM
            and not any(
                cell.task_status(task).status == "left out"
                for cell in own.entry.cells
                for task in tasks
            )
        )

    @property
    def compared(self) -> bool:
        """Whether there are methods to be tied for best, or told apart."""
        return len(self.ranked) > 1 and "methods" not in self.untested

    @property
    def winner(self) -> Ranked | None:
        """The best row if it is told apart from every other one and there is another."""
        return self.tied[0] if len(self.tied) == 1 and len(self.ranked) > 1 else None

    @property
    def placed(self) -> tuple[Ranked | Reference, ...]:
        """The rows and random pruning, from best to worst."""
        every: list[Ranked | Reference] = [*self.ranked, *([self.random] if self.random else [])]
        sign = -1 if self.score.higher else 1
        return tuple(sorted(every, key=lambda row: sign * row.summary.mean))

    def row_of(self, method: str) -> Ranked | None:
        """The row of a method, which may share it."""
        return next((row for row in self.ranked if method in row.names), None)

    def standing_of(self, method: str) -> Ranked | Reference | Unranked | None:
        """Where a method stands; None if it is not at this budget."""
        if self.random is not None and method == self.random.entry.method:
            return self.random
        return self.row_of(method) or next(
            (own for own in self.unranked if own.entry.method == method), None
        )

    def compare(self, first: str, second: str) -> Comparison | None:
        """First minus second, of methods, labels of rows, `random` or `none` (unpruned); None
        where they are the same row or one has no row."""
        one, two = self._label(first), self._label(second)
        if (one, two) in self.comparisons:
            return self.comparisons[one, two]
        turned = self.comparisons.get((two, one))
        return None if turned is None else turned.turned

    def _label(self, name: str) -> str:
        row = self.row_of(name)
        return name if row is None else row.label


def rankings(group: Group, score: Score, paired: Paired[CellKey]) -> dict[float, Ranking]:
    """Retain ratio -> its methods ranked by the score; `paired` has the score's parts, in order."""
    return {budget.retain: _ranking(group, budget, score, paired) for budget in group.budgets}


def rank_together(entries: Sequence[Entry], score: Score, paired: Paired[CellKey]) -> Ranking:
    """Entries of any models and budgets, each under a name of its own, ranked by the score.

    None of them is a reference: neither random pruning nor the unpruned model.
    """
    together = BudgetEntries(math.nan, 0, tuple(entries))
    return _ranking(Group("", "", None, (together,)), together, score, paired)


def _ranking(group: Group, budget: BudgetEntries, score: Score, paired: Paired[CellKey]) -> Ranking:
    fits = [entry for entry in budget.entries if not problem_of(entry, paired)]
    comparable = [entry for entry in fits if _there(entry, paired)]
    full = Entry(UNPRUNED, (group.unpruned,)) if group.unpruned else None
    if full is not None and not _there(full, paired):
        full = None
    unpruned = group.unpruned if full else None
    early = [
        entry
        for entry in fits
        if entry not in comparable and estimate_of(entry, score, unpruned) is not None
    ]
    placed = Placed(group, budget, score, paired, comparable, early, full)
    unranked = tuple(
        Unranked(entry, _summary(entry, score), problem_of(entry, paired))
        for entry in budget.entries
        if entry not in comparable and entry not in early
    )
    at_floor = tuple(floors(group, budget, dict(score.parts)).values())
    units = units_of(score, paired)
    lacking = _why_no_random(budget, score, paired, unpruned)
    untested = untested_families(units, at_floor, placed.random, full, no_random=lacking)
    compared = placed.comparisons(untested)
    return Ranking(
        score=score,
        ranked=tuple(_rows(placed, compared)),
        random=None if placed.random is None else _reference(placed, placed.random),
        unpruned=None if full is None else _reference(placed, full),
        unranked=unranked,
        units=units,
        untested=untested,
        won=placed.won(),
        comparisons=compared,
    )


def _why_no_random(
    budget: BudgetEntries, score: Score, paired: Paired[CellKey], unpruned: CellResult | None
) -> str:
    """Why random pruning is not there, should it not be."""
    random = next((entry for entry in budget.entries if entry.method == RANDOM), None)
    if random is None:
        return "random pruning was not run"
    tasks = [task for task, _ in score.parts]
    without = [task for task in tasks if random.cells[0].task_status(task).status == "left out"]
    if without:
        return f"random pruning was not asked for {listing(without)}"
    if problem := problem_of(random, paired):
        return f"random pruning cannot be compared: {problem}"
    lacks = [cell for cell in random.cells if estimate(cell, score, unpruned) is None]
    statuses = {cell.task_status(task).status for cell in lacks for task in tasks}
    why = listing(sorted(statuses - {"ok", "early"}))
    count, masks = len(random.cells) - len(lacks), len(random.cells)
    said = f"figures of {count} of {masks} random masks" if count else "no figures of random masks"
    return said + (f", the {'others' if count else 'masks'} are {why}" if why else "")


def _there(entry: Entry, paired: Paired[CellKey]) -> bool:
    return paired.columns_of(cell.key for cell in entry.cells) is not None


def _rows(placed: Placed, compared: Mapping[tuple[str, str], Comparison]) -> Iterator[Ranked]:
    count, labels, random, score = len(placed.rows), placed.labels, placed.random, placed.score
    clear = np.zeros((count, count), bool)
    for first, second in pairs(count):
        clear[first, second] = clear[second, first] = compared[labels[first], labels[second]].clear
    random_whole = random is not None and id(random) in placed.place
    gap = compared.get((RANDOM, UNPRUNED))
    # There is a gap to close only where random pruning is worse.
    worse = gap is not None and gap.clear and (gap.value < 0) == score.higher
    for at, (own, (first, last)) in enumerate(zip(placed.copies, ranks(clear), strict=True)):
        place = placed.place.get(id(own[0]))
        summary = summarize(placed.figures(own[0]))
        # Early figures are beside their masks' by chance: single masks are not compared with them.
        figures = []
        if random is not None and random_whole and place is not None:
            figures = placed.figures(random)
        turning = reversing_seeds(summary.mean, figures) if figures else []
        closed = None
        if placed.differences is not None and worse and figures and place is not None:
            assert random is not None
            assert placed.full is not None
            references = placed.place[id(random)], placed.place[id(placed.full)]
            closed = gap_closed(placed.differences, place, *references)
        yield Ranked(
            names=tuple(entry.method for entry in own),
            entry=own[0],
            summary=summary,
            rank=first,
            last_rank=last,
            tied=not clear[0, at],
            gap_closed=closed,
            masks_beaten=worse_seeds(summary.mean, figures, score.higher) if figures else None,
            reversing_seeds=tuple(random.cells[at].seed for at in turning) if random else (),
            early=None if place is not None else placed.of(own[0]),
        )


def _figures(entry: Entry, score: Score) -> list[float]:
    return [value for value in map(score.value, entry.cells) if value is not None]


def _summary(entry: Entry, score: Score) -> Summary | None:
    values = _figures(entry, score)
    return summarize(values) if values else None


def _reference(placed: Placed, entry: Entry) -> Reference:
    figures = placed.figures(entry)
    early = None if id(entry) in placed.place else placed.of(entry)
    return Reference(entry, summarize(figures), tuple(figures), early)
