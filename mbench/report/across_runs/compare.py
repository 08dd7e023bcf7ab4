"""Two runs, or two methods, on the same items: paired differences of whatever both have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import Results
from mbench.report.across_runs.cell_pairs import (
    CellPair,
    cell_pairs,
    paired_samples,
    put_beside,
)
from mbench.report.across_runs.differences import deciding_differences
from mbench.report.statistics.floors import floors
from mbench.report.statistics.groups import BudgetEntries, arrange
from mbench.report.statistics.many_comparisons import holm
from mbench.report.statistics.method_comparison import difference, p_value
from mbench.report.statistics.ranking import LEVEL
from mbench.report.statistics.resampling import enough_resamples
from mbench.report.statistics.scores import Score, primary_score, second_score
from mbench.report.statistics.significance import Difference


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
    """Second minus first."""
    p: float
    """Corrected by Holm's method over its family (see `Comparison.families`); 1 at the floor."""
    separated: bool
    at_floor: bool
    """Whether both runs are at the floor of every task of the score at this budget."""


@dataclass(frozen=True)
class Comparison:
    """All that two runs say about one another."""

    names: tuple[str, str]
    methods: tuple[str, str] | None
    """Where two methods are compared, and not all that both runs have."""
    settings: tuple[str, ...]
    """What differs between the runs and decides figures."""
    overall: tuple[str, ...]
    """Scores over several tasks."""
    found: tuple[Compared, ...]
    left: tuple[str, ...]
    """What both have and yet cannot be compared, and why."""

    def family(self, one: Compared) -> str:
        """The comparisons that Holm's method corrects over at once with this one."""
        return "the overall scores" if one.score in self.overall else "the single tasks"

    @property
    def families(self) -> dict[str, int]:
        """Family -> its comparisons."""
        return dict(Counter(map(self.family, self.found)))


def compare(
    first: tuple[str, Results],
    second: tuple[str, Results],
    methods: tuple[str, str] | None = None,
) -> Comparison:
    """Compare the cells that two named runs both have, each score on the items that both have.

    With `methods`, the first run's first method is compared with the second run's second one. The
    two runs may differ in any setting, which is what one compares them for; it is told which.
    Within each run the report's rules hold: a cell that cannot stand beside the others of its own
    run is not compared. Tests and floors are the report's too.

    Seeds of one method are compared seed by seed; two methods' seeds have nothing to do with one
    another, so each method's mean has its own error.

    Raises:
        MbenchError: the runs have no cell in common, or a method is in neither.
    """
    names, runs = (first[0], second[0]), (first[1], second[1])
    left = [
        f"{task}: only in {names[index]}"
        for index in (0, 1)
        for task in runs[index].task_metrics
        if task not in runs[1 - index].task_metrics
    ]
    pairs = list(cell_pairs(names, runs, methods, left))
    differ = []
    if runs[0] is not runs[1]:
        differ = deciding_differences(dict(zip(names, runs, strict=True)))
    overall = [score for score in (primary_score(runs[0]), second_score(runs[0])) if score]
    shared = {t: m for t, m in runs[0].task_metrics.items() if t in runs[1].task_metrics}
    tasks = [_task_score(task, metric) for task, metric in shared.items()]
    resamples = enough_resamples(len(pairs) * max(len(overall), len(tasks)))
    families: list[list[Compared]] = []
    uninformative = [_floors(results) for results in runs]
    for family in (overall, tasks):
        found = []
        for score in family:
            if any(task not in shared for task, _ in score.parts):
                left.append(f"{score.name}: not every task of it is in both")
                continue
            for model in dict.fromkeys(each.model for each in pairs):
                own = [each for each in pairs if each.model == model]
                problems: dict[str, str] = {}
                for each, result in _compared(own, names, runs, score, resamples):
                    if isinstance(result, str):
                        problems[each.label] = result
                        continue
                    if all(
                        task in at_floor.get((model, each.retain), ())
                        for task, _ in score.parts
                        for at_floor in uninformative
                    ):
                        result = replace(result, p=1.0, at_floor=True)
                    found.append(result)
                left += _told(model, score, problems, len(own))
        families.append(list(_corrected(found)))
    return Comparison(
        names=names,
        methods=methods,
        settings=tuple(map(str, differ)),
        overall=tuple(score.name for score in overall),
        found=tuple(one for found in families for one in found),
        left=tuple(left),
    )


def _task_score(task: str, metric: str) -> Score:
    """One task's declared metric as a score of its own; of a perplexity, its logarithm."""
    if metric in LOWER_IS_BETTER:
        return Score(f"{task}, log perplexity", ((task, "mean_nll"),), higher=False)
    return Score(task, ((task, metric),), higher=True)


def _floors(results: Results) -> dict[tuple[str, float], frozenset[str]]:
    """(model, retain ratio) -> tasks that tell nothing there, the unpruned model's included."""
    found = {}
    for group in arrange(results):
        whole = [BudgetEntries(1.0, group.unpruned.kept, ())] if group.unpruned else []
        for budget in (*group.budgets, *whole):
            tasks = floors(group, budget, results.task_metrics)
            found[group.model, budget.retain] = frozenset(tasks)
    return found


def _told(model: str, score: Score, problems: Mapping[str, str], pairs: int) -> Iterator[str]:
    """Why pairs are not compared: in one line where it is the same for all."""
    if len(problems) == pairs and len(set(problems.values())) == 1:
        yield f"{model}, {score.name}: {next(iter(problems.values()))}"
        return
    yield from (f"{label}, {score.name}: {text}" for label, text in problems.items())


def _compared(
    pairs: Sequence[CellPair],
    names: tuple[str, str],
    runs: tuple[Results, Results],
    score: Score,
    resamples: int,
) -> Iterator[tuple[CellPair, Compared | str]]:
    """All pairs of one model by one score, or why one cannot be."""
    texts = [_text(runs, task) for task, _ in score.parts]
    if any(one != other for one, other in texts):
        # The name of a text's window tells only where it begins.
        yield from ((each, "the runs read different texts") for each in pairs)
        return
    beside = put_beside(runs, pairs[0].model, score.parts)
    if isinstance(beside, str):
        yield from ((each, beside) for each in pairs)
        return
    problems = [beside.problem(each, names) for each in pairs]
    fine = [each for each, problem in zip(pairs, problems, strict=True) if not problem]
    sampled = iter(paired_samples(fine, beside, resamples))
    for each, problem in zip(pairs, problems, strict=True):
        if problem:
            yield each, problem
            continue
        one, other = next(sampled)
        yield (
            each,
            Compared(
                model=each.model,
                retain=each.retain,
                methods=each.methods,
                seeds=(len(each.cells[0]), len(each.cells[1])),
                score=score.name,
                higher=score.higher,
                values=(beside.value(0, each), beside.value(1, each)),
                items=beside.paired.items,
                difference=difference(other, one),
                p=p_value(other, one),
                separated=False,
                at_floor=False,
            ),
        )


def _text(runs: tuple[Results, Results], task: str) -> tuple[object, object]:
    first, second = (results.provenance.tasks[task].text for results in runs)
    return first, second


def _corrected(family: Sequence[Compared]) -> Iterator[Compared]:
    for one, p in zip(family, holm([one.p for one in family]), strict=True):
        yield replace(one, p=float(p), separated=bool(p < LEVEL))
