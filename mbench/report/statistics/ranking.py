"""Who stands where at each budget, and which differences are real."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbench.report.statistics import stats
from mbench.report.statistics.floors import floors
from mbench.report.statistics.groups import RANDOM, Entry, Group, Score
from mbench.report.statistics.pairing import cells_of, pair, problem_of
from mbench.report.statistics.samples import Sample, difference, p_value, samples

LEVEL = 0.05


@dataclass(frozen=True)
class Standing:
    """One method at one budget."""

    entry: Entry
    summary: stats.Summary | None
    """The score over seeds (or of the only cell), of the cells that have one."""
    rank: int | None = None
    """The best rank it may have; None for a method that cannot be compared."""
    last_rank: int | None = None
    """The worst rank it may have."""
    from_leader: stats.Difference | None = None
    """This method minus the best one; None for the best one itself."""
    tied: bool = False
    """Whether it is not separated from the best one, or is it."""
    from_random: stats.Difference | None = None
    differs_from_random: bool = False
    """Whether it is separated from the mean of random pruning."""
    recovered: float | None = None
    """None where the unpruned model is not separated from random pruning."""
    random_beaten: int | None = None
    """How many random masks it is better than."""
    random_masks: int = 0
    reversing_seeds: tuple[int, ...] = ()
    """Seeds of random pruning against which alone it would be on the other side of random."""
    same_as: tuple[str, ...] = ()
    """Other methods with the same masks, which are the same model under another name."""
    problem: str = ""
    """Why it is complete and yet cannot be compared."""


def leaders(ranked: Sequence[Standing]) -> tuple[str, ...]:
    """The best method and those that are not separated from it; empty if none is ranked."""
    return tuple(s.entry.method for s in ranked if s.rank is not None and s.tied)


def winner(ranked: Sequence[Standing]) -> str | None:
    """The method that is separated from all others but copies of itself, if there are others."""
    best = [standing for standing in ranked if standing.rank is not None and standing.tied]
    others = sum(standing.rank is not None for standing in ranked) - len(best)
    alone = all(s.entry.method in best[0].same_as for s in best[1:])
    return best[0].entry.method if best and others > 0 and alone else None


def standings(group: Group, score: Score) -> dict[float, tuple[Standing, ...]]:
    """Retain ratio -> methods from best to worst, then those that cannot be ranked."""
    paired = pair(cells_of(group), score.parts)
    most = max((math.comb(len(setting.entries), 2) for setting in group.settings), default=0)
    entries = [entry for setting in group.settings for entry in setting.entries]
    full = [Entry("unpruned", (group.unpruned,))] if group.unpruned else []
    sampled = samples(
        (entry for entry in (*full, *entries) if not problem_of(entry, paired)),
        paired,
        stats.enough_resamples(most),
    )
    by_entry = {id(sample.entry): sample for sample in sampled}
    unpruned = by_entry.get(id(full[0])) if full else None
    found = {}
    for setting in group.settings:
        own = [by_entry[id(entry)] for entry in setting.entries if id(entry) in by_entry]
        # Where every task is at its floor, a difference is one between guesses.
        tells = len(floors(group, setting, dict(score.parts))) < len(score.parts)
        found[setting.retain] = (
            *_rank(own, score, unpruned, tells),
            *(
                Standing(entry, _summary(entry, score), problem=problem_of(entry, paired))
                for entry in setting.entries
                if id(entry) not in by_entry
            ),
        )
    return found


def _summary(entry: Entry, score: Score) -> stats.Summary | None:
    values = [value for value in map(score.value, entry.cells) if value is not None]
    return stats.summarize(values) if values else None


def _rank(
    unordered: Sequence[Sample], score: Score, unpruned: Sample | None, tells: bool
) -> Iterator[Standing]:
    sign = -1 if score.higher else 1
    order = sorted(unordered, key=lambda sample: sign * sample.value)
    # Copies of one mask are one model: they are tested once, and corrected for once.
    kinds = [sample.entry.masks for sample in order]
    distinct = list(dict.fromkeys(kinds))
    first_of = [order[kinds.index(kind)] for kind in distinct]
    differ_kinds = stats.separated(
        len(distinct), lambda a, b: p_value(first_of[a], first_of[b]) if tells else 1.0, LEVEL
    )
    at = [distinct.index(kind) for kind in kinds]
    differ = differ_kinds[np.ix_(at, at)]
    random = next((place for place, s in enumerate(order) if s.entry.method == RANDOM), None)
    for place, (sample, (first, last)) in enumerate(zip(order, stats.ranks(differ), strict=True)):
        against: dict[str, Any] = {}
        if random is not None:
            against = _against_random(sample, order[random], score, unpruned)
            against["differs_from_random"] = bool(differ[place, random])
        yield Standing(
            entry=sample.entry,
            summary=_summary(sample.entry, score),
            rank=first,
            last_rank=last,
            from_leader=difference(sample, order[0]) if place else None,
            tied=not differ[0, place],
            same_as=tuple(
                other.entry.method
                for other, kind in zip(order, kinds, strict=True)
                if kind == kinds[place] and other is not sample
            ),
            **against,
        )


def _against_random(
    sample: Sample, random: Sample, score: Score, unpruned: Sample | None
) -> dict[str, Any]:
    """The fields of a standing that tell of random pruning."""
    found: dict[str, Any] = {}
    # A share of a gap that may not be there says nothing.
    if unpruned is not None and p_value(unpruned, random) < LEVEL:
        share = stats.recovered(sample.value, random.value, unpruned.value, score.higher)
        found["recovered"] = share
    if sample is random:
        return found
    seeds = random.figures
    reversing = stats.reversing(sample.value, seeds)
    return found | {
        "from_random": difference(sample, random),
        "random_beaten": stats.beaten(sample.value, seeds, score.higher),
        "random_masks": len(seeds),
        "reversing_seeds": tuple(random.entry.cells[place].seed for place in reversing),
    }
