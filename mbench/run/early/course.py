"""The evaluation stage of a run that may end before every item was evaluated.

The unpruned model comes first, on all items. With a precision alone, mask after mask is looked at
until each of its differences is known that well. With hours, every mask is looked at once before
any is looked at again, method after method at all budgets, and a mask that is told from all others
at its budget, or can no longer be the best of them, is left alone: the time goes to those that are
not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from mbench.core.cell_results import TaskStatus
from mbench.core.early import EarlyFigure, EarlyGoal, Ending
from mbench.core.errors import StoreError
from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.plan.tasks import TaskSize
from mbench.run.early.hours import (
    NO_TIME,
    NOTHING_IN_TIME,
    Lacking,
    end_of_masks,
    lacking_of_checkpoints,
    masks_by_turns,
    no_time_for,
)
from mbench.run.early.known import Cell, Known
from mbench.run.early.verdict import standing
from mbench.run.early.words import in_words, one_process_alone
from mbench.run.executor import threads_of
from mbench.run.masked_models import unpruned
from mbench.storage.store import Key

if TYPE_CHECKING:
    from mbench.plan.plan import Plan
    from mbench.run.evaluation_stage import EvaluationStage
    from mbench.run.masked_models import Pending

NOTHING_TO_COMPARE = TaskStatus("blocked", "the unpruned model has no outcome to compare with")


class Early:
    """An `Executor` that ends when a goal is reached; this process alone."""

    side_by_side = None  # how many items each mask needs shows only as it works

    def __init__(self, plan: Plan, goal: EarlyGoal) -> None:
        """For the models of a plan."""
        self._plan = plan
        self._goal = goal
        self.hours = goal.hours

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Evaluate as many items as the goal asks for."""
        wanted = self._plan.suite.processes
        if wanted > 1 and pending:
            stage.session.progress.warning(one_process_alone(wanted))
        with threads_of(self._plan), stage.session.timed("evaluate"):
            Course(stage, self._goal).run(pending)


class Course:
    """The looks of one model's masks."""

    def __init__(self, stage: EvaluationStage, goal: EarlyGoal) -> None:
        """Time runs from the start of the run; models get equal parts of it."""
        self._session = stage.session
        self._stage = stage
        self._goal = goal
        self._cells: list[Cell] = []
        self._known = Known(stage, [])

    @cached_property
    def _lacking(self) -> list[Lacking]:
        return lacking_of_checkpoints(self._session)

    @property
    def _end(self) -> float | None:
        """When time is over; asked anew, since what must be left is known better and better."""
        hours = self._goal.hours
        return None if hours is None else end_of_masks(self._session, hours, self._lacking)

    def run(self, pending: Sequence[Pending]) -> None:
        """Look at all masks until each task of each has had enough items."""
        full = unpruned(self._session).identity
        first = [item for item in pending if item.masked.identity == full]
        others = [item for item in pending if item.masked.identity != full]
        if self._goal.hours is None:
            self._stage.run_untimed(first)
        else:
            others = masks_by_turns(self._session, others)
            for item in first:
                self._whole_in_time(item)
        self._cells = list(self._open(others))
        self._known = Known(self._stage, self._cells)
        self._leave_without_comparison()
        self._tell_total()
        rounds: Iterable[int | None] = [None]
        if self._goal.hours is not None:
            self._tell_what_does_not_suffice()
            rounds = range(1, 1 + max((cell.looks.count for cell in self._cells), default=0))
        for until in rounds:
            for _, cells in groupby(self._cells, key=lambda cell: cell.masked.identity):
                self._look(list(cells), until)
            if until is not None:
                self._leave_alone()

    def _whole_in_time(self, item: Pending) -> None:
        """The unpruned model on all items of each task, look by look as far as the hours go."""
        self._cells = cells = list(self._open([item]))
        self._tell_total()
        with self._failures_of(*cells), self._stage.active(item.masked):
            for cell in cells:
                with self._failures_of(cell):
                    while not cell.ended:
                        left = len(cell.tables) < cell.looks.count
                        if left and not self._time_for(cell):
                            cell.ended = True
                            why = no_time_for(self._seconds(cell))
                            self._stage.lack(item.masked, cell.task, why)
                        elif left and cell.looks.count > 1:
                            number = len(cell.tables)
                            cell.tables.append(self._stage.look(item.masked, cell.task, number))
                        else:
                            self._whole(cell)
        self._stage.show(item.masked, *self._figures(cells))

    def _leave_without_comparison(self) -> None:
        """No looks at tasks of which the unpruned model has no outcome; wholes say something."""
        for cell in self._cells:
            if cell.looks.count > 1 and self._known.population(cell.task) is None:
                cell.ended = True
                key = self._stage.key(unpruned(self._session), cell.task)
                found = self._session.outcome.evaluation_problems.get(key)
                over = found is not None and found.status == "interrupted"
                why = NOTHING_IN_TIME if over else NOTHING_TO_COMPARE
                self._lack(self._stage.key(cell.masked, cell.task), why)

    def _tell_what_does_not_suffice(self) -> None:
        """Say beforehand that the hours are too few for a first look at each mask."""
        if (end := self._end) is None:
            return
        unseen = [cell for cell in self._cells if not cell.ended and not cell.tables]
        needed = sum(self._seconds(cell, 1) for cell in unseen)
        left = max(0.0, end - time.monotonic())
        if needed > left:
            self._session.progress.warning(
                f"{self._session.model.name}: a first look at each mask takes about"
                f" {needed / 3600:.2g} hours, {left / 3600:.2g} are left: some will have"
                " none, and are looked at first if this is run again"
            )

    def _open(self, pending: Iterable[Pending]) -> Iterator[Cell]:
        """The cells of tasks that are prepared, with the looks that are stored."""
        for item in pending:
            for task in item.tasks:
                if task not in self._stage.tasks:
                    continue
                looks = self._stage.tasks.looks(task)
                cell = Cell(item.masked, task, looks)
                for number in range(looks.count):
                    table = self._stage.stored_look(item.masked, task, number)
                    if table is None:
                        break
                    cell.tables.append(table)
                yield cell

    def _look(self, cells: list[Cell], until: int | None) -> None:
        """Have each task of one mask make looks, `until` so many or until it has had enough."""
        before = {
            cell.task.name: len(cell.tables)
            for cell in cells
            if cell.ended or cell.found is not None
        }
        for cell in cells:
            if cell.found is None:  # of looks that were stored
                with self._failures_of(cell):
                    self._judge(cell)
        going_on = [cell for cell in cells if _goes_on(cell, until)]
        if going_on:
            with self._failures_of(*going_on), self._stage.active(cells[0].masked):
                for cell in going_on:
                    with self._failures_of(cell):
                        self._look_at(cell, until)
        self._tell_total()
        told = [cell for cell in cells if before.get(cell.task.name) != len(cell.tables)]
        self._stage.show(cells[0].masked, *self._figures(told))

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
    def _failures_of(self, *cells: Cell) -> Iterator[None]:
        """An error of the block ends these cells of one mask alone."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            for cell in cells:
                cell.ended = True
            self._stage.fail(cells[0].masked, [cell.task for cell in cells], error)

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
        self._session.outcome.looked[key] = cell.looked()
        if self._goal.precision is not None and cell.found.half <= self._goal.precision:
            self._leave(cell, "precise")

    def _whole(self, cell: Cell) -> None:
        """All looks are there; or the only one is evaluated."""
        cell.ended = True
        key = self._stage.key(cell.masked, cell.task)
        self._session.outcome.early.pop(key, None)
        self._session.outcome.looked.pop(key, None)
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
            intervals = self._known.at_budget(cells[0])
            ends = standing(intervals, lower_is_better=lower, seeds=self._known.seeds)
            for cell in cells:
                if cell.masked.identity in ends:
                    self._leave(cell, ends[cell.masked.identity])
        self._tell_total()

    def _time_for(self, cell: Cell) -> bool:
        """Whether the next look is expected to end in time."""
        end = self._end
        return end is None or time.monotonic() + self._seconds(cell, 1) <= end

    def _seconds(self, cell: Cell, looks: int | None = None) -> float:
        """What so many more looks are expected to take, or all; 0 where no speed is known yet."""
        session, there = self._session, len(cell.tables)
        speed = session.speeds.speeds().of(
            session.plan.task_size_key(session.model, cell.task).digest, 0.0
        )
        end = None if looks is None else there + looks
        sizes = (TaskSize(p.items, p.tokens, p.generated) for p in cell.looks.parts[there:end])
        return sum(map(speed.seconds, sizes))

    def _figures(self, cells: Sequence[Cell]) -> tuple[dict[str, float], dict[str, EarlyFigure]]:
        """Of one mask, by task; and what is known of those that are estimated."""
        outcome, figures = self._session.outcome, dict[str, float]()
        early = {}
        for cell in cells:
            key = self._stage.key(cell.masked, cell.task)
            if key in outcome.evaluations:
                metrics = {each.name: each.value for each in outcome.evaluations[key].metrics}
                figures[cell.task.name] = metrics[cell.task.metric]
            elif key in outcome.early:
                figures[cell.task.name] = outcome.early[key].figure
                early[cell.task.name] = outcome.early[key]
        return figures, early

    def _lack(self, key: Key, reason: TaskStatus) -> None:
        self._session.outcome.evaluation_problems.setdefault(key, reason)

    def _tell_total(self) -> None:
        left = sum(cell.left for cell in self._cells)
        self._session.progress.total(self._session.outcome.forward_tokens + left)


def _goes_on(cell: Cell, until: int | None) -> bool:
    return not cell.ended and (until is None or len(cell.tables) < until)
