"""The methods of one budget in their order, and all that they are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mbench.core.results import UNPRUNED, CellKey
from mbench.report.statistics.disagreements import items_won
from mbench.report.statistics.early import Estimate, estimate, estimate_of, told
from mbench.report.statistics.families import Comparison, FamilyName, compare_family
from mbench.report.statistics.groups import RANDOM, BudgetEntries, Entry, Group
from mbench.report.statistics.pairing import Paired
from mbench.report.statistics.pairwise import pairwise
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
        """Whole ones are compared on their items, early ones by what is known of all items."""
        self.score, self.full, self._paired = score, full, paired
        every = [entry for entry in budget.entries if entry in whole or entry in early]
        self.random = next((entry for entry in every if entry.method == RANDOM), None)
        self._estimates: dict[int, Estimate] = {}
        for entry in (*every, *([full] if full else [])):
            unpruned = group.unpruned if full else None
            found = estimate_of(entry, score, unpruned, errors=bool(early))
            assert found is not None
            self._estimates[id(entry)] = found
        self.copies = _copies([entry for entry in every if entry is not self.random])
        sign = -1 if score.higher else 1
        self.copies.sort(key=lambda own: sign * self.of(own[0]).value)
        self.labels = [" = ".join(entry.method for entry in own) for own in self.copies]
        self.rows = [own[0] for own in self.copies]
        self.masks = len({c.mask for e in budget.entries for c in e.cells if c.mask})
        self.references = [entry for entry in (self.random, full) if entry is not None]
        compared = [e for e in (*self.rows, *self.references) if e in whole or e is full]
        columns = [paired.columns_of(c.key for c in e.cells) or [] for e in compared]
        self.differences = pairwise(paired.strata, columns) if columns else None
        self._columns = columns
        self.place = {id(entry): at for at, entry in enumerate(compared)}
        """Entry -> its place among those that have all items."""

    def of(self, entry: Entry) -> Estimate:
        """Where an entry's score lies."""
        return self._estimates[id(entry)]

    def figures(self, entry: Entry) -> list[float]:
        """The score of each of its masks."""
        unpruned = self.full.cells[0] if self.full else None
        found = (estimate(cell, self.score, unpruned, errors=False) for cell in entry.cells)
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
        """Those of whole methods are tested, as a family of their own."""
        place = self.place
        whole = [(a, b) for a, b in compared if id(a) in place and id(b) in place]
        tested: dict[tuple[int, int], Comparison] = {}
        if self.differences is not None and whole:
            places = [(place[id(a)], place[id(b)]) for a, b in whole]
            tested = compare_family(name, self.differences, places, problem)
        found = {}
        for a, b in compared:
            labels = self._label(a), self._label(b)
            if id(a) in place and id(b) in place:
                found[labels] = tested[place[id(a)], place[id(b)]]
            else:
                first, second = self.of(a), self.of(b)
                found[labels] = told(first, second, name, len(compared), self.masks, problem)
        return found

    def _label(self, entry: Entry) -> str:
        rows = zip(self.rows, self.labels, strict=True)
        return next((label for row, label in rows if row is entry), entry.method)


def _copies(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Methods with equal masks together: they are one model under several names."""
    by_masks: dict[frozenset[object], list[Entry]] = {}
    for entry in entries:
        by_masks.setdefault(entry.masks, []).append(entry)
    return list(by_masks.values())
