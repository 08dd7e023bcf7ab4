"""The third stage of a run: every distinct mask on every task, the unpruned model first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mbench.core.cell_results import TaskStatus
from mbench.core.early import EarlyFigure
from mbench.core.errors import StoreError, caught
from mbench.core.evaluation import Evaluation, evaluation
from mbench.plan.stored_looks import Looks
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.run.environment import return_freed_memory
from mbench.run.masked_models import MaskedModel, Pending, asked, retained, unpruned
from mbench.run.prepared_tasks import PreparedTasks
from mbench.run.session import ModelSession
from mbench.storage.artefacts import canonical
from mbench.storage.store import Key

if TYPE_CHECKING:
    import pandas as pd

    from mbench.core.evaluation import Evaluator


class EvaluationStage:
    """Runs prepared tasks on one mask after another."""

    def __init__(self, session: ModelSession) -> None:
        """Nothing is prepared yet."""
        self.session = session
        """Whose masks they are."""
        self.tasks = PreparedTasks(session)
        """What they are evaluated on."""
        self._there: dict[Key, int] = {}
        """Tokens of the looks that were stored before."""

    @property
    def model_name(self) -> str:
        """The model that the masks belong to."""
        return self.session.model.name

    def pending(self) -> list[Pending]:
        """Distinct masks known by now with their missing tasks; takes the others from the store."""
        session, pending = self.session, []
        for masked in [unpruned(session), *(masked for masked, _ in retained(session))]:
            tasks = asked(session, masked)
            missing = [task for task in tasks if not self._restore(masked, task)]
            for task in missing:
                if task in self.tasks:
                    self._remember_looks(masked, task)
            if missing:
                pending.append(Pending(masked, tuple(missing)))
        return pending

    def _remember_looks(self, masked: MaskedModel, task: PlannedTask) -> None:
        """Whoever evaluates the rest, looks that are stored by now are not computed again."""
        looks, key = self.tasks.looks(task), self.key(masked, task)
        if looks.count > 1:
            stored = Looks(looks.looks).stored(self.session.store, key)
            self._there[key] = sum(look.tokens for look in stored)

    def _restore(self, masked: MaskedModel, task: PlannedTask) -> bool:
        key = self.key(masked, task)
        if key not in self.session.outcome.evaluations:
            items = self.session.store.read_items(key)
            if items is None:
                return False
            outcome = evaluation(task.name, items)
            if task.metric not in {metric.name for metric in outcome.metrics}:
                # Preparing the task will say which metrics it has.
                return False
            self.session.outcome.evaluations[key] = outcome
        if self.tasks.fit(task, self.session.outcome.evaluations[key].items):
            return True
        del self.session.outcome.evaluations[key]
        return False

    def key(self, masked: MaskedModel, task: PlannedTask) -> Key:
        """Of a mask's outcome on a task."""
        session = self.session
        mask, router = masked.identity
        return session.plan.evaluation_key(session.model, mask, router, task)

    def run(self, pending: Sequence[Pending]) -> None:
        """Evaluate and store; what another process has stored meanwhile is taken from it."""
        with self.session.timed("evaluate"):
            self.run_untimed(pending)

    def run_untimed(self, pending: Sequence[Pending]) -> None:
        """The same within a stage that is timed already."""
        self.session.sharing.each(pending, self._name, self._taken, self._run)

    def _run(self, item: Pending) -> None:
        """Evaluate a mask on those of its tasks that are not stored by now; all are told."""
        figures: dict[str, float] = {}
        missing = []
        for task in self.prepared(item):
            if self._restore(item.masked, task):
                there = self._there.get(self.key(item.masked, task), 0)
                self.session.progress.advance(there)
                self.session.advance(self.tasks.tokens(task) - there)
                figures |= self._report(item.masked, task)
            else:
                missing.append(task)
        if missing:
            with self.failures_of(item.masked, missing), self.active(item.masked):
                for task in missing:
                    figures |= self.run_task(item.masked, task)
        self.show(item.masked, figures)

    def prepared(self, item: Pending) -> list[PlannedTask]:
        """Those of its tasks that could be prepared."""
        return [task for task in item.tasks if task in self.tasks]

    def _name(self, item: Pending) -> str:
        mask, router = item.masked.identity
        model = canonical(self.session.model.identity.parts())
        return f"evaluations of {mask} {router} on {model}"

    def _taken(self, item: Pending) -> bool:
        """Whether somebody else has evaluated a mask on all of its tasks; then they are told."""
        if not all(self._restore(item.masked, task) for task in self.prepared(item)):
            return False
        self._run(item)
        return True

    def take(
        self,
        item: Pending,
        tables: Mapping[str, pd.DataFrame],
        problems: Mapping[str, TaskStatus],
        scoring: Mapping[str, str],
    ) -> None:
        """Store what was evaluated elsewhere: by task its items, or why there are none."""
        session, figures = self.session, dict[str, float]()
        for task in self.prepared(item):
            if task.name not in tables:
                self.lack(item.masked, task, problems[task.name])
            elif tables[task.name]["item"].tolist() != self.tasks.looks(task).whole.item_names:
                reason = "it was evaluated on other items there than it has here"
                self.lack(item.masked, task, TaskStatus("failed", reason))
            else:
                session.advance(self.tasks.tokens(task))
                result = evaluation(task.name, tables[task.name])
                session.outcome.scoring[session.model.name, task.name] = scoring[task.name]
                figures |= self._finish(item.masked, task, result)
        self.show(item.masked, figures)

    def show(
        self,
        masked: MaskedModel,
        figures: Mapping[str, float],
        early: Mapping[str, EarlyFigure] | None = None,
    ) -> None:
        """Send a mask's figures to the display, and have them reported; see `Progress.figures`."""
        if figures:
            self.session.progress.figures(masked.label, figures, early)
            self.session.meanwhile(self.session.outcome)
        return_freed_memory()

    @contextmanager
    def active(self, masked: MaskedModel) -> Iterator[None]:
        """The model as it is with a mask."""
        from mbench.moe.experts import fast_experts
        from mbench.moe.mask import masked as applied

        layers = self.session.load().layers
        with fast_experts(layers), applied(layers, masked.mask, masked.router):
            yield

    @contextmanager
    def failures_of(self, masked: MaskedModel, tasks: Sequence[PlannedTask]) -> Iterator[None]:
        """An error of the block, be it that a mask cannot be applied, is that of the tasks."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            self.fail(masked, tasks, error)

    def run_task(self, masked: MaskedModel, task: PlannedTask) -> dict[str, float]:
        """Evaluate what is not stored of a task's looks with the model as it is now."""
        looks = self.tasks.looks(task)
        try:
            found = [self.stored_look(masked, task, number) for number in range(looks.count)]
            if looks.in_one_go and all(table is None for table in found):
                return self._finish(masked, task, self._evaluate(masked, task, looks.whole))
            tables = []
            for part, table in zip(looks.parts, found, strict=True):
                if table is not None:
                    self.session.progress.advance(part.tokens)
                tables.append(self._evaluate(masked, task, part).items if table is None else table)
            return self.finish(masked, task, tables)
        except StoreError:
            raise
        except Exception as error:
            self.fail(masked, [task], error)
            return {}

    def stored_look(
        self, masked: MaskedModel, task: PlannedTask, number: int
    ) -> pd.DataFrame | None:
        """What is stored of one look, if the task has several."""
        looks = self.tasks.looks(task)
        if looks.count == 1:
            return None
        names, key = looks.names[number], looks.looks[number].key(self.key(masked, task), number)
        items = self.session.store.read_items(key)
        return items if items is not None and items["item"].tolist() == names else None

    def look(self, masked: MaskedModel, task: PlannedTask, number: int) -> pd.DataFrame:
        """Evaluate one look with the model as it is now, and store it."""
        looks = self.tasks.looks(task)
        items = self._evaluate(masked, task, looks.parts[number]).items
        key = looks.looks[number].key(self.key(masked, task), number)
        return self.session.store.write_items(key, items)

    def finish(
        self, masked: MaskedModel, task: PlannedTask, tables: Sequence[pd.DataFrame]
    ) -> dict[str, float]:
        """Store the outcomes of all looks as one evaluation, in place of them."""
        looks = self.tasks.looks(task)
        figures = self._finish(masked, task, looks.whole.join(tables))
        for number, look in enumerate(looks.looks):
            self.session.store.forget(look.key(self.key(masked, task), number))
        return figures

    def _finish(
        self, masked: MaskedModel, task: PlannedTask, result: Evaluation
    ) -> dict[str, float]:
        session = self.session
        key = self.key(masked, task)
        stored = session.store.write_items(key, result.items)
        session.outcome.evaluations[key] = evaluation(task.name, stored)
        session.outcome.made_evaluations += 1
        return self._report(masked, task)

    def _evaluate(self, masked: MaskedModel, task: PlannedTask, part: Evaluator) -> Evaluation:
        """Evaluate a task, or a part, with the model as it is now."""
        session = self.session
        session.progress.stage(f"{masked.label}: {task.name}")
        model = session.load().model
        start = time.perf_counter()
        limit = session.batch_limit(task.name)
        result = part.evaluate(model, batch_tokens=limit, advance=session.advance)
        digest = session.plan.task_size_key(session.model, task).digest
        size = TaskSize(part.items, part.tokens, part.generated)
        reading = part.work.prompt_seconds if part.work else 0.0
        seconds = time.perf_counter() - start
        pruned = masked.identity != unpruned(session).identity
        session.speeds.evaluated(digest, size, seconds, reading, pruned)
        session.outcome.scoring[session.model.name, task.name] = part.scoring
        return result

    def _report(self, masked: MaskedModel, task: PlannedTask) -> dict[str, float]:
        """Send an outcome to the progress display; returns the task's declared figure."""
        session = self.session
        result = session.outcome.evaluations[self.key(masked, task)]
        values = {metric.name: metric.value for metric in result.metrics}
        session.progress.event(
            "evaluation", mask=masked.label, task=task.name, status="ok", **values
        )
        return {task.name: values[task.metric]}

    def fail(self, masked: MaskedModel, tasks: Sequence[PlannedTask], error: Exception) -> None:
        """Record why tasks have no outcome, except those that have one already."""
        for task in tasks:
            self.lack(masked, task, TaskStatus("failed", caught(error)))

    def lack(self, masked: MaskedModel, task: PlannedTask, why: TaskStatus) -> None:
        """Record why a task has no outcome, if it has none and no reason is known yet."""
        outcome, key = self.session.outcome, self.key(masked, task)
        if key not in outcome.evaluations and key not in outcome.evaluation_problems:
            outcome.evaluation_problems[key] = why
            self.session.progress.event(
                "evaluation",
                mask=masked.label,
                task=task.name,
                status=why.status,
                reason=why.reason,
            )
