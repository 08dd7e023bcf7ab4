"""Ranks the methods of each budget by one score, and compares them in three families."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mbench.core.results import UNPRUNED, CellKey
from mbench.report.statistics.against_random import reversing_seeds, worse_seeds
from mbench.report.statistics.disagreements import items_won
from mbench.report.statistics.families import Comparison, FamilyName, compare_family
from mbench.report.statistics.floors import floors
from mbench.report.statistics.gap import GapClosed, gap_closed
from mbench.report.statistics.groups import RANDOM, BudgetEntries, Entry, Group
from mbench.report.statistics.many_comparisons import ranks
from mbench.report.statistics.pairing import Paired, problem_of
from mbench.report.statistics.pairwise import Pairwise, pairwise
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import Summary, summarize
from mbench.report.statistics.strata import pairs
from mbench.report.statistics.untested import Units, few_masks, units_of, untested_families


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
    comparable = [e for e in budget.entries if not problem_of(e, paired) and _there(e, paired)]
    unranked = tuple(
        Unranked(entry, _summary(entry, score), problem_of(entry, paired))
        for entry in budget.entries
        if entry not in comparable
    )
    full = Entry(UNPRUNED, (group.unpruned,)) if group.unpruned else None
    if full is not None and not _there(full, paired):
        full = None
    random = next((entry for entry in comparable if entry.method == RANDOM), None)
    copies = _copies([entry for entry in comparable if entry is not random])
    sign = -1 if score.higher else 1
    values = {own[0].key: _mean(own[0], paired) for own in copies}
    copies.sort(key=lambda own: sign * values[own[0].key])
    rows = [own[0] for own in copies]
    references = [entry for entry in (random, full) if entry is not None]
    units = units_of(score, paired)
    columns = [paired.columns_of(c.key for c in e.cells) or [] for e in (*rows, *references)]
    differences = pairwise(paired.strata, columns) if columns else None
    at_floor = tuple(floors(group, budget, dict(score.parts)).values())
    was_run = any(entry.method == RANDOM for entry in budget.entries)
    untested = untested_families(units, at_floor, random, full, random_was_run=was_run)
    labels = [" = ".join(entry.method for entry in own) for own in copies]
    labels += [entry.method for entry in references]
    compared = _comparisons(differences, len(rows), labels, untested, random) if differences else {}
    return Ranking(
        score=score,
        ranked=tuple(_rows(copies, labels, compared, differences, random, score)),
        random=None if random is None else _reference(random, score),
        unpruned=None if full is None else _reference(full, score),
        unranked=unranked,
        units=units,
        untested=untested,
        won=items_won(paired.strata, columns[: len(rows)] + (columns[-1:] if full else [])),
        comparisons=compared,
    )


def _there(entry: Entry, paired: Paired[CellKey]) -> bool:
    return paired.columns_of(cell.key for cell in entry.cells) is not None


def _mean(entry: Entry, paired: Paired[CellKey]) -> float:
    columns = paired.columns_of(cell.key for cell in entry.cells)
    return float(np.mean([stratum.figures[columns] for stratum in paired.strata]))


def _copies(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Methods with equal masks together: they are one model under several names."""
    by_masks: dict[frozenset[object], list[Entry]] = {}
    for entry in entries:
        by_masks.setdefault(entry.masks, []).append(entry)
    return list(by_masks.values())


def _comparisons(
    differences: Pairwise,
    rows: int,
    labels: Sequence[str],
    untested: Mapping[FamilyName, str],
    random: Entry | None,
) -> dict[tuple[str, str], Comparison]:
    """All comparisons by label; rows are first, then random and the unpruned model."""
    families: dict[FamilyName, list[tuple[int, int]]] = {"methods": list(pairs(rows))}
    places = {label: place for place, label in enumerate(labels) if place >= rows}
    if RANDOM in places:
        families["random"] = [(row, places[RANDOM]) for row in range(rows)]
    if UNPRUNED in places:
        compared = [*range(rows), *([places[RANDOM]] if RANDOM in places else [])]
        families["unpruned"] = [(place, places[UNPRUNED]) for place in compared]
    result: dict[tuple[str, str], Comparison] = {}
    for name, of_family in families.items():
        found = compare_family(name, differences, of_family, untested.get(name, ""))
        result |= {(labels[a], labels[b]): comparison for (a, b), comparison in found.items()}
    own = result.get((RANDOM, UNPRUNED))
    if own is not None and random is not None and (few := few_masks(len(random.cells))):
        why = own.problem or few
        result[RANDOM, UNPRUNED] = Comparison(
            own.value, family="unpruned", size=own.size, problem=why
        )
    return result


def _rows(
    copies: Sequence[Sequence[Entry]],
    labels: Sequence[str],
    compared: Mapping[tuple[str, str], Comparison],
    differences: Pairwise | None,
    random: Entry | None,
    score: Score,
) -> Iterator[Ranked]:
    count = len(copies)
    clear = np.zeros((count, count), bool)
    for first, second in pairs(count):
        clear[first, second] = clear[second, first] = compared[labels[first], labels[second]].clear
    figures = [] if random is None else _figures(random, score)
    gap = compared.get((RANDOM, UNPRUNED))
    for place, (own, (first, last)) in enumerate(zip(copies, ranks(clear), strict=True)):
        summary = summarize(_figures(own[0], score))
        turning = reversing_seeds(summary.mean, figures) if figures else []
        closed = None
        # There is a gap to close only where random pruning is worse.
        worse = gap is not None and gap.clear and (gap.value < 0) == score.higher
        if differences is not None and worse:
            closed = gap_closed(differences, place, count, count + 1)
        yield Ranked(
            names=tuple(entry.method for entry in own),
            entry=own[0],
            summary=summary,
            rank=first,
            last_rank=last,
            tied=not clear[0, place],
            gap_closed=closed,
            masks_beaten=worse_seeds(summary.mean, figures, score.higher) if figures else None,
            reversing_seeds=tuple(random.cells[at].seed for at in turning) if random else (),
        )


def _figures(entry: Entry, score: Score) -> list[float]:
    return [value for value in map(score.value, entry.cells) if value is not None]


def _summary(entry: Entry, score: Score) -> Summary | None:
    values = _figures(entry, score)
    return summarize(values) if values else None


def _reference(entry: Entry, score: Score) -> Reference:
    figures = _figures(entry, score)
    return Reference(entry, summarize(figures), tuple(figures))
