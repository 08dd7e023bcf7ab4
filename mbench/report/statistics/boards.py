"""The methods of every budget, ranked and compared: computed once, for the page, the tables for
papers, the terminal and the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mbench.core.results import CellKey, CellResult, Results
from mbench.report.statistics.floors import Floor, floors
from mbench.report.statistics.groups import BudgetEntries, Entry, Group, arrange
from mbench.report.statistics.pairing import Paired, pair, to_part
from mbench.report.statistics.ranking import Ranked, Ranking, rankings
from mbench.report.statistics.scores import Score, primary_score, second_score
from mbench.report.statistics.task_comparisons import TaskComparison, compare_by_task
from mbench.report.words import percent


@dataclass(frozen=True)
class Board:
    """One budget of one model."""

    id: str
    """Prefix of its anchors on the page."""
    results: Results
    group: Group
    score: Score | None
    """What its methods are ranked by; None for a suite that declares nothing to rank by."""
    budget: BudgetEntries
    ranking: Ranking | None
    """Its methods, ranked by the score."""
    by_perplexity: Ranking | None
    """Its methods, ranked by mean log perplexity where the score is something else."""
    tasks: Mapping[str, TaskComparison]
    uninformative: Mapping[str, Floor]
    """Tasks that are uninformative at this budget."""

    @property
    def retain(self) -> float:
        """The share of experts kept."""
        return self.budget.retain

    @property
    def heading(self) -> str:
        """Its heading on the page."""
        masks = (mask for entry in self.budget.entries for mask in self.masks_of(entry))
        first = next(masks, None)
        total = "" if first is None else f" of {first.shape[1]}"
        return f"{percent(self.retain)} of experts kept ({self.budget.kept}{total} per layer)"

    @property
    def where(self) -> str:
        """What it is called in captions of tables."""
        return f"{self.group.model}, {self.heading}, router {self.group.router}"

    @property
    def ranked(self) -> tuple[Ranked, ...]:
        """From best to worst; empty where there is nothing to rank by."""
        return self.ranking.ranked if self.ranking else ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The methods in the leaderboard's order."""
        if self.ranking is None:
            return self.budget.entries
        return tuple(standing.entry for standing in self.ranking.standings)

    def masks_of(self, entry: Entry) -> list[np.ndarray]:
        """The masks of a method, bool [layers, N], one per seed that has a mask."""
        keys = [(self.group.model, cell.mask) for cell in entry.cells if cell.mask]
        return [self.results.masks[key] for key in keys if key in self.results.masks]


@dataclass(frozen=True)
class GroupBoards:
    """The budgets of one model."""

    id: str
    """Prefix of its anchors on the page."""
    results: Results
    group: Group
    score: Score | None
    second_score: Score | None
    boards: tuple[Board, ...]
    incomparable: tuple[tuple[CellResult, str], ...]
    """Every cell that cannot be compared on one of the tasks, with the reason."""

    @property
    def heading(self) -> str:
        """Its heading on the page."""
        return f"{self.group.model}, router {self.group.router}"

    def ranked_by(self, score: Score) -> dict[float, tuple[Ranked, ...]]:
        """Retain ratio -> methods from best to worst by the score or by the second one."""
        rankings = [(b.retain, r) for b in self.boards for r in (b.ranking, b.by_perplexity)]
        return {retain: r.ranked for retain, r in rankings if r is not None and r.score == score}


@dataclass(frozen=True)
class RunBoards:
    """All budgets of all models of a run."""

    results: Results
    score: Score | None
    second_score: Score | None
    groups: tuple[GroupBoards, ...]


def boards(results: Results) -> RunBoards:
    """All budgets of all models, ranked by the score that the suite declares."""
    score, second = primary_score(results), second_score(results)
    groups = [
        _of_group(f"model-{number}", results, group, score, second)
        for number, group in enumerate(arrange(results), 1)
    ]
    return RunBoards(results, score, second, tuple(groups))


def _of_group(
    id: str, results: Results, group: Group, score: Score | None, second: Score | None
) -> GroupBoards:
    paired = {
        task: pair(group.cells, [to_part(task, metric)])
        for task, metric in results.task_metrics.items()
    }
    incomparable = tuple(
        (cell, on_task.problems[key])
        for on_task in paired.values()
        for key, cell in group.cells.items()
        if key in on_task.problems
    )
    by_budget = tuple(_boards(id, results, group, score, second, paired))
    return GroupBoards(id, results, group, score, second, by_budget, incomparable)


def _boards(
    id: str,
    results: Results,
    group: Group,
    score: Score | None,
    second: Score | None,
    paired: Mapping[str, Paired[CellKey]],
) -> Iterator[Board]:
    by_score = rankings(group, score) if score else {}
    by_perplexity = rankings(group, second) if second else {}
    for number, budget in enumerate(group.budgets, 1):
        uninformative = floors(group, budget, results.task_metrics)
        yield Board(
            id=f"{id}-budget-{number}",
            results=results,
            group=group,
            score=score,
            budget=budget,
            ranking=by_score.get(budget.retain),
            by_perplexity=by_perplexity.get(budget.retain),
            tasks=compare_by_task(budget, results.task_metrics, paired, uninformative),
            uninformative=uninformative,
        )
