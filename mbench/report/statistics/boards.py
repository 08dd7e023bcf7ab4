"""The methods of every budget, ranked and compared: computed once, for the page, the tables for
papers, the terminal and the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mbench.core.cell_results import CellKey, CellResult, LeftOut
from mbench.core.results import Results
from mbench.report.statistics.answer_shapes import AnswerShapes, answer_shapes
from mbench.report.statistics.equal_bytes import EqualBytes, equal_bytes
from mbench.report.statistics.floors import Floor, floors
from mbench.report.statistics.groups import BudgetEntries, Entry, Group, arrange
from mbench.report.statistics.mask_facts import MaskFacts, mask_facts
from mbench.report.statistics.pairing import Paired, Part, join, pair, to_part
from mbench.report.statistics.published import published_marks
from mbench.report.statistics.ranking import Ranked, Ranking, Reference, rankings
from mbench.report.statistics.scores import Score, primary_score, second_score, task_score
from mbench.report.words import pruned


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
    by_task: Mapping[str, Ranking]
    """Task -> its methods, ranked by the task's declared metric alone; of a perplexity, by its
    logarithm."""
    uninformative: Mapping[str, Floor]
    """Tasks that are uninformative at this budget."""
    answers: tuple[AnswerShapes, ...]
    """How the answers of generating tasks look."""

    @property
    def retain(self) -> float:
        """The share of experts kept."""
        return self.budget.retain

    @property
    def experts(self) -> int:
        """Experts per layer before pruning; 0 where neither a mask nor the model is known."""
        masks = (mask for entry in self.budget.entries for mask in self.masks_of(entry))
        first = next(masks, None)
        if first is None:
            record = self.results.provenance.models.get(self.group.model)
            return record.facts.num_experts if record else 0
        return int(first.shape[1])

    @property
    def pruned(self) -> str:
        """Its share of experts that are pruned, as the field counts budgets: `25 % pruned`."""
        return pruned(self.retain)

    @property
    def kept(self) -> str:
        """How many experts of a layer stay: `18 of 24 kept`."""
        total = f" of {self.experts}" if self.experts else ""
        return f"{self.budget.kept}{total} kept"

    @property
    def heading(self) -> str:
        """Its heading on the page."""
        return f"{self.pruned} ({self.kept})"

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
        order = [name for row in self.ranked for name in row.names]
        places = {name: place for place, name in enumerate(order)}
        by_place = sorted(self.budget.entries, key=lambda e: places.get(e.method, len(order)))
        return tuple(by_place)

    def facts_of(self, entry: Entry) -> MaskFacts | None:
        """What is known of a method's masks; None where it has none."""
        return mask_facts(self.results, entry.cells)

    def marks_of(self, entry: Entry) -> tuple[str, ...]:
        """What sets a method apart from a plain mask, for a place beside its name."""
        facts = self.facts_of(entry)
        own = published_marks(self.results, entry.cells[0])
        return (*own, *(() if facts is None else facts.marks))

    @property
    def gaps(self) -> tuple[LeftOut, ...]:
        """Methods that have no cell at this budget, but for published checkpoints: each of these
        has one budget alone."""
        published = {cell.method for cell in self.results.cells if cell.published is not None}
        return tuple(
            left
            for left in self.results.left_out
            if (left.model, left.retain) == (self.group.model, self.retain)
            and left.method not in published
        )

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

    @property
    def answer_warnings(self) -> tuple[str, ...]:
        """What accuracy hides of generated answers, by budget and task."""
        found = [shapes.short_limit for board in self.boards for shapes in board.answers]
        found += [
            f"{board.pruned}: {warning}"
            for board in self.boards
            for shapes in board.answers
            for warning in shapes.warnings
        ]
        return tuple(dict.fromkeys(filter(None, found)))

    def placed_by(self, score: Score) -> dict[float, tuple[Ranked | Reference, ...]]:
        """Retain ratio -> rows and random pruning from best to worst by the score or the second."""
        rankings = [(b.retain, r) for b in self.boards for r in (b.ranking, b.by_perplexity)]
        return {retain: r.placed for retain, r in rankings if r is not None and r.score == score}


@dataclass(frozen=True)
class RunBoards:
    """All budgets of all models of a run."""

    results: Results
    score: Score | None
    second_score: Score | None
    groups: tuple[GroupBoards, ...]
    equal_bytes: tuple[EqualBytes, ...]
    """One for each model that was run in several stored forms."""


def boards(results: Results) -> RunBoards:
    """All budgets of all models, ranked by the score that the suite declares."""
    score, second = primary_score(results), second_score(results)
    arranged = arrange(results)
    groups = [
        _of_group(f"model-{number}", results, group, score, second)
        for number, group in enumerate(arranged, 1)
    ]
    by_bytes = equal_bytes(results, arranged, score)
    return RunBoards(results, score, second, tuple(groups), by_bytes)


def _of_group(
    id: str, results: Results, group: Group, score: Score | None, second: Score | None
) -> GroupBoards:
    paired = {
        to_part(task, metric): pair(group.cells, [to_part(task, metric)])
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
    paired: Mapping[Part, Paired[CellKey]],
) -> Iterator[Board]:
    def ranked_by(by: Score | None) -> Mapping[float, Ranking]:
        return rankings(group, by, join([paired[part] for part in by.parts])) if by else {}

    by_score, by_perplexity = ranked_by(score), ranked_by(second)
    by_task = {
        task: ranked_by(task_score(task, metric)) for task, metric in results.task_metrics.items()
    }
    for number, budget in enumerate(group.budgets, 1):
        yield Board(
            id=f"{id}-budget-{number}",
            results=results,
            group=group,
            score=score,
            budget=budget,
            ranking=by_score.get(budget.retain),
            by_perplexity=by_perplexity.get(budget.retain),
            by_task={task: of_task[budget.retain] for task, of_task in by_task.items()},
            uninformative=floors(group, budget, results.task_metrics),
            answers=tuple(answer_shapes(group, budget, results.task_metrics)),
        )
