"""The verdict on a budget, in sentences: who leads, by how much, against random pruning, and what
is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mbench.report.statistics.boards import Board
from mbench.report.statistics.floors import Floor
from mbench.report.statistics.groups import RANDOM, Group
from mbench.report.statistics.ranking import AgainstRandom, Ranked, Ranking, Unranked
from mbench.report.statistics.scores import Score
from mbench.report.statistics.significance import Difference
from mbench.report.words import interval, listing, percent, signed

LUCK = 0.05
"""From this probability on, that of beating all random masks by luck is stated."""

ALWAYS_UNKNOWN = (
    "A method with a single mask was calibrated on a single sample of text: how much its figure "
    "would change with another sample was not measured."
)


@dataclass(frozen=True)
class Verdict:
    """One budget of one model."""

    leader: str | None
    """The method with the best score; None where nothing is ranked."""
    headline: str
    """Who leads, and whether it beats random pruning."""
    findings: tuple[str, ...]
    """Which methods it is significantly different from, how much of the gap it closes, and how
    the others compare with random pruning."""
    caveats: tuple[str, ...]
    """What is not known, and what depends on a single random seed."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it in order."""
        return (self.headline, *self.findings, *self.caveats)


def verdict(board: Board) -> Verdict:
    """The sentences on one budget."""
    ranking, score = board.ranking, board.score
    leader: str | None = None
    findings: list[str] = []
    caveats: list[str] = []
    if ranking is None:
        headline = "The suite declares neither an average nor a perplexity: nothing is ranked."
    elif not ranking.ranked:
        headline = f"No method has a complete and comparable {ranking.score.name}."
    else:
        leader = ranking.ranked[0].entry.method
        headline = _headline(ranking)
        findings = [_differences(ranking.ranked), *_gap_closed(ranking.ranked[0])]
        findings += _others(ranking)
        caveats = [*_few_seeds(ranking), *_reversals(ranking.ranked)]
    if board.by_perplexity is not None:
        findings += _perplexity(board.group, board.by_perplexity)
    caveats += _floors(board.uninformative, score)
    caveats += _unranked(ranking.unranked if ranking else ())
    caveats += _few_items(board)
    return Verdict(leader, headline, tuple(findings), tuple(caveats))


def _headline(ranking: Ranking) -> str:
    score, best = ranking.score, ranking.ranked[0]
    value = f"{best.summary.mean:.3f}"
    extreme = "highest" if score.higher else "lowest"
    if best.entry.method == RANDOM:
        return f"Random pruning has the {extreme} {score.name}, {value}: no method is ahead of it."
    others = _others_than(best, ranking.ranked)
    rivals = sum(s.tied_with_best for s in others if s.entry.method != RANDOM)
    tied = f"{rivals} other{'s' if rivals > 1 else ''}" if rivals else ""
    copies = f" (the same masks as {listing(best.same_as)})" if best.same_as else ""
    lead = f"{best.entry.method}{copies} leads with a {score.name} of {value}"
    against = best.against_random
    unclear = [tied] if tied else []
    if against is not None and not against.significant:
        unclear.append("the random mean")
    if unclear:
        lead += f", not significantly different from {' or from '.join(unclear)}"
    if against is None:
        return f"{lead}."
    word = "over" if score.higher else "against"
    gap = f"{_amount(against.difference)} {word} the random mean"
    return f"{lead}: {gap}, better than {_share(against)}."


def _amount(difference: Difference) -> str:
    return f"{signed(difference.value)} {interval(difference.low, difference.high)}"


def _share(against: AgainstRandom) -> str:
    beaten, masks = against.masks_beaten, against.masks
    if masks == 1:
        return "the only random mask" if beaten else "no random mask"
    whole = "both" if masks == 2 else f"all {masks}"
    return f"{whole} random masks" if beaten == masks else f"{beaten} of {masks} random masks"


def _differences(ranked: Sequence[Ranked]) -> str:
    """Which methods the best one is significantly different from, by the shorter list; and how far
    the next one is."""
    rest = _others_than(ranked[0], ranked)
    tied = [standing.entry.method for standing in rest if standing.tied_with_best]
    others = [standing.entry.method for standing in rest if not standing.tied_with_best]
    if not rest or rest[0].from_best is None:
        return "No other method can be compared."
    if not others:
        names = "no other"
    elif not tied:
        names = "all others"
    elif len(others) < len(tied):
        names = f"{listing(others)} only"
    else:
        names = f"all others but {listing(tied)}"
    second = f"the second is {rest[0].entry.method} at {_amount(rest[0].from_best)}"
    return f"It is significantly different from {names}; {second}."


def _others_than(best: Ranked, ranked: Sequence[Ranked]) -> list[Ranked]:
    """The ranked methods that are not the best one under another name."""
    return [s for s in ranked if s is not best and s.entry.method not in best.same_as]


def _gap_closed(best: Ranked) -> Iterator[str]:
    share = best.gap_closed
    if best.entry.method != RANDOM and share is not None and not math.isnan(share):
        part = percent(round(share, 2))
        yield f"It closes {part} of the gap between random pruning and the unpruned model."


def _others(ranking: Ranking) -> Iterator[str]:
    """How all methods but the leader compare with the random mean."""
    rest = [
        (standing.entry.method, standing.against_random)
        for standing in _others_than(ranking.ranked[0], ranking.ranked)
        if standing.against_random is not None
    ]
    if not rest:
        return
    sign = 1 if ranking.score.higher else -1
    real = [(method, sign * a.difference.value) for method, a in rest if a.significant]
    better = [method for method, gain in real if gain > 0]
    worse = [method for method, gain in real if gain < 0]
    unclear = [method for method, against in rest if not against.significant]
    if not real:
        yield "No other method is significantly different from the random mean."
        return
    whole = [method for method, _ in rest] if len(rest) > 3 else []
    parts = [
        f"{f'all {len(rest)} others' if names == whole else listing(names)} {_is(names)}"
        f" significantly {word}"
        for names, word in ((better, "better"), (worse, "worse"))
        if names
    ]
    if unclear:
        names = listing(unclear) if len(unclear) <= len(real) else f"the other {len(unclear)}"
        parts.append(f"{names} {_is(unclear)} not significantly different")
    yield f"Compared with the random mean, {'; '.join(parts)}."


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _few_seeds(ranking: Ranking) -> Iterator[str]:
    random = next((s for s in ranking.standings if s.entry.method == RANDOM), None)
    best = ranking.ranked[0]
    if random is None:
        yield "Random pruning was not run: whether any method beats it is not known."
    elif isinstance(random, Unranked):
        yield "Random pruning is incomplete: whether any method beats it is not known."
    elif random.summary.count == 1:
        yield "Random pruning was run with one seed: how far random masks differ is not known."
    elif best.against_random and best.against_random.masks_beaten == best.against_random.masks:
        # Of M + S exchangeable masks the best is one of the M with probability M / (M + S).
        masks = {c.mask for s in ranking.ranked if s is not random for c in s.entry.cells}
        seeds = best.against_random.masks
        luck = len(masks) / (len(masks) + seeds)
        if luck > LUCK:
            yield (
                f"If all methods drew their masks at random, the best of their {len(masks)} "
                f"different masks would still beat all {seeds} of random pruning with "
                f"probability {luck:.2f}: beating so few is weak evidence."
            )


def _reversals(ranked: Sequence[Ranked]) -> Iterator[str]:
    """Which methods would be on the other side of random if one of its seeds were the baseline."""
    turned: dict[tuple[int | None, ...], list[str]] = {}
    for standing in ranked:
        if standing.against_random and standing.against_random.reversing_seeds:
            seeds = standing.against_random.reversing_seeds
            turned.setdefault(seeds, []).append(standing.entry.method)
    if turned:
        parts = (
            f"{listing(names)} (seed{'s' if len(seeds) > 1 else ''} {listing(map(str, seeds))})"
            for seeds, names in turned.items()
        )
        yield (
            "With a single random seed as the baseline, the sign of the difference to random would "
            f"change for {'; '.join(parts)}."
        )


def _perplexity(group: Group, ranking: Ranking) -> Iterator[str]:
    """One sentence on the lowest perplexity, for suites that rank by something else."""
    if not ranking.ranked:
        return
    score, best = ranking.score, ranking.ranked[0]
    rest = _others_than(best, ranking.ranked)
    tied = [standing.entry.method for standing in rest if standing.tied_with_best]
    text = f"{score.name} is lowest for {best.entry.method} ({best.summary.mean:.3f}"
    unpruned = score.value(group.unpruned) if group.unpruned else None
    text += f"; unpruned {unpruned:.3f})" if unpruned is not None else ")"
    if not rest:
        yield f"{text}."
    elif not tied:
        yield f"{text}, significantly different from all others."
    else:
        rivals = listing(tied) if len(tied) < 4 else f"{len(tied)} others"
        yield f"{text}, not significantly different from {rivals}."


def _floors(uninformative: Mapping[str, Floor], score: Score | None) -> Iterator[str]:
    full = [task for task, floor in uninformative.items() if floor.unpruned]
    pruned = [task for task, floor in uninformative.items() if not floor.unpruned]
    if full:
        names = listing(full)
        yield f"Uninformative: {names}, where even the unpruned model is no better than guessing."
    if pruned:
        names = listing(pruned)
        yield (
            f"Uninformative at this budget: {names}, where no pruned model is better than guessing."
        )
    if score and uninformative and all(task in uninformative for task, _ in score.parts):
        yield f"No task of {score.name} is informative: no difference counts as significant."


def _unranked(standings: Sequence[Unranked]) -> Iterator[str]:
    incomplete = [s.entry.method for s in standings if not s.problem]
    if incomplete:
        yield f"{listing(incomplete)} {_is(incomplete)} incomplete and not ranked."
    for standing in standings:
        if standing.problem:
            yield f"{standing.entry.method} is not comparable and not ranked: {standing.problem}."


def _few_items(board: Board) -> Iterator[str]:
    few = [task for task, compared in board.tasks.items() if not compared.enough]
    if few:
        names = listing(few)
        yield f"Too few items or blocks of windows for any difference to be significant: {names}."
