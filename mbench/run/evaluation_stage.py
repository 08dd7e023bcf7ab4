"""The third stage of a run: every distinct mask on every task, the unpruned model first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbench.core.errors import StoreError, TaskError, caught, unknown
from mbench.core.evaluation import Evaluation, evaluation
from mbench.core.interfaces import ExpertMask, RouterMode
from mbench.core.item_texts import to_rows
from mbench.core.results import TaskStatus
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.run.environment import return_freed_memory
from mbench.run.session import ModelSession
from mbench.storage.records import to_plain
from mbench.storage.store import Key

if TYPE_CHECKING:
    import pandas as pd

    from mbench.core.evaluation import Evaluator


@dataclass(frozen=True)
class MaskedModel:
    """What is evaluated; equal masks under equal router modes are one."""

    label: str
    """The first cell that asked for it."""
    mask: ExpertMask
    router: RouterMode


@dataclass(frozen=True)
class Pending:
    """A masked model with the tasks that it still has to be evaluated on."""

    masked: MaskedModel
    tasks: tuple[PlannedTask, ...]


class EvaluationStage:
    """Prepares tasks once, then runs them on one mask after another."""

    def __init__(self, session: ModelSession) -> None:
        """Nothing is prepared yet."""
        self._session = session
        self._evaluators: dict[str, Evaluator] = {}
        self._items: dict[str, list[str]] = {}

    @property
    def model_name(self) -> str:
        """The model that the masks belong to."""
        return self._session.model.name

    def pending(self) -> list[Pending]:
        """Distinct masks known by now with their missing tasks; takes the others from the store."""
        session = self._session
        unpruned = session.model.unpruned_mask
        router = session.plan.suite.router
        published = session.model in session.plan.published
        label = session.model.name + ("" if published else " unpruned")
        first = MaskedModel(label, unpruned, router)
        distinct = {(unpruned.content_hash, router): first}
        for cell in session.cells:
            mask = session.outcome.masks.get(cell.mask_key) if cell.mask_key else None
            if mask is not None and cell.method.evaluated:
                router = cell.budget.router
                made = MaskedModel(cell.label, mask, router)
                distinct.setdefault((mask.content_hash, router), made)
        pending = []
        for masked in distinct.values():
            missing = [task for task in session.plan.tasks if not self._restore(masked, task)]
            if missing:
                pending.append(Pending(masked, tuple(missing)))
        return pending

    def _restore(self, masked: MaskedModel, task: PlannedTask) -> bool:
        key = self._key(masked, task)
        if key not in self._session.outcome.evaluations:
            items = self._session.store.read_items(key)
            if items is None:
                return False
            outcome = evaluation(task.name, items)
            if task.metric not in {metric.name for metric in outcome.metrics}:
                # Preparing the task will say which metrics it has.
                return False
            self._session.outcome.evaluations[key] = outcome
        if self._fits(task, self._session.outcome.evaluations[key].items):
            return True
        del self._session.outcome.evaluations[key]
        return False

    def _fits(self, task: PlannedTask, items: pd.DataFrame) -> bool:
        """Whether stored items are those that the task has now.

        What a hub data set holds, or what a task's code makes, can change under an unchanged key;
        figures on other items are never compared with each other.
        """
        names: list[str] = items["item"].tolist()
        if task.name in self._evaluators:
            return self._evaluators[task.name].item_names == names
        return self._items.setdefault(task.name, names) == names

    def _key(self, masked: MaskedModel, task: PlannedTask) -> Key:
        session = self._session
        mask = masked.mask.content_hash
        return session.plan.evaluation_key(session.model, mask, masked.router, task)

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
        self._evaluators[task.name] = evaluator
        if task.publishes_items:
            texts = to_rows(evaluator.texts)
            session.store.write_json(session.plan.item_texts_key(session.model, task), texts)
        size = TaskSize(evaluator.items, evaluator.tokens, evaluator.generated)
        session.store.write_json(session.plan.task_size_key(session.model, task), to_plain(size))

    def evaluator(self, task: PlannedTask) -> Evaluator | None:
        """A prepared task; None for one that could not be prepared."""
        return self._evaluators.get(task.name)

    def tokens(self, task: PlannedTask) -> int:
        """Forward tokens of a prepared task on one mask; 0 for one that could not be prepared."""
        evaluator = self._evaluators.get(task.name)
        return evaluator.tokens if evaluator else 0

    def run(self, pending: Sequence[Pending]) -> None:
        """Evaluate and store; what another process has stored meanwhile is taken from it."""
        session = self._session
        with session.timed("evaluate"):
            for item in pending:
                figures: dict[str, float] = {}
                missing = []
                for task in item.tasks:
                    if task.name not in self._evaluators:
                        continue
                    if self._restore(item.masked, task):
                        session.advance(self.tokens(task))
                        figures |= self._report(item.masked, task)
                    else:
                        missing.append(task)
                if missing:
                    figures |= self._run_mask(item.masked, missing)
                if figures:
                    session.progress.figures(item.masked.label, figures)
                    session.meanwhile(session.outcome)
                return_freed_memory()

    def _run_mask(self, masked: MaskedModel, tasks: list[PlannedTask]) -> dict[str, float]:
        from mbench.moe.experts import fast_experts
        from mbench.moe.mask import masked as applied

        session = self._session
        figures: dict[str, float] = {}
        try:
            layers = session.load().layers
            with fast_experts(layers), applied(layers, masked.mask, masked.router):
                for task in tasks:
                    session.progress.stage(f"{masked.label}: {task.name}")
                    figures |= self._run_task(masked, task)
        except StoreError:
            raise
        except Exception as error:
            self._fail(masked, tasks, error)
        return figures

    def _run_task(self, masked: MaskedModel, task: PlannedTask) -> dict[str, float]:
        session = self._session
        start = time.perf_counter()
        try:
            result = session.within_memory(task.name, lambda most: self._evaluate(task, most))
        except Exception as error:
            self._fail(masked, [task], error)
            return {}
        self._measured(task, time.perf_counter() - start)
        key = self._key(masked, task)
        stored = session.store.write_items(key, result.items)
        session.outcome.evaluations[key] = evaluation(task.name, stored)
        scoring = self._evaluators[task.name].scoring
        session.outcome.scoring[session.model.name, task.name] = scoring
        return self._report(masked, task)

    def _measured(self, task: PlannedTask, seconds: float) -> None:
        session, evaluator = self._session, self._evaluators[task.name]
        size = TaskSize(evaluator.items, evaluator.tokens, evaluator.generated)
        digest = session.plan.task_size_key(session.model, task).digest
        session.speeds.evaluated(digest, size, seconds)

    def _report(self, masked: MaskedModel, task: PlannedTask) -> dict[str, float]:
        """Send an outcome to the progress display; returns the task's declared figure."""
        session = self._session
        result = session.outcome.evaluations[self._key(masked, task)]
        values = {metric.name: metric.value for metric in result.metrics}
        session.progress.event(
            "evaluation", mask=masked.label, task=task.name, status="ok", **values
        )
        return {task.name: values[task.metric]}

    def _evaluate(self, task: PlannedTask, batch_tokens: int) -> Evaluation:
        session = self._session
        return self._evaluators[task.name].evaluate(
            session.load().model, batch_tokens=batch_tokens, advance=session.advance
        )

    def _fail(self, masked: MaskedModel, tasks: list[PlannedTask], error: Exception) -> None:
        """Record why tasks have no outcome, except those that have one already."""
        outcome = self._session.outcome
        for task in tasks:
            key = self._key(masked, task)
            if key not in outcome.evaluations and key not in outcome.evaluation_problems:
                outcome.evaluation_problems[key] = TaskStatus("failed", caught(error))
                self._session.progress.event(
                    "evaluation",
                    mask=masked.label,
                    task=task.name,
                    status="failed",
                    reason=caught(error),
                )
