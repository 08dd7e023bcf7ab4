"""The third stage of a run: every distinct mask on every task, the unpruned model first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mbench.core.errors import StoreError, TaskError, caught, unknown
from mbench.core.evaluation import Evaluation, evaluation
from mbench.core.interfaces import ExpertMask, RouterMode
from mbench.core.item_texts import to_rows
from mbench.core.results import TaskStatus
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.run.environment import return_freed_memory
from mbench.run.looks import TaskLooks, look_key
from mbench.run.session import ModelSession
from mbench.run.sharing import Sharing
from mbench.storage.artefacts import canonical
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

    @cached_property
    def identity(self) -> tuple[str, RouterMode]:
        """Equal for masks that compute the same."""
        return self.mask.content_hash, self.router


@dataclass(frozen=True)
class Pending:
    """A masked model with the tasks that it still has to be evaluated on."""

    masked: MaskedModel
    tasks: tuple[PlannedTask, ...]


class EvaluationStage:
    """Prepares tasks once, then runs them on one mask after another."""

    def __init__(self, session: ModelSession) -> None:
        """Nothing is prepared yet."""
        self.session = session
        """Whose masks they are."""
        self._looks: dict[str, TaskLooks] = {}
        self._items: dict[str, list[str]] = {}

    @property
    def model_name(self) -> str:
        """The model that the masks belong to."""
        return self.session.model.name

    def pending(self) -> list[Pending]:
        """Distinct masks known by now with their missing tasks; takes the others from the store."""
        pending = []
        for masked in [self.unpruned, *(masked for masked, _ in self.retained())]:
            tasks = self.asked(masked)
            missing = [task for task in tasks if not self._restore(masked, task)]
            if missing:
                pending.append(Pending(masked, tuple(missing)))
        return pending

    @property
    def unpruned(self) -> MaskedModel:
        """The model with all of its experts."""
        session = self.session
        published = session.model in session.plan.published
        label = session.model.name + ("" if published else " unpruned")
        return MaskedModel(label, session.model.unpruned_mask, session.plan.suite.router)

    def asked(self, masked: MaskedModel) -> tuple[PlannedTask, ...]:
        """The tasks that any method with a mask is to be evaluated on."""
        session, names = self.session, set[str]()
        if masked.identity == self.unpruned.identity:
            return session.plan.tasks
        for cell in session.cells:
            mask = session.outcome.masks.get(cell.mask_key) if cell.mask_key else None
            if mask is None or not cell.method.evaluated:
                continue
            if (mask.content_hash, cell.budget.router) == masked.identity:
                names.update(task.name for task in session.plan.tasks_of(cell))
        return tuple(task for task in session.plan.tasks if task.name in names)

    def retained(self) -> Iterator[tuple[MaskedModel, float]]:
        """Distinct masks known by now, and the budget that each was first made for."""
        session = self.session
        known = {self.unpruned.identity}
        for cell in session.cells:
            mask = session.outcome.masks.get(cell.mask_key) if cell.mask_key else None
            if mask is not None and cell.method.evaluated:
                masked = MaskedModel(cell.label, mask, cell.budget.router)
                if masked.identity not in known:
                    known.add(masked.identity)
                    yield masked, cell.budget.retain

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
        if self._fits(task, self.session.outcome.evaluations[key].items):
            return True
        del self.session.outcome.evaluations[key]
        return False

    def _fits(self, task: PlannedTask, items: pd.DataFrame) -> bool:
        """Whether stored items are those that the task has now.

        What a hub data set holds, or what a task's code makes, can change under an unchanged key;
        figures on other items are never compared with each other.
        """
        names: list[str] = items["item"].tolist()
        if task.name in self._looks:
            return self._looks[task.name].whole.item_names == names
        return self._items.setdefault(task.name, names) == names

    def key(self, masked: MaskedModel, task: PlannedTask) -> Key:
        """Of a mask's outcome on a task."""
        session = self.session
        mask, router = masked.identity
        return session.plan.evaluation_key(session.model, mask, router, task)

    def prepare(self, tasks: Iterable[PlannedTask]) -> None:
        """Build and tokenise each task once; one that cannot be built fails for every mask."""
        session = self.session
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
        session = self.session
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
        session.store.write_json(session.plan.task_size_key(session.model, task), to_plain(size))

    def looks(self, task: PlannedTask) -> TaskLooks | None:
        """A prepared task in looks; None for one that could not be prepared."""
        return self._looks.get(task.name)

    def evaluator(self, task: PlannedTask) -> Evaluator | None:
        """A prepared task; None for one that could not be prepared."""
        looks = self._looks.get(task.name)
        return looks.whole if looks else None

    def tokens(self, task: PlannedTask) -> int:
        """Forward tokens of a prepared task on one mask; 0 for one that could not be prepared."""
        looks = self._looks.get(task.name)
        return looks.tokens if looks else 0

    def run(self, pending: Sequence[Pending], sharing: Sharing | None = None) -> None:
        """Evaluate and store; what another process has stored meanwhile is taken from it.

        `sharing`: with whom; None: with those that the session shares all of its work with.
        """
        with self.session.timed("evaluate"):
            self.run_untimed(pending, sharing)

    def run_untimed(self, pending: Sequence[Pending], sharing: Sharing | None = None) -> None:
        """The same within a stage that is timed already."""
        sharing = sharing or self.session.sharing
        for item in sharing.mine(pending, self._name, self._taken):
            figures: dict[str, float] = {}
            missing = []
            for task in self.prepared(item):
                if self._restore(item.masked, task):
                    self.session.advance(self.tokens(task))
                    figures |= self._report(item.masked, task)
                else:
                    missing.append(task)
            if missing:
                with self.active(item.masked, missing):
                    for task in missing:
                        figures |= self.run_task(item.masked, task)
            self.show(item.masked, figures)

    def prepared(self, item: Pending) -> list[PlannedTask]:
        """Those of its tasks that could be prepared."""
        return [task for task in item.tasks if task.name in self._looks]

    def _name(self, item: Pending) -> str:
        mask, router = item.masked.identity
        model = canonical(self.session.model.identity.parts())
        return f"evaluations of {mask} {router} on {model}"

    def _taken(self, item: Pending) -> bool:
        """Whether somebody else has evaluated a mask on all of its tasks; then they are told."""
        tasks = self.prepared(item)
        if not all(self._restore(item.masked, task) for task in tasks):
            return False
        figures: dict[str, float] = {}
        for task in tasks:
            self.session.advance(self.tokens(task))
            figures |= self._report(item.masked, task)
        self.show(item.masked, figures)
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
            elif tables[task.name]["item"].tolist() != self._looks[task.name].whole.item_names:
                reason = "it was evaluated on other items there than it has here"
                self.lack(item.masked, task, TaskStatus("failed", reason))
            else:
                session.advance(self.tokens(task))
                result = evaluation(task.name, tables[task.name])
                session.outcome.scoring[session.model.name, task.name] = scoring[task.name]
                figures |= self._finish(item.masked, task, result)
        self.show(item.masked, figures)

    def show(self, masked: MaskedModel, figures: Mapping[str, float]) -> None:
        """Send a mask's figures to the display, and have them reported."""
        if figures:
            self.session.progress.figures(masked.label, figures)
            self.session.meanwhile(self.session.outcome)
        return_freed_memory()

    @contextmanager
    def active(self, masked: MaskedModel, tasks: Sequence[PlannedTask]) -> Iterator[None]:
        """The model as it is with a mask; an error of the block is that of the tasks."""
        from mbench.moe.experts import fast_experts
        from mbench.moe.mask import masked as applied

        try:
            layers = self.session.load().layers
            with fast_experts(layers), applied(layers, masked.mask, masked.router):
                yield
        except StoreError:
            raise
        except Exception as error:
            self.fail(masked, tasks, error)

    def run_task(self, masked: MaskedModel, task: PlannedTask) -> dict[str, float]:
        """Evaluate what is not stored of a task's looks with the model as it is now."""
        looks = self._looks[task.name]
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
        looks = self._looks[task.name]
        if looks.count == 1:
            return None
        names = looks.names[number]
        items = self.session.store.read_items(look_key(self.key(masked, task), number, names))
        return items if items is not None and items["item"].tolist() == names else None

    def look(self, masked: MaskedModel, task: PlannedTask, number: int) -> pd.DataFrame:
        """Evaluate one look with the model as it is now, and store it."""
        looks = self._looks[task.name]
        items = self._evaluate(masked, task, looks.parts[number]).items
        key = look_key(self.key(masked, task), number, looks.names[number])
        return self.session.store.write_items(key, items)

    def finish(
        self, masked: MaskedModel, task: PlannedTask, tables: Sequence[pd.DataFrame]
    ) -> dict[str, float]:
        """Store the outcomes of all looks as one evaluation, in place of them."""
        looks = self._looks[task.name]
        figures = self._finish(masked, task, looks.whole.join(tables))
        for number, names in enumerate(looks.names):
            self.session.store.forget(look_key(self.key(masked, task), number, names))
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
        session.speeds.evaluated(digest, size, time.perf_counter() - start, reading=reading)
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
