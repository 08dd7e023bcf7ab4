"""How the answers of generating tasks look at one budget: cut off, looping, how long.

Accuracy hides it: a model that loops once it has answered has the answer right, and one that would
have been right after more tokens has it wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mbench.core.cell_results import UNPRUNED, CellKey, CellResult
from mbench.core.evaluation import GENERATED_METRICS
from mbench.report.statistics.families import Comparison, compare_family
from mbench.report.statistics.groups import BudgetEntries, Entry, Group
from mbench.report.statistics.pairing import pair, problem_of
from mbench.report.statistics.pairwise import pairwise
from mbench.report.words import listing, percent

COMPARED = ("hit_limit", "loops")
"""Metrics that methods are compared in with the unpruned model."""

MUCH = 0.02
"""Difference of shares from which a clear one is worth a warning."""

OFTEN = 0.1
"""Share of the unpruned model's answers that are cut off from which the limit decides figures."""


@dataclass(frozen=True)
class AnswersOf:
    """The answers of one method, or of the unpruned model."""

    entry: Entry
    figures: Mapping[str, float]
    """Those of `GENERATED_METRICS` that it has, the means over its masks."""
    against: Mapping[str, Comparison]
    """Those of `COMPARED`, minus the unpruned model's; none of that one itself, nor of a method
    that is not comparable."""


@dataclass(frozen=True)
class AnswerShapes:
    """One generating task at one budget."""

    task: str
    metric: str
    """That it is ranked by."""
    rows: tuple[AnswersOf, ...]
    """The unpruned model, if it was run, then the methods in the order of the suite; those without
    a result on the task are left out."""

    @property
    def unpruned(self) -> AnswersOf | None:
        """That of the unpruned model."""
        return next((row for row in self.rows if row.entry.method == UNPRUNED), None)

    @property
    def warnings(self) -> Iterator[str]:
        """Which methods' answers loop, or are cut off, clearly more often than the unpruned
        model's."""
        full = self.unpruned
        if full is None:
            return
        for name, verb in (("loops", "end in a loop"), ("hit_limit", "are cut off at the limit")):
            worse = [row for row in self.rows if _much_worse(row, name)]
            if worse:
                worse.sort(key=lambda row: -row.figures[name])
                shares = [f"{_share(row, name)} of {row.entry.method}'s" for row in worse]
                yield (
                    f"{self.task}: {self.metric} hides that answers {verb}: {listing(shares)},"
                    f" {_share(full, name)} of the unpruned model's."
                )

    @property
    def short_limit(self) -> str:
        """Where the limit cuts off many of the unpruned model's own answers, that it does."""
        full = self.unpruned
        if full is None or full.figures["hit_limit"] <= OFTEN:
            return ""
        return (
            f"{self.task}: {_share(full, 'hit_limit')} of the unpruned model's own answers are cut"
            " off at the limit of tokens; a higher max_gen_toks may change all figures."
        )


def answer_shapes(
    group: Group, budget: BudgetEntries, tasks: Mapping[str, str]
) -> Iterator[AnswerShapes]:
    """Of every task whose answers are generated; `tasks` have their declared metrics."""
    full = group.unpruned
    every = (*([Entry(UNPRUNED, (full,))] if full else []), *budget.entries)
    for task, metric in tasks.items():
        figures = {entry.method: _figures(entry, task) for entry in every}
        entries = [entry for entry in every if figures[entry.method]]
        if not entries:
            continue
        compared = {name: _against_unpruned(entries, task, name) for name in COMPARED}
        rows = (
            AnswersOf(
                entry,
                figures[entry.method],
                {name: own[entry.method] for name, own in compared.items() if entry.method in own},
            )
            for entry in entries
        )
        yield AnswerShapes(task, metric, tuple(rows))


def _much_worse(row: AnswersOf, metric: str) -> bool:
    compared = row.against.get(metric)
    return compared is not None and compared.clear and compared.value > MUCH


def _share(row: AnswersOf, metric: str) -> str:
    return percent(round(row.figures[metric], 2))


def _figures(entry: Entry, task: str) -> dict[str, float]:
    found = {}
    for name in GENERATED_METRICS:
        summary = entry.summary(partial(CellResult.value, task=task, metric=name))
        if summary is not None:
            found[name] = summary.mean
    return found


def _against_unpruned(entries: Sequence[Entry], task: str, metric: str) -> dict[str, Comparison]:
    """Method -> its difference; methods with equal masks are one comparison of the family."""
    cells: dict[CellKey, CellResult] = {c.key: c for entry in entries for c in entry.cells}
    paired = pair(cells, [(task, metric)])
    columns = {
        entry.method: own
        for entry in entries
        if not problem_of(entry, paired)
        and (own := paired.columns_of(cell.key for cell in entry.cells)) is not None
    }
    if UNPRUNED not in columns or len(columns) < 2:
        return {}
    full = columns.pop(UNPRUNED)
    masks = {entry.method: entry.masks for entry in entries}
    first_of = {masks[method]: method for method in reversed(columns)}
    distinct = list(dict.fromkeys(first_of[masks[method]] for method in columns))
    differences = pairwise(paired.strata, [*(columns[method] for method in distinct), full])
    pairs = [(place, len(distinct)) for place in range(len(distinct))]
    found = compare_family("unpruned", differences, pairs, paired.strata[0].too_few())
    by_method = dict(zip(distinct, (found[each] for each in pairs), strict=True))
    return {method: by_method[first_of[masks[method]]] for method in columns}
