"""The tasks of a run: each built and tokenised once for a model, before any mask is evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mbench.core.cell_results import TaskStatus
from mbench.core.errors import StoreError, TaskError, caught, unknown
from mbench.core.item_texts import to_rows
from mbench.plan.stored_looks import write_looks
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.run.looks import TaskLooks
from mbench.run.session import ModelSession
from mbench.storage.records import to_plain

if TYPE_CHECKING:
    import pandas as pd


class PreparedTasks:
    """One model's, by name."""

    def __init__(self, session: ModelSession) -> None:
        """Nothing is prepared yet."""
        self._session = session
        self._looks: dict[str, TaskLooks] = {}
        self._items: dict[str, list[str]] = {}

    def prepare(self, tasks: Iterable[PlannedTask]) -> None:
        """Build and tokenise each task once; one that cannot be built fails for every mask."""
        session = self._session
        for task in {task.name: task for task in tasks}.values():
            session.progress.stage(f"prepare {task.name}")
            try:
                with session.timed("prepare"):
                    self._prepare(task)
            except StoreError:
                raise
            except Exception as error:
                session.progress.warning(f"task {task.name}: {caught(error)}")
                problem = TaskStatus("failed", caught(error))
                session.outcome.task_problems[session.model.name, task.name] = problem

    def _prepare(self, task: PlannedTask) -> None:
        session = self._session
        loaded = session.load()
        evaluator = task.prepare(loaded.facts.positions, loaded.tokenizer)
        if task.metric not in evaluator.metrics:
            raise TaskError(unknown("metric", task.metric, evaluator.metrics))
        if task.expected_items not in (None, evaluator.items):
            raise TaskError(
                f"{task.name} has {evaluator.items} items, the suite expects {task.expected_items}"
            )
        self._looks[task.name] = looks = TaskLooks.of(evaluator, task.fingerprint)
        if task.publishes_items:
            texts = to_rows(evaluator.texts)
            session.store.write_json(session.plan.item_texts_key(session.model, task), texts)
        size = TaskSize(evaluator.items, looks.tokens, evaluator.generated)
        key = session.plan.task_size_key(session.model, task)
        session.store.write_json(key, to_plain(size))
        if looks.count > 1:
            write_looks(session.store, key, looks.looks)

    def __contains__(self, task: PlannedTask) -> bool:
        """Whether it could be prepared."""
        return task.name in self._looks

    def looks(self, task: PlannedTask) -> TaskLooks:
        """A prepared task in looks."""
        return self._looks[task.name]

    def tokens(self, task: PlannedTask) -> int:
        """Forward tokens of a prepared task on one mask; 0 for one that could not be prepared."""
        looks = self._looks.get(task.name)
        return looks.tokens if looks else 0

    def fit(self, task: PlannedTask, items: pd.DataFrame) -> bool:
        """Whether stored items are those that the task has now.

        What a hub data set holds, or what a task's code makes, can change under an unchanged key;
        figures on other items are never compared with each other.
        """
        names: list[str] = items["item"].tolist()
        if task in self:
            return self.looks(task).whole.item_names == names
        return self._items.setdefault(task.name, names) == names
