"""Ranks the methods of each budget, and tests their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mbench.core.results import CellKey
from mbench.report.statistics.against_random import gap_closed, reversing_seeds, worse_seeds
from mbench.report.statistics.floors import floors
from mbench.report.statistics.groups import RANDOM, BudgetEntries, Entry, Group
from mbench.report.statistics.many_comparisons import ranks, significantly_different
from mbench.report.statistics.method_comparison import Sample, difference, p_value, samples
from mbench.report.statistics.pairing import pair, problem_of
from mbench.report.statistics.resampling import enough_resamples
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import Summary, summarize
from mbench.report.statistics.significance import Difference

LEVEL = 0.05
"""Differences with an adjusted p-value below this are significant."""


@dataclass(frozen=True)
class AgainstRandom:
    """A method compared with the mean of random pruning, and with each random mask."""

    difference: Difference
    """The method minus the mean over the seeds of random pruning."""
    significant: bool
    """Whether the method is significantly different from that mean (adjusted)."""
    masks_beaten: int
    """How many random masks it is better than."""
    masks: int
    reversing_seeds: tuple[int | None, ...]
    """Seeds of random pruning that, as the only baseline, would change the difference's sign."""


@dataclass(frozen=True)
class Ranked:
    """A method at a budget that is compared with all others there."""

    entry: Entry
    summary: Summary
    """The score over seeds, or of the only cell."""
    rank: int
    """The best rank it may have."""
    last_rank: int
    """The worst rank it may have."""
    from_best: Difference | None
    """This method minus the best one; None for the best one itself."""
    tied_with_best: bool
    """Whether it is not significantly different (adjusted) from the best one, or is it."""
    same_as: tuple[str, ...]
    """Other methods with the same masks, which are the same model under another name."""
    against_random: AgainstRandom | None
    """None for random pruning itself, and where that is not ranked."""
    gap_closed: float | None
    """Share of the gap from random pruning to the unpruned model; None if these two are not
    significantly different, NaN if random pruning is better."""


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
    unranked: tuple[Unranked, ...]

    @property
    def standings(self) -> tuple[Ranked | Unranked, ...]:
        """From best to worst, then those that cannot be ranked."""
        return (*self.ranked, *self.unranked)

    @property
    def leaders(self) -> tuple[str, ...]:
        """The best method and those not significantly different from it; empty if none is
        ranked."""
        return tuple(s.entry.method for s in self.ranked if s.tied_with_best)

    @property
    def winner(self) -> str | None:
        """The best method if it is significantly different from all others (its copies aside) and
        there is at least one other."""
        best = [standing for standing in self.ranked if standing.tied_with_best]
        alone = all(s.entry.method in best[0].same_as for s in best[1:])
        return best[0].entry.method if best and alone and len(best) < len(self.ranked) else None


def rankings(group: Group, score: Score) -> dict[float, Ranking]:
    """Retain ratio -> its methods ranked by the score, all compared on the same items."""
    paired = pair(group.cells, score.parts)
    most = max((math.comb(len(budget.entries), 2) for budget in group.budgets), default=0)
    entries = [entry for budget in group.budgets for entry in budget.entries]
    unpruned = [Entry("unpruned", (group.unpruned,))] if group.unpruned else []
    sampled = samples(
        (entry for entry in (*unpruned, *entries) if not problem_of(entry, paired)),
        paired,
        enough_resamples(most),
    )
    by_entry = {entry.key: sample for entry, sample in sampled}
    full = by_entry.get(unpruned[0].key) if unpruned else None
    return {
        budget.retain: Ranking(
            score,
            _rank(group, budget, score, by_entry, full),
            tuple(
                Unranked(entry, _summary(entry, score), problem_of(entry, paired))
                for entry in budget.entries
                if entry.key not in by_entry
            ),
        )
        for budget in group.budgets
    }


def _summary(entry: Entry, score: Score) -> Summary | None:
    values = [value for value in map(score.value, entry.cells) if value is not None]
    return summarize(values) if values else None


def _rank(
    group: Group,
    budget: BudgetEntries,
    score: Score,
    by_entry: Mapping[CellKey, Sample],
    unpruned: Sample | None,
) -> tuple[Ranked, ...]:
    """The comparable methods of a budget from best to worst."""
    comparable = [(e, by_entry[e.key]) for e in budget.entries if e.key in by_entry]
    sign = -1 if score.higher else 1
    ordered = sorted(comparable, key=lambda pair: sign * pair[1].value)
    # If every task is at floor, a difference is one between guesses.
    guesses = len(floors(group, budget, dict(score.parts))) == len(score.parts)
    differ = _differ(ordered, guesses)
    baseline = next((place for place, (e, _) in enumerate(ordered) if e.method == RANDOM), None)
    random = None if baseline is None else ordered[baseline]
    ranked = []
    for place, ((entry, sample), (first, last)) in enumerate(
        zip(ordered, ranks(differ), strict=True)
    ):
        against = None
        if random is not None and place != baseline:
            against = _against_random(sample, random, score, bool(differ[place, baseline]))
        ranked.append(
            Ranked(
                entry=entry,
                summary=summarize(v for v in map(score.value, entry.cells) if v is not None),
                rank=first,
                last_rank=last,
                from_best=difference(sample, ordered[0][1]) if place else None,
                tied_with_best=not differ[0, place],
                same_as=tuple(
                    other.method
                    for other, _ in ordered
                    if other.masks == entry.masks and other.method != entry.method
                ),
                against_random=against,
                gap_closed=_gap_closed(sample, random, unpruned, score),
            )
        )
    return tuple(ranked)


def _differ(ordered: Sequence[tuple[Entry, Sample]], guesses: bool) -> np.ndarray:
    """Which methods are significantly different (adjusted): bool [methods, methods].

    Methods with equal masks are one model: they are tested once and count once.
    """
    masks = [entry.masks for entry, _ in ordered]
    distinct = list(dict.fromkeys(masks))
    first_of = [ordered[masks.index(each)][1] for each in distinct]
    differ = significantly_different(
        len(distinct), lambda a, b: 1.0 if guesses else p_value(first_of[a], first_of[b]), LEVEL
    )
    places = [distinct.index(each) for each in masks]
    return differ[np.ix_(places, places)]


def _against_random(
    sample: Sample, random: tuple[Entry, Sample], score: Score, significant: bool
) -> AgainstRandom:
    entry, masks = random
    figures = masks.figures.tolist()
    reversing = reversing_seeds(sample.value, figures)
    return AgainstRandom(
        difference=difference(sample, masks),
        significant=significant,
        masks_beaten=worse_seeds(sample.value, figures, score.higher),
        masks=len(figures),
        reversing_seeds=tuple(entry.cells[place].seed for place in reversing),
    )


def _gap_closed(
    sample: Sample, random: tuple[Entry, Sample] | None, unpruned: Sample | None, score: Score
) -> float | None:
    if random is None or unpruned is None:
        return None
    # A share of a gap that may not exist means nothing.
    if p_value(unpruned, random[1]) >= LEVEL:
        return None
    return gap_closed(sample.value, random[1].value, unpruned.value, score.higher)
