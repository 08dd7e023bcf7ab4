"""The answers to a reader's three questions about a budget, one per family of comparisons.

Which is best? Did pruning hurt? Better than random? The last two are asked of the methods that are
tied for best. The page, the terminal, the tables for papers and verdict.json give these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from mbench.core.cell_results import UNPRUNED
from mbench.report.statistics.families import Comparison, FamilyName
from mbench.report.statistics.groups import RANDOM
from mbench.report.statistics.inference import NOISE
from mbench.report.statistics.ranking import Ranked, Ranking
from mbench.report.words import bounds, difference, listing, score_text

Kind = Literal["win", "up", "down", "tie", "none", "unknown"]
"""What a chip says beside its words: a clear win, better, worse, tied, no difference seen, cannot
tell."""

EARLY = "early"
"""Beside answers of which some figures are estimated from some of the items."""

BEST, HURT, GAIN = "Which is best?", "Did pruning hurt?", "Better than random?"

MASKS_FOR_FIVE_PERCENT = 19
"""Random masks that a method must all beat before it is among the best 5 % of such masks: of S + 1
exchangeable masks each is the best with probability 1 / (S + 1)."""


@dataclass(frozen=True)
class Answer:
    """One question at one budget."""

    question: str
    kind: Kind
    chip: str
    """In a few words: `yes, all 6`, `6 of 9 tied`, `all tied among 3 of 9`, `cannot tell`."""
    why: str = ""
    """Why it cannot be told; empty otherwise."""
    name: str = ""
    """The best method where it is told apart from all others."""
    figures: tuple[float, float] | None = None
    """Lowest and highest score, or difference, of the methods it is about."""
    interval: tuple[float, float] | None = None
    """From the lowest to the highest bound of their simultaneous intervals."""
    note: str = ""
    """`highest: reap-code`, or what limits the answer: `6 have no figures yet`."""

    @property
    def figures_text(self) -> str:
        """`0.511 to 0.533`; signed for differences."""
        write = score_text if self.question == BEST else difference
        figures = [write(figure) for figure in self.figures or ()]
        return " to ".join(dict.fromkeys(figures))

    @property
    def interval_text(self) -> str:
        """`[−0.111, −0.034]`; empty without one."""
        return bounds(*self.interval) if self.interval else ""


def answers(ranking: Ranking) -> tuple[Answer, Answer, Answer]:
    """The three answers, in the order of the page."""
    pairs = [(a.label, b.label) for a, b in combinations(ranking.ranked, 2)]
    if ranking.winner is not None:
        pairs.append((ranking.winner.label, RANDOM))
    return (
        _marked(_best(ranking), pairs, ranking),
        _marked(_against(ranking, HURT), [(row.label, UNPRUNED) for row in ranking.tied], ranking),
        _marked(_against(ranking, GAIN), [(row.label, RANDOM) for row in ranking.tied], ranking),
    )


def _marked(answer: Answer, rests_on: Sequence[tuple[str, str]], ranking: Ranking) -> Answer:
    """With a word beside it where some of the comparisons that it rests on are early."""
    compared = (ranking.compare(*labels) for labels in rests_on)
    if answer.kind == "unknown" or not any(own is not None and own.early for own in compared):
        return answer
    return replace(answer, note=_joined(answer.note, EARLY))


def _best(ranking: Ranking) -> Answer:
    rows = ranking.ranked
    if not rows:
        return Answer(BEST, "unknown", "cannot tell", f"no method has a {ranking.score.name}")
    group = ranking.tied
    scores = [row.summary.mean for row in group]
    figures = (min(scores), max(scores))
    extreme = "highest" if ranking.score.higher else "lowest"
    without = _without_figures(ranking)
    note = _joined(without, f"{extreme}: {listing(_at_the_top(rows))}")
    if why := ranking.untested.get("methods", ""):
        return Answer(BEST, "unknown", "cannot tell", why, figures=figures, note=note)
    if len(rows) == 1:
        chip = f"one method of {_asked(ranking)}" if without else "one method"
        return Answer(BEST, "none", chip, figures=figures, note=_joined(without, rows[0].label))
    compared = [ranking.compare(a.label, b.label) for a, b in combinations(rows, 2)]
    untold = [own.problem for own in compared if own is not None]
    if untold and all(untold):
        return Answer(BEST, "unknown", "cannot tell", untold[0], figures=figures, note=note)
    if ranking.winner is not None:
        against = _not_above_random(ranking, ranking.winner)
        note, name = _joined(without, against), ranking.winner.label
        kind: Kind = "none" if without or against else "win"
        chip = _won(ranking, alone=not against)
        return Answer(BEST, kind, chip, name=name, figures=figures, note=note)
    kind = "none" if without else "tie"
    return Answer(BEST, kind, _tied(ranking), figures=figures, note=note)


def _won(ranking: Ranking, *, alone: bool) -> str:
    """A win among the methods that have figures; `alone`: also over random pruning."""
    if among := _among(ranking):
        return f"{'clear win' if alone else 'best'}{among}"
    return "clear win" if alone else f"best of {_count(ranking.ranked)}"


def _tied(ranking: Ranking) -> str:
    tied, methods, among = _count(ranking.tied), _count(ranking.ranked), _among(ranking)
    if tied == methods:
        return f"all tied{among}" if among else f"{_all(methods)} tied"
    return f"{tied} tied{among}" if among else f"{tied} of {methods} tied"


def _among(ranking: Ranking) -> str:
    """Where methods have no figures, of how many an answer is."""
    if not ranking.lacking:
        return ""
    return f" among {_count(ranking.ranked)} of {_asked(ranking)}"


def _asked(ranking: Ranking) -> int:
    return _count(ranking.ranked) + len(ranking.lacking)


def _without_figures(ranking: Ranking) -> str:
    """`6 have no figures yet`; empty where every method has a place."""
    lacking = ranking.lacking
    if not lacking:
        return ""
    have = "1 has" if len(lacking) == 1 else f"{len(lacking)} have"
    what = "comparable figures" if any(own.problem for own in lacking) else "figures"
    tasks = [task for task, _ in ranking.score.parts]
    states = {c.task_status(t).status for own in lacking for c in own.entry.cells for t in tasks}
    return f"{have} no {what}" + " yet" * bool(states & {"interrupted", "pending"})


def _not_above_random(ranking: Ranking, best: Ranked) -> str:
    """What random pruning takes from a win; empty if nothing, or where that cannot be told."""
    compared = ranking.compare(best.label, RANDOM)
    if compared is None or compared.problem:
        return ""
    if not compared.clear:
        return "not told apart from random pruning"
    above = (compared.value > 0) == ranking.score.higher
    return "" if above else "worse than random pruning"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _all(methods: int) -> str:
    return "both" if methods == 2 else f"all {methods}"


def _at_the_top(rows: Sequence[Ranked]) -> list[str]:
    """The rows with the best score: several where it is equal but for rounding."""
    best = rows[0].summary.mean
    return [row.label for row in rows if abs(row.summary.mean - best) <= NOISE]


def _count(rows: Sequence[Ranked]) -> int:
    return sum(len(row.names) for row in rows)


def _against(ranking: Ranking, question: str) -> Answer:
    """The tied methods against the unpruned model or against random pruning."""
    family: FamilyName = "unpruned" if question == HURT else "random"
    reference = UNPRUNED if family == "unpruned" else RANDOM
    group = ranking.tied
    compared = [ranking.compare(row.label, reference) for row in group]
    present = [comparison for comparison in compared if comparison is not None]
    figures = None
    if present:
        figures = (min(c.value for c in present), max(c.value for c in present))
    why = ranking.untested.get(family, "" if present else "nothing to compare")
    if why:
        return Answer(question, "unknown", "cannot tell", why, figures=figures)
    if untold := next((c.problem for c in present if c.problem), ""):
        return Answer(question, "unknown", "cannot tell", untold, figures=figures)
    interval = (min(c.low for c in present), max(c.high for c in present))
    kind, chip, told = _verdict(ranking, family, list(zip(group, present, strict=True)))
    note = "" if len(told) in (0, len(group)) else _some(told)
    masks = len(ranking.random.figures) if ranking.random else 0
    if family == "random" and masks < MASKS_FOR_FIVE_PERCENT:
        note = _joined(note, f"mean of {masks} masks")
    return Answer(question, kind, chip, figures=figures, interval=interval, note=note)


def _verdict(
    ranking: Ranking, family: FamilyName, compared: Sequence[tuple[Ranked, Comparison]]
) -> tuple[Kind, str, list[Ranked]]:
    """In a word or two, and the rows of which it is true."""
    sign = 1 if ranking.score.higher else -1
    better = [row for row, c in compared if c.clear and sign * c.value > 0]
    worse = [row for row, c in compared if c.clear and sign * c.value < 0]
    methods = _count([row for row, _ in compared])
    expected, other = (worse, better) if family == "unpruned" else (better, worse)
    kind: Kind = "down" if family == "unpruned" else "up"
    if expected:
        if len(expected) == len(compared):
            return kind, "yes" if methods == 1 else f"yes, {_all(methods)}", expected
        return kind, f"yes, {_count(expected)} of {methods}", expected
    if other:
        opposite: Kind = "up" if family == "unpruned" else "down"
        word = "better" if family == "unpruned" else "worse"
        return opposite, f"{word}, {_count(other)} of {methods}" if methods > 1 else word, other
    return "none", "no loss seen" if family == "unpruned" else "no gain seen", []


def _some(rows: Sequence[Ranked], most: int = 2) -> str:
    """Of which methods a partial answer is true; of many, the first."""
    more = _count(rows[most:])
    return listing([*(row.label for row in rows[:most]), *([f"{more} more"] if more else [])])
