"""Who stands where at each budget, and which differences are real."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbench.report.statistics.against_random import gap_closed, reversing_seeds, worse_seeds
from mbench.report.statistics.floors import floors
from mbench.report.statistics.groups import RANDOM, Entry, Group, Score
from mbench.report.statistics.many_comparisons import ranks, significantly_different
from mbench.report.statistics.method_comparison import Sample, difference, p_value, samples
from mbench.report.statistics.pairing import cells_of, pair, problem_of
from mbench.report.statistics.resampling import enough_resamples
from mbench.report.statistics.seed_summaries import Summary, summarize
from mbench.report.statistics.significance import Difference

LEVEL = 0.05


@dataclass(frozen=True)
class Standing:
    """One method at one budget."""

    entry: Entry
    summary: Summary | None
    """The score over seeds (or of the only cell), of the cells that have one."""
    rank: int | None = None
    """The best rank it may have; None for a method that cannot be compared."""
    last_rank: int | None = None
    """The worst rank it may have."""
    from_leader: Difference | None = None
    """This method minus the best one; None for the best one itself."""
    tied: bool = False
    """Whether it is not separated from the best one, or is it."""
    from_random: Difference | None = None
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
        enough_resamples(most),
    )
    by_entry = {entry.key: sample for entry, sample in sampled}
    unpruned = by_entry.get(full[0].key) if full else None
    found = {}
    for setting in group.settings:
        comparable = [
            (entry, by_entry[entry.key]) for entry in setting.entries if entry.key in by_entry
        ]
        # Where every task is at its floor, a difference is one between guesses.
        tells = len(floors(group, setting, dict(score.parts))) < len(score.parts)
        found[setting.retain] = (
            *_rank(comparable, score, unpruned, tells),
            *(
                Standing(entry, _summary(entry, score), problem=problem_of(entry, paired))
                for entry in setting.entries
                if entry.key not in by_entry
            ),
        )
    return found


def _summary(entry: Entry, score: Score) -> Summary | None:
    values = [value for value in map(score.value, entry.cells) if value is not None]
    return summarize(values) if values else None


def _rank(
    unordered: Sequence[tuple[Entry, Sample]],
    score: Score,
    unpruned: Sample | None,
    tells: bool,
) -> Iterator[Standing]:
    sign = -1 if score.higher else 1
    ordered = sorted(unordered, key=lambda pair: sign * pair[1].value)
    entries, order = [entry for entry, _ in ordered], [sample for _, sample in ordered]
    # Copies of one mask are one model: they are tested once, and corrected for once.
    kinds = [entry.masks for entry in entries]
    distinct = list(dict.fromkeys(kinds))
    first_of = [order[kinds.index(kind)] for kind in distinct]
    differ_kinds = significantly_different(
        len(distinct), lambda a, b: p_value(first_of[a], first_of[b]) if tells else 1.0, LEVEL
    )
    at = [distinct.index(kind) for kind in kinds]
    differ = differ_kinds[np.ix_(at, at)]
    random = next((place for place, entry in enumerate(entries) if entry.method == RANDOM), None)
    for place, ((entry, sample), (first, last)) in enumerate(
        zip(ordered, ranks(differ), strict=True)
    ):
        against: dict[str, Any] = {}
        if random is not None:
            against = _against_random(sample, ordered[random], score, unpruned)
            against["differs_from_random"] = bool(differ[place, random])
        yield Standing(
            entry=entry,
            summary=_summary(entry, score),
            rank=first,
            last_rank=last,
            from_leader=difference(sample, order[0]) if place else None,
            tied=not differ[0, place],
            same_as=tuple(
                other.method
                for at, other in enumerate(entries)
                if kinds[at] == kinds[place] and at != place
            ),
            **against,
        )


def _against_random(
    sample: Sample,
    random_pruning: tuple[Entry, Sample],
    score: Score,
    unpruned: Sample | None,
) -> dict[str, Any]:
    """The fields of a standing that tell of random pruning."""
    found: dict[str, Any] = {}
    random_entry, random = random_pruning
    # A share of a gap that may not be there says nothing.
    if unpruned is not None and p_value(unpruned, random) < LEVEL:
        share = gap_closed(sample.value, random.value, unpruned.value, score.higher)
        found["recovered"] = share
    if sample is random:
        return found
    seeds = random.figures
    reversing = reversing_seeds(sample.value, seeds)
    return found | {
        "from_random": difference(sample, random),
        "random_beaten": worse_seeds(sample.value, seeds, score.higher),
        "random_masks": len(seeds),
        "reversing_seeds": tuple(random_entry.cells[place].seed for place in reversing),
    }
