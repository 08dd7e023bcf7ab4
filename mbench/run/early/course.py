"""The evaluation stage of a run that may end before every item was evaluated.

The unpruned model comes first, on all items. With a precision alone, mask after mask is looked at
until each of its differences is known that well. With hours, every mask is looked at once before
any is looked at again, and a mask that is told from all others at its budget, or can no longer be
the best of them, is left alone: the time goes to those that are not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from mbench.core.early import EarlyGoal, Ending
from mbench.core.errors import StoreError
from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import TaskStatus
from mbench.plan.tasks import TaskSize
from mbench.run.early.known import Cell, Known
from mbench.run.early.verdict import standing
from mbench.run.early.words import in_words
from mbench.run.executor import threads_of
from mbench.storage.store import Key

if TYPE_CHECKING:
    from mbench.plan.plan import Plan
    from mbench.run.evaluation_stage import EvaluationStage, Pending
    from mbench.run.session import ModelSession

NO_TIME = TaskStatus("interrupted", "the hours were over before this")
NOTHING_TO_COMPARE = TaskStatus("blocked", "the unpruned model has no outcome to compare with")


class Early:
    """An `Executor` that ends when a goal is reached; this process alone."""

    def __init__(self, plan: Plan, goal: EarlyGoal) -> None:
        """For the models of a plan."""
        self._plan = plan
        self._goal = goal

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Evaluate as many items as the goal asks for."""
        with threads_of(self._plan), stage.session.timed("evaluate"):
            Course(stage, self._goal).run(pending)


class Course:
    """The looks of one model's masks."""

    def __init__(self, stage: EvaluationStage, goal: EarlyGoal) -> None:
        """Time runs from the start of the run; models get equal parts of what is left."""
        self._session = session = stage.session
        self._stage = stage
        self._goal = goal
        self._cells: list[Cell] = []
        self._known = Known(stage, [])
        self._end = None if goal.hours is None else _end(session, goal.hours)

    def run(self, pending: Sequence[Pending]) -> None:
        """Look at all masks until each task of each has had enough items."""
        first = [item for item in pending if item.masked.identity == self._stage.unpruned.identity]
        if self._end is not None and time.monotonic() >= self._end:
            for item in pending:
                for task in item.tasks:
                    if self._stage.looks(task) is not None:
                        self._lack(self._stage.key(item.masked, task), NO_TIME)
            return
        self._stage.run_untimed(first)
        others = [item for item in pending if not any(item is each for each in first)]
        self._cells = list(self._open(others))
        self._known = Known(self._stage, self._cells)
        self._tell_total()
        rounds: Iterable[int | None] = [None]
        if self._end is not None:
            rounds = range(1, 1 + max((cell.looks.count for cell in self._cells), default=0))
        for until in rounds:
            for _, cells in groupby(self._cells, key=lambda cell: cell.masked.identity):
                self._look(list(cells), until)
            if until is not None:
                self._leave_alone()

    def _open(self, pending: Iterable[Pending]) -> Iterator[Cell]:
        """The cells of tasks that are prepared, with the looks that are stored."""
        for item in pending:
            for task in item.tasks:
                looks = self._stage.looks(task)
                if looks is None:
                    continue
                cell = Cell(item.masked, task, looks)
                for number in range(looks.count):
                    table = self._stage.stored_look(item.masked, task, number)
                    if table is None:
                        break
                    cell.tables.append(table)
                yield cell

    def _look(self, cells: list[Cell], until: int | None) -> None:
        """Have each task of one mask make looks, `until` so many or until it has had enough."""
        for cell in cells:
            if cell.found is None:  # of looks that were stored
                with self._failures_of(cell):
                    self._judge(cell)
        going_on = [cell for cell in cells if _goes_on(cell, until)]
        if going_on:
            tasks = [cell.task for cell in going_on]
            with self._stage.active(cells[0].masked, tasks):
                for cell in going_on:
                    with self._failures_of(cell):
                        self._look_at(cell, until)
        self._tell_total()
        self._stage.show(cells[0].masked, self._figures(cells))

    def _look_at(self, cell: Cell, until: int | None) -> None:
        while _goes_on(cell, until):
            if not self._time_for(cell):
                self._leave(cell, "out of time")
            elif cell.looks.count == 1:
                self._whole(cell)
            else:
                number = len(cell.tables)
                cell.tables.append(self._stage.look(cell.masked, cell.task, number))
                self._judge(cell)

    @contextmanager
    def _failures_of(self, cell: Cell) -> Iterator[None]:
        """An error of the block ends the cell alone."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            cell.ended = True
            self._stage.fail(cell.masked, [cell.task], error)

    def _judge(self, cell: Cell) -> None:
        """Estimate from the looks made so far, and end the cell if they are enough."""
        if cell.ended or not cell.tables:
            return
        if len(cell.tables) == cell.looks.count:
            self._whole(cell)
            return
        key = self._stage.key(cell.masked, cell.task)
        figure = self._known.judge(cell)
        if figure is None or cell.found is None:
            cell.ended = True
            self._lack(key, NOTHING_TO_COMPARE)
            return
        # Should nothing be added to it, this is what is known.
        self._session.outcome.early[key] = figure
        if self._goal.precision is not None and cell.found.half <= self._goal.precision:
            self._leave(cell, "precise")

    def _whole(self, cell: Cell) -> None:
        """All looks are there; or the only one is evaluated."""
        cell.ended = True
        self._session.outcome.early.pop(self._stage.key(cell.masked, cell.task), None)
        if cell.tables:
            self._stage.finish(cell.masked, cell.task, cell.tables)
        else:
            self._stage.run_task(cell.masked, cell.task)

    def _leave(self, cell: Cell, ended: Ending) -> None:
        """Make no more looks."""
        cell.ended = True
        key = self._stage.key(cell.masked, cell.task)
        if key not in self._session.outcome.early:
            self._lack(key, NO_TIME)
            return
        figure = replace(self._session.outcome.early[key], ended=ended)
        self._session.outcome.early[key] = figure
        self._session.progress.event(
            "evaluation",
            mask=cell.masked.label,
            task=cell.task.name,
            status="early",
            reason=in_words(figure),
            figure=figure.figure,
            low=figure.low,
            high=figure.high,
        )

    def _leave_alone(self) -> None:
        """Make no more looks at masks whose place among those of their budget is known."""
        going_on = defaultdict(list)
        for cell in self._cells:
            if not cell.ended and cell.found is not None:
                going_on[cell.task.name, self._known.retain(cell)].append(cell)
        for cells in going_on.values():
            lower = cells[0].task.metric in LOWER_IS_BETTER
            ends = standing(self._known.at_budget(cells[0]), lower_is_better=lower)
            for cell in cells:
                if cell.masked.identity in ends:
                    self._leave(cell, ends[cell.masked.identity])
        self._tell_total()

    def _time_for(self, cell: Cell) -> bool:
        """Whether the next look is expected to end in time."""
        if self._end is None:
            return True
        session, part = self._session, cell.looks.parts[len(cell.tables)]
        digest = session.plan.task_size_key(session.model, cell.task).digest
        size = TaskSize(part.items, part.tokens, part.generated)
        takes = session.speeds.speeds().of(digest, 0.0).seconds(size)
        return time.monotonic() + takes <= self._end

    def _figures(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Of one mask, by task."""
        outcome, figures = self._session.outcome, {}
        for cell in cells:
            key = self._stage.key(cell.masked, cell.task)
            if key in outcome.evaluations:
                metrics = {each.name: each.value for each in outcome.evaluations[key].metrics}
                figures[cell.task.name] = metrics[cell.task.metric]
            elif key in outcome.early:
                figures[cell.task.name] = outcome.early[key].figure
        return figures

    def _lack(self, key: Key, reason: TaskStatus) -> None:
        self._session.outcome.evaluation_problems.setdefault(key, reason)

    def _tell_total(self) -> None:
        left = sum(cell.left for cell in self._cells)
        self._session.progress.total(self._session.outcome.forward_tokens + left)


def _goes_on(cell: Cell, until: int | None) -> bool:
    return not cell.ended and (until is None or len(cell.tables) < until)


def _end(session: ModelSession, hours: float) -> float:
    """When the model's time is over, on the monotonic clock."""
    models = session.plan.models
    place = models.index(session.model) if session.model in models else len(models) - 1
    now, over = time.monotonic(), session.outcome.begun + 3600 * hours
    return now + (over - now) / (len(models) - place)
