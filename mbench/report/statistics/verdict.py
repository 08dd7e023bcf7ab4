"""What a run says, in sentences: who leads, by how much, against random, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mbench.report.statistics.floors import Floor
from mbench.report.statistics.groups import RANDOM, Group, Score, Setting
from mbench.report.statistics.ranking import Standing
from mbench.report.statistics.significance import Difference
from mbench.report.words import interval, listing, percent, signed

LUCK = 0.05
"""Probability of a lucky lead over all random masks from which on it is told."""

ALWAYS_UNKNOWN = (
    "A method with one mask is one draw of its calibration text: how far another draw would move "
    "its figure was not measured."
)


@dataclass(frozen=True)
class Verdict:
    """One budget of one model."""

    model: str
    router: str
    retain: float
    leader: str | None
    """The method with the best score; None where nothing is ranked."""
    headline: str
    """Who leads, and whether it beats random pruning."""
    findings: tuple[str, ...]
    """What it is separated from, how much it recovers, and how the others stand to random."""
    caveats: tuple[str, ...]
    """What is not known, and what a different baseline would turn."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it in order."""
        return (self.headline, *self.findings, *self.caveats)


def verdict(
    group: Group,
    setting: Setting,
    score: Score | None,
    standings: Sequence[Standing],
    uninformative: Mapping[str, Floor],
) -> Verdict:
    """What one budget says, from `ranking.standings` and `floors.floors` of this budget."""
    ranked = [standing for standing in standings if standing.rank is not None]
    leader, findings, caveats = None, [], []
    if score is None:
        headline = "The suite declares neither an average nor a perplexity: nothing is ranked."
    elif not ranked:
        headline = f"No method has a complete and comparable {score.name}."
    else:
        leader = ranked[0].entry.method
        headline = _headline(ranked, score)
        findings = [_separation(ranked), *_size(ranked[0]), *_others(ranked, score)]
        caveats = [*_few_seeds(standings, ranked), *_reversals(ranked)]
    caveats += [*_floors(uninformative, score), *_unranked(standings if score else ())]
    return Verdict(
        group.model,
        group.router,
        setting.retain,
        leader,
        headline,
        tuple(findings),
        tuple(caveats),
    )


def _headline(ranked: Sequence[Standing], score: Score) -> str:
    best, value = ranked[0], f"{ranked[0].summary.mean:.3f}"
    extreme = "highest" if score.higher else "lowest"
    if best.entry.method == RANDOM:
        return f"Random pruning has the {extreme} {score.name}, {value}: no method is ahead of it."
    rivals = sum(s.tied for s in _others_than(best, ranked) if s.entry.method != RANDOM)
    tied = f", not separated from {rivals} other{'s' if rivals > 1 else ''}" if rivals else ""
    copies = f" (the same masks as {listing(best.same_as)})" if best.same_as else ""
    lead = f"{best.entry.method}{copies} leads with a {score.name} of {value}{tied}"
    found = best.from_random
    if found is None:
        return f"{lead}."
    word = "over" if score.higher else "against"
    gap = f"{_amount(found)} {word} the random mean"
    masks = _share(best.random_beaten, best.random_masks)
    if best.differs_from_random:
        return f"{lead}: {gap}, better than {masks}."
    return (
        f"{lead}, nor from the random mean: {gap}, better than {masks}."
        if tied
        else (f"{lead}, but is not separated from the random mean: {gap}, better than {masks}.")
    )


def _amount(found: Difference) -> str:
    return f"{signed(found.value)} {interval(found.low, found.high)}"


def _share(count: int, masks: int) -> str:
    if masks == 1:
        return "the only random mask" if count else "no random mask"
    whole = "both" if masks == 2 else f"all {masks}"
    return f"{whole} random masks" if count == masks else f"{count} of {masks} random masks"


def _separation(ranked: Sequence[Standing]) -> str:
    """The shorter of the two lists by name; the nearest with its distance."""
    rest = _others_than(ranked[0], ranked)
    tied = [standing.entry.method for standing in rest if standing.tied]
    others = [standing.entry.method for standing in rest if not standing.tied]
    if not rest:
        return "No other method can be compared."
    nearest = f"the nearest is {_behind(rest[0])}"
    if not others:
        return f"It is separated from no other; {nearest}."
    if not tied:
        return f"It is separated from all others; {nearest}."
    if len(others) < len(tied):
        return f"It is separated from {listing(others)} only; {nearest}."
    return f"It is separated from all others but {listing(tied)}; {nearest}."


def _others_than(best: Standing, ranked: Sequence[Standing]) -> list[Standing]:
    """The ranked methods that are not the best one under another name."""
    return [s for s in ranked if s is not best and s.entry.method not in best.same_as]


def _behind(standing: Standing) -> str:
    return f"{standing.entry.method} at {_amount(standing.from_leader)}"


def _size(best: Standing) -> Iterator[str]:
    share = best.recovered
    if best.entry.method != RANDOM and share is not None and not math.isnan(share):
        part = percent(round(share, 2))
        yield f"It recovers {part} of the gap between random pruning and the unpruned model."


def _others(ranked: Sequence[Standing], score: Score) -> Iterator[str]:
    """How all methods but the leader stand to the random mean."""
    rest = [s for s in _others_than(ranked[0], ranked) if s.from_random is not None]
    if not rest:
        return
    real = [standing for standing in rest if standing.differs_from_random]
    sign = 1 if score.higher else -1
    better = [s.entry.method for s in real if sign * s.from_random.value > 0]
    worse = [s.entry.method for s in real if sign * s.from_random.value < 0]
    unclear = [s.entry.method for s in rest if not s.differs_from_random]
    whole = [s.entry.method for s in rest] if len(rest) > 3 else []
    if not real:
        yield "No other method is separated from the random mean."
        return
    parts = [
        f"{f'all {len(rest)} others' if names == whole else listing(names)} {_is(names)} {text}"
        for names, text in ((better, "better"), (worse, "worse"))
        if names
    ]
    if unclear:
        names = listing(unclear) if len(unclear) <= len(real) else f"the other {len(unclear)}"
        parts.append(f"{names} {_is(unclear)} not separated from it")
    yield f"Against the random mean, {'; '.join(parts)}."


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _few_seeds(standings: Sequence[Standing], ranked: Sequence[Standing]) -> Iterator[str]:
    random = next((s for s in standings if s.entry.method == RANDOM), None)
    best = ranked[0]
    if random is None:
        yield "Random pruning was not run: whether any method beats it is not known."
    elif random.rank is None:
        yield "Random pruning is incomplete: whether any method beats it is not known."
    elif random.summary.count == 1:
        yield "Random pruning was run with one seed: how far random masks differ is not known."
    elif best is not random and best.random_beaten == best.random_masks:
        # Of M + S exchangeable masks the best is one of the M with probability M / (M + S).
        masks = {cell.mask for s in ranked if s is not random for cell in s.entry.cells}
        luck = len(masks) / (len(masks) + best.random_masks)
        if luck > LUCK:
            yield (
                f"If all methods drew their masks at random, the best of their {len(masks)} "
                f"different masks would still beat the {best.random_masks} of random pruning with "
                f"probability {luck:.2f}: beating so few says little."
            )


def _reversals(ranked: Sequence[Standing]) -> Iterator[str]:
    """Which methods a single seed as the baseline would put on the other side of random."""
    turned: dict[tuple[int, ...], list[str]] = {}
    for standing in ranked:
        if standing.reversing_seeds:
            turned.setdefault(standing.reversing_seeds, []).append(standing.entry.method)
    if turned:
        parts = (
            f"{listing(names)} (seed{'s' if len(seeds) > 1 else ''} {listing(map(str, seeds))})"
            for seeds, names in turned.items()
        )
        yield (
            "A single random seed as the baseline would put these on the other side of random: "
            f"{'; '.join(parts)}."
        )


def _floors(uninformative: Mapping[str, Floor], score: Score | None) -> Iterator[str]:
    full = [task for task, floor in uninformative.items() if floor.unpruned]
    pruned = [task for task, floor in uninformative.items() if not floor.unpruned]
    if full:
        yield f"Uninformative: {listing(full)}, where the unpruned model itself is at the floor."
    if pruned:
        names = listing(pruned)
        yield f"Uninformative at this budget: {names}, where no pruned model clears the floor."
    if score and uninformative and all(task in uninformative for task, _ in score.parts):
        yield f"No task of {score.name} is informative: methods are not separated."


def _unranked(standings: Sequence[Standing]) -> Iterator[str]:
    incomplete = [s.entry.method for s in standings if s.rank is None and not s.problem]
    if incomplete:
        yield f"{listing(incomplete)} {_is(incomplete)} incomplete and not ranked."
    for standing in standings:
        if standing.problem:
            yield f"{standing.entry.method} is not comparable and not ranked: {standing.problem}."


def perplexity_verdict(group: Group, score: Score, standings: Sequence[Standing]) -> str:
    """One sentence on the lowest perplexity, for suites that rank by something else."""
    ranked = [standing for standing in standings if standing.rank is not None]
    if not ranked:
        return ""
    best, rest = ranked[0], _others_than(ranked[0], ranked)
    tied = [standing.entry.method for standing in rest if standing.tied]
    text = f"{score.name} is lowest for {best.entry.method} ({best.summary.mean:.3f}"
    unpruned = score.value(group.unpruned) if group.unpruned else None
    text += f"; unpruned {unpruned:.3f})" if unpruned is not None else ")"
    if not rest:
        return f"{text}."
    if not tied:
        return f"{text}, separated from all others."
    rivals = listing(tied) if len(tied) < 4 else f"{len(tied)} others"
    return f"{text}, not separated from {rivals}."
