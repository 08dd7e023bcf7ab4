"""The methods of one budget in their order, and all that they are compared by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mbench.core.cell_results import UNPRUNED, CellKey
from mbench.report.statistics.disagreements import items_won
from mbench.report.statistics.early import Estimate, estimate, estimate_of
from mbench.report.statistics.early_pairs import EarlyPairs
from mbench.report.statistics.families import (
    Comparison,
    FamilyName,
    adjusted_family,
    compare_family,
)
from mbench.report.statistics.groups import RANDOM, BudgetEntries, Entry, Group
from mbench.report.statistics.pairing import Paired
from mbench.report.statistics.pairwise import Pairwise, pairwise
from mbench.report.statistics.scores import Score
from mbench.report.statistics.strata import pairs
from mbench.report.statistics.untested import few_masks


class Placed:
    """The methods of a budget in their order, whole or early, and what they are compared by."""

    def __init__(
        self,
        group: Group,
        budget: BudgetEntries,
        score: Score,
        paired: Paired[CellKey],
        whole: Sequence[Entry],
        early: Sequence[Entry],
        full: Entry | None,
    ) -> None:
        """Those of which one is early are compared on the items that both have."""
        self.score, self.full, self._paired = score, full, paired
        every = [entry for entry in budget.entries if entry in whole or entry in early]
        self.random = next((entry for entry in every if entry.method == RANDOM), None)
        self._estimates: dict[int, Estimate] = {}
        for entry in (*every, *([full] if full else [])):
            unpruned = group.unpruned if full else None
            found = estimate_of(entry, score, unpruned)
            assert found is not None
            self._estimates[id(entry)] = found
        self.copies = _copies([entry for entry in every if entry is not self.random])
        sign = -1 if score.higher else 1
        self.copies.sort(key=lambda own: sign * self.of(own[0]).value)
        self.labels = [" = ".join(entry.method for entry in own) for own in self.copies]
        self.rows = [own[0] for own in self.copies]
        self._label_of = dict(zip(map(id, self.rows), self.labels, strict=True))
        self.references = [entry for entry in (self.random, full) if entry is not None]
        compared = [e for e in (*self.rows, *self.references) if e in whole or e is full]
        columns = [paired.columns_of(c.key for c in e.cells) or [] for e in compared]
        self.differences = pairwise(paired.strata, columns) if columns else None
        self._columns = columns
        self._early = EarlyPairs(group, budget, score) if early else None
        self.place = {id(entry): at for at, entry in enumerate(compared)}
        """Entry -> its place among those that have all items."""

    def of(self, entry: Entry) -> Estimate:
        """Where an entry's score lies."""
        return self._estimates[id(entry)]

    def figures(self, entry: Entry) -> list[float]:
        """The score of each of its masks."""
        unpruned = self.full.cells[0] if self.full else None
        found = (estimate(cell, self.score, unpruned) for cell in entry.cells)
        return [own.value for own in found if own is not None]

    def won(self) -> np.ndarray | None:
        """See `Ranking.won`; early methods have no items to count."""
        shown = [*self.rows, *([self.full] if self.full else [])]
        at = [(new, self.place[id(e)]) for new, e in enumerate(shown) if id(e) in self.place]
        found = items_won(self._paired.strata, [self._columns[place] for _, place in at])
        if found is None:
            return None
        won = np.full((len(shown), len(shown)), np.nan)
        places = [new for new, _ in at]
        won[np.ix_(places, places)] = found
        return won

    def comparisons(self, untested: Mapping[FamilyName, str]) -> dict[tuple[str, str], Comparison]:
        """All comparisons by label; rows are first, then random and the unpruned model."""
        families: dict[FamilyName, list[tuple[Entry, Entry]]] = {
            "methods": [(self.rows[a], self.rows[b]) for a, b in pairs(len(self.rows))]
        }
        if self.random is not None:
            families["random"] = [(row, self.random) for row in self.rows]
        if self.full is not None:
            first = [*self.rows, *([self.random] if self.random else [])]
            families["unpruned"] = [(entry, self.full) for entry in first]
        result: dict[tuple[str, str], Comparison] = {}
        for name, of_family in families.items():
            result |= self._family(name, of_family, untested.get(name, ""))
        own = result.get((RANDOM, UNPRUNED))
        few = few_masks(len(self.random.cells)) if self.random else ""
        if own is not None and few:
            why = own.problem or few
            result[RANDOM, UNPRUNED] = Comparison(
                own.value, family="unpruned", size=own.size, problem=why, early=own.early
            )
        return result

    def _family(
        self, name: FamilyName, compared: Sequence[tuple[Entry, Entry]], problem: str
    ) -> dict[tuple[str, str], Comparison]:
        """As one family, whichever of them are early."""
        labels = [(self._label(a), self._label(b)) for a, b in compared]
        place = self.place
        places = [(place[id(a)], place[id(b)]) for a, b in compared if self._whole(a, b)]
        if len(places) < len(compared):
            found = self._with_early(name, compared, problem)
        elif self.differences is not None:
            tested_pairs = compare_family(name, self.differences, places, problem)
            found = [tested_pairs[own] for own in places]
        else:
            found = []
        return dict(zip(labels, found, strict=True))

    def _whole(self, first: Entry, second: Entry) -> bool:
        return id(first) in self.place and id(second) in self.place

    def _with_early(
        self, name: FamilyName, compared: Sequence[tuple[Entry, Entry]], problem: str
    ) -> list[Comparison]:
        """A family with comparisons of early methods, which have no p-value."""
        assert self._early is not None
        differences, problems, shares = list[Pairwise](), list[str](), list[float]()
        for a, b in compared:
            own: Pairwise | str
            if self._whole(a, b):
                assert self.differences is not None
                own, share = self.differences.at([(self.place[id(a)], self.place[id(b)])]), 1.0
            else:
                own = self._early.difference(a, b)
                share = self._early.share(a, b) if isinstance(own, Pairwise) else 1.0
            told = isinstance(own, Pairwise)
            differences.append(own if isinstance(own, Pairwise) else NOTHING)
            problems.append(problem or ("" if told else str(own)))
            shares.append(share)
        of_family = adjusted_family(name, Pairwise.joined(differences), np.array(shares))
        result = []
        for (a, b), why, found in zip(compared, problems, of_family, strict=True):
            whole = self._whole(a, b)
            value = self.of(a).value - self.of(b).value
            if why:
                size, early = (0, False) if whole else (found.size, True)
                found = Comparison(value, family=name, size=size, problem=why, early=early)
                result.append(found)
            else:
                result.append(found if whole else _of_figures(found, value))
        return result

    def _label(self, entry: Entry) -> str:
        return self._label_of.get(id(entry), entry.method)


def _copies(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Methods with equal masks together: they are one model under several names."""
    by_masks: dict[frozenset[object], list[Entry]] = {}
    for entry in entries:
        by_masks.setdefault(entry.masks, []).append(entry)
    return list(by_masks.values())


NOTHING = Pairwise(*(np.array([value]) for value in (0.0, 0.0, 1.0, math.inf, 0.0)))
"""A difference that is never told apart: in place of one of which nothing is known."""


def _of_figures(own: Comparison, value: float) -> Comparison:
    """The comparison of two early figures, without a p-value.

    Both figures rest on all of their own items, the interval on those that both have: it is widened
    to the figures' difference, so that nothing is clear of which the two disagree.
    """
    low, high = min(own.low, value), max(own.high, value)
    return replace(own, value=value, low=low, high=high, p=math.nan, adjusted=math.nan, early=True)
