"""Paired differences between two runs, or two methods, on the items that both have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from mbench.core.cell_results import UNPRUNED
from mbench.core.results import Results
from mbench.report.across_runs.cell_pairs import (
    Beside,
    CellPair,
    TwoRuns,
    cell_pairs,
    paired_differences,
    put_beside,
)
from mbench.report.across_runs.setting_differences import SettingDifference, deciding_differences
from mbench.report.statistics.families import Comparison as Difference
from mbench.report.statistics.families import adjusted_family
from mbench.report.statistics.floors import GUESSING, Floor, floors
from mbench.report.statistics.groups import BudgetEntries, arrange
from mbench.report.statistics.pairwise import Pairwise
from mbench.report.statistics.scores import Score, primary_score, second_score, task_score
from mbench.report.words import listing

Floors: TypeAlias = dict[tuple[str, float], dict[str, Floor]]
"""(model, retain ratio) -> floors of uninformative tasks; the unpruned model has ratio 1."""

IDENTICAL = "identical"
"""Why nothing is tested where both have the same masks and, up to rounding, outcomes."""

_Lacking: TypeAlias = tuple[str, str, str]
"""What is not compared, by which score, and why; empty where it is all, or whatever the score."""


@dataclass(frozen=True)
class Compared:
    """One score of one method at one budget, in the second run against the first."""

    model: str
    retain: float
    methods: tuple[str, str]
    seeds: tuple[int, int]
    """How many each mean is over."""
    score: str
    higher: bool
    """Whether more is better."""
    values: tuple[float, float]
    """On the items that both have."""
    items: int
    difference: Difference
    """Second minus first, with an interval that holds for its whole family at once and a p-value
    adjusted by Holm's method over it (see `Comparison.families`)."""


@dataclass(frozen=True)
class NotCompared:
    """What the runs do not have in common, or what cannot be compared, with one reason."""

    what: tuple[str, ...]
    """Methods at a budget, a model, or a task; none where it is the scores as a whole."""
    scores: tuple[str, ...]
    reason: str

    def line(self, most: int | None = None) -> str:
        """`m 50 % pruned, alpha and 12 more; Common Avg and quiz: they have other items`.

        With `most`, so many are named and the others counted.
        """
        named = self.what if most is None else self.what[:most]
        more = len(self.what) - len(named)
        what = "; ".join(named) + (f" and {more} more" if more else "")
        between = "; " if len(self.what) > 1 else ", "
        return f"{between.join(filter(None, (what, listing(self.scores))))}: {self.reason}"


@dataclass(frozen=True)
class Comparison:
    """All differences between two runs."""

    names: tuple[str, str]
    methods: tuple[str, str] | None
    """The two methods compared; None where all that both runs have is compared."""
    settings: tuple[str, ...]
    """Settings that decide figures and differ between the runs."""
    overall: tuple[str, ...]
    """Scores over several tasks."""
    compared: tuple[Compared, ...]
    not_compared: tuple[NotCompared, ...]
    """What both have but cannot be compared, and why."""

    def family(self, compared: Compared) -> str:
        """The comparisons over which its p-value is adjusted."""
        return "the overall scores" if compared.score in self.overall else "the single tasks"

    @property
    def families(self) -> dict[str, int]:
        """Family -> number of comparisons that are tested."""
        return dict(
            Counter(self.family(own) for own in self.compared if not own.difference.problem)
        )


def compare(
    first: tuple[str, Results],
    second: tuple[str, Results],
    methods: tuple[str, str] | None = None,
) -> Comparison:
    """Compare the cells that two named runs both have, each score on the items that both have.

    With `methods`, the first run's first method is compared with the second run's second one. The
    runs may differ in any setting; those that decide figures and differ are listed. The rules,
    tests and floors of a report apply: a cell that is not comparable within its run is not
    compared.

    The same method is compared seed by seed. The seeds of two methods are unrelated, so that each
    method's mean has its own error.

    Raises:
        MbenchError: the runs have no cell in common, or a method is in neither.
    """
    runs = TwoRuns((first[0], second[0]), (first[1], second[1]))
    pairs, problems = cell_pairs(runs, methods)
    settings: list[SettingDifference] = []
    if first[1] is not second[1]:
        settings = deciding_differences(dict(zip(runs.names, runs.results, strict=True)))
    overall = [s for s in (primary_score(first[1]), second_score(first[1])) if s is not None]
    tasks = [task_score(task, metric) for task, metric in runs.tasks.items()]
    floors_of_runs = [_floors(results) for results in runs.results]
    compared: list[Compared] = []
    lacking = [
        *((task, "", reason) for task, reason in _tasks_of_one_run(runs)),
        *((label, "", reason) for label, reason in problems.items()),
    ]
    for family in (overall, tasks):
        unadjusted: list[_Unadjusted] = []
        for score in family:
            if any(task not in runs.tasks for task, _ in score.parts):
                lacking.append(("", score.name, "not every task of it is in both"))
                continue
            for model in dict.fromkeys(pair.model for pair in pairs):
                of_model = [pair for pair in pairs if pair.model == model]
                results = _compare_model(score, runs, of_model, floors_of_runs)
                unadjusted += [each for each in results if isinstance(each, _Unadjusted)]
                lacking += _reasons(model, score, of_model, results)
        compared += _adjusted(unadjusted)
    return Comparison(
        names=runs.names,
        methods=methods,
        settings=tuple(map(str, settings)),
        overall=tuple(score.name for score in overall),
        compared=tuple(compared),
        not_compared=tuple(_grouped(lacking)),
    )


def _tasks_of_one_run(runs: TwoRuns) -> Iterator[tuple[str, str]]:
    for name, results in zip(runs.names, runs.results, strict=True):
        only = (task for task in results.task_metrics if task not in runs.tasks)
        yield from ((task, f"only in {name}") for task in only)


def _grouped(lacking: Sequence[_Lacking]) -> Iterator[NotCompared]:
    """What has one reason together, by what is lacking of the same scores."""
    scores: dict[tuple[str, str], list[str]] = {}
    for what, score, reason in lacking:
        scores.setdefault((reason, what), []).append(score)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (reason, what), of in scores.items():
        together.setdefault((reason, tuple(filter(None, of))), []).append(what)
    for (reason, of_scores), named in together.items():
        yield NotCompared(tuple(filter(None, named)), of_scores, reason)


def _floors(results: Results) -> Floors:
    at_floor = {}
    for group in arrange(results):
        unpruned = [BudgetEntries(1.0, group.unpruned.kept, ())] if group.unpruned else []
        for budget in (*group.budgets, *unpruned):
            at_floor[group.model, budget.retain] = floors(group, budget, results.task_metrics)
    return at_floor


@dataclass(frozen=True)
class _Unadjusted:
    """A difference [1], and why nothing is tested; empty if it is."""

    compared: Compared
    difference: Pairwise
    problem: str


def _compare_model(
    score: Score, runs: TwoRuns, pairs: Sequence[CellPair], floors_of_runs: Sequence[Floors]
) -> list[_Unadjusted | str]:
    """For each pair of one model its difference, or why it cannot be compared."""
    if any(_text(runs.results[0], task) != _text(runs.results[1], task) for task, _ in score.parts):
        # The name of a window states only where it begins, not in which text.
        return ["the runs read different texts"] * len(pairs)
    beside = put_beside(runs, pairs[0].model, score.parts)
    if isinstance(beside, str):
        return [beside] * len(pairs)
    few = next((why for stratum in beside.paired.strata if (why := stratum.too_few())), "")
    results: list[_Unadjusted | str] = []
    for pair in pairs:
        if problem := beside.problem(pair, runs.names):
            results.append(problem)
            continue
        at_floor = all(
            (floor := floors_of_run.get((pair.model, pair.retain), {}).get(task)) is not None
            # From the unpruned model to guesses is a difference, where it does not guess itself.
            and (floor.unpruned or UNPRUNED not in pair.methods)
            for task, _ in score.parts
            for floors_of_run in floors_of_runs
        )
        why = few or (GUESSING if at_floor else "")
        if beside.identical(pair):
            why = IDENTICAL
        difference = paired_differences([pair], beside)
        results.append(_Unadjusted(_compared(score, pair, beside, difference), difference, why))
    return results


def _text(results: Results, task: str) -> object:
    return results.provenance.tasks[task].text


def _compared(score: Score, pair: CellPair, beside: Beside, difference: Pairwise) -> Compared:
    """A pair whose difference is not adjusted yet."""
    return Compared(
        model=pair.model,
        retain=pair.retain,
        methods=pair.methods,
        seeds=(len(pair.cells[0]), len(pair.cells[1])),
        score=score.name,
        higher=score.higher,
        values=(beside.value(0, pair), beside.value(1, pair)),
        items=sum(stratum.units for stratum in beside.paired.strata),
        difference=Difference(float(difference.value[0])),
    )


def _reasons(
    model: str, score: Score, pairs: Sequence[CellPair], results: Sequence[_Unadjusted | str]
) -> Iterator[_Lacking]:
    """Why pairs of a model are not compared, once where the reason is the same for all."""
    reasons = [each for each in results if isinstance(each, str)]
    if len(reasons) == len(pairs) and len(set(reasons)) == 1:
        yield model, score.name, reasons[0]
        return
    for pair, result in zip(pairs, results, strict=True):
        if isinstance(result, str):
            yield pair.label, score.name, result


def _adjusted(family: Sequence[_Unadjusted]) -> Iterator[Compared]:
    asked = [each.difference for each in family if not each.problem]
    found = iter(adjusted_family("methods", Pairwise.joined(asked)) if asked else ())
    for each in family:
        if each.problem:
            untested = replace(each.compared.difference, problem=each.problem)
            yield replace(each.compared, difference=untested)
        else:
            yield replace(each.compared, difference=next(found))
