"""Executes a plan: profiles, masks, evaluations; isolates failures; everything done stays done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbench.corpora import sequences
from mbench.cost import speed_key, task_cost_key
from mbench.errors import MbenchError, StoreError
from mbench.evaluate.outcome import Evaluation, evaluation
from mbench.interfaces import ExpertMask
from mbench.masks import MaskMaker, mask_from_json, mask_to_json
from mbench.plan import SHARDS, Cell, Plan, PlannedModel, PlannedTask, StatisticJob
from mbench.progress import Progress
from mbench.results import TaskStatus
from mbench.store import Store

if TYPE_CHECKING:
    from mbench.evaluate.outcome import Evaluator
    from mbench.moe.load import LoadedModel


@dataclass
class Outcome:
    """What a run knows at any moment; a report can be made of it even if it was interrupted."""

    masks: dict[str, ExpertMask] = field(default_factory=dict)
    """Cell key -> mask."""
    mask_problems: dict[str, TaskStatus] = field(default_factory=dict)
    """Cell label -> why it has no mask."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """Evaluation key -> outcome."""
    evaluation_problems: dict[str, TaskStatus] = field(default_factory=dict)
    """Evaluation key, or `model task` for a task that could not be built -> why."""
    forward_tokens: int = 0
    """Tokens of the forward passes of this run; 0 where everything was in the store."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of this run by stage."""
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`model corpus` -> facts a reader should see, e.g. experts never selected."""
    interrupted: bool = False


class Runner:
    """One run of one plan."""

    def __init__(self, plan: Plan, store: Store, progress: Progress) -> None:
        """Take what the plan asks from `store`, compute the rest, tell `progress`."""
        self.plan = plan
        self.store = store
        self.progress = progress
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do everything that can be done; only a `StoreError` ends a run early.

        Ctrl-C ends it too: what was finished is stored, and the outcome says `interrupted`.
        """
        try:
            for model in self.plan.models:
                _ModelRun(self, model).run()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        return self.outcome

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.outcome.seconds[stage] = self.outcome.seconds.get(stage, 0.0) + spent


class _ModelRun:
    """One model's share of a run. Weights are loaded when the first forward pass needs them."""

    def __init__(self, runner: Runner, model: PlannedModel) -> None:
        self.runner = runner
        self.plan = runner.plan
        self.store = runner.store
        self.progress = runner.progress
        self.outcome = runner.outcome
        self.model = model
        self._loaded: LoadedModel | None = None
        self._evaluators: dict[str, Evaluator] = {}
        self._corpus_problems: dict[str, str] = {}

    def run(self) -> None:
        cells = self.plan.cells_of(self.model.name)
        pending = [cell for cell in cells if not self._restore_mask(cell)]
        self._profile(pending)
        self._make_masks(pending)
        self._evaluate(cells)

    # Profiles

    def _profile(self, cells: list[Cell]) -> None:
        """One forward pass per corpus for all statistics that are missing there."""
        missing: dict[str, dict[str, StatisticJob]] = {}
        for cell in cells:
            for corpus, jobs in cell.statistics.items():
                for job in jobs:
                    if not self.store.has_statistic(job.key):
                        missing.setdefault(corpus, {})[job.key] = job
        for corpus, jobs in missing.items():
            try:
                with self.runner.timed("profile"):
                    self._profile_corpus(corpus, list(jobs.values()))
            except StoreError:
                raise
            except Exception as error:
                self._corpus_problems[corpus] = _reason(error)
                self.progress.warning(f"profile of {self.model.name} on {corpus}: {_reason(error)}")

    def _profile_corpus(self, corpus: str, jobs: list[StatisticJob]) -> None:
        from mbench.moe.profile import profile_model

        spec = self.plan.suite.corpora[corpus]
        self.progress.stage(f"profile {self.model.name} on {corpus}")
        loaded = self._load()
        tokens = sequences(self.plan.texts[corpus], spec, loaded.tokenizer)
        collected = profile_model(
            loaded.model,
            loaded.layers,
            tokens,
            [job.statistic for job in jobs],
            batch_size=max(1, self.plan.suite.batch_tokens // spec.length),
            shards=SHARDS,
            advance=self._advance,
        )
        meta = {"tokens": tokens.tokens, "corpus": corpus}
        for job in jobs:
            identity = job.statistic.identity
            sums = collected.sums.get(identity, {})
            self.store.write_statistic(job.key, meta, sums, collected.samples.get(identity, {}))
        self.progress.event("profile", model=self.model.name, corpus=corpus, tokens=tokens.tokens)

    # Masks

    def _restore_mask(self, cell: Cell) -> bool:
        stored = self.store.read_json("masks", cell.key) if cell.key else None
        if stored is None:
            return False
        self.outcome.masks[cell.key] = mask_from_json(stored, self.model.facts.layers)
        return True

    def _make_masks(self, cells: list[Cell]) -> None:
        maker = MaskMaker(self.model, self.store)
        by_key = {cell.key: cell for cell in self.plan.cells_of(self.model.name)}
        with self.runner.timed("masks"):
            for cell in cells:
                self.progress.stage(f"mask {cell.label}")
                problem = self._obstacle(cell, by_key)
                if problem is None:
                    try:
                        self._make_mask(maker, cell)
                    except StoreError:
                        raise
                    except Exception as error:
                        problem = TaskStatus("failed", _reason(error))
                if problem is not None:
                    self.outcome.mask_problems[cell.label] = problem
                    self.progress.event(
                        "mask", cell=cell.label, status=problem.status, reason=problem.reason
                    )

    def _obstacle(self, cell: Cell, by_key: Mapping[str, Cell]) -> TaskStatus | None:
        """Why the cell cannot even be tried."""
        if cell.problem:
            return TaskStatus("failed", cell.problem)
        for corpus in cell.statistics:
            if corpus in self._corpus_problems:
                reason = f"no profile on {corpus}: {self._corpus_problems[corpus]}"
                return TaskStatus("blocked", reason)
        if cell.candidate is not None and cell.candidate not in self.outcome.masks:
            name = cell.method.candidate
            return TaskStatus("blocked", f"its candidate {name!r} has no mask at this budget")
        return None

    def _make_mask(self, maker: MaskMaker, cell: Cell) -> None:
        candidate = self.outcome.masks[cell.candidate] if cell.candidate is not None else None
        mask = maker.make(cell, candidate)
        self.outcome.masks[cell.key] = mask
        self.store.write_json("masks", cell.key, mask_to_json(mask, self.model.facts.layers))
        self.progress.event("mask", cell=cell.label, status="ok", mask=mask.content_hash)

    # Evaluations

    def _evaluate(self, cells: list[Cell]) -> None:
        """Every distinct mask on every task, the unpruned model first."""
        masks = {unpruned.content_hash: ("unpruned", unpruned) for unpruned in [self.unpruned()]}
        for cell in cells:
            mask = self.outcome.masks.get(cell.key)
            if mask is not None and cell.method.evaluated:
                masks.setdefault(mask.content_hash, (cell.label, mask))
        pending = []
        for mask_hash, (label, mask) in masks.items():
            missing = [task for task in self.plan.tasks if not self._restore(mask_hash, task)]
            if missing:
                pending.append((label, mask, missing))
        if not pending:
            return
        self._prepare([task for _, _, missing in pending for task in missing])
        self.progress.total(
            self.outcome.forward_tokens
            + sum(
                self._evaluators[task.name].tokens
                for _, _, missing in pending
                for task in missing
                if task.name in self._evaluators
            )
        )
        tokens, start = self.outcome.forward_tokens, time.perf_counter()
        with self.runner.timed("evaluate"):
            for label, mask, missing in pending:
                self._evaluate_mask(label, mask, missing)
        done = self.outcome.forward_tokens - tokens
        speed = {"tokens_per_second": done / (time.perf_counter() - start)}
        if done:
            self.store.write_json("facts", speed_key(self.model), speed)

    def unpruned(self) -> ExpertMask:
        """The mask that keeps every expert."""
        return ExpertMask(self.model.all_kept())

    def _restore(self, mask_hash: str, task: PlannedTask) -> bool:
        key = self.plan.evaluation_key(self.model, mask_hash, task)
        items = self.store.read_items(key)
        if items is None:
            return False
        self.outcome.evaluations[key] = evaluation(task.name, items)
        return True

    def _prepare(self, tasks: list[PlannedTask]) -> None:
        """Build and tokenise each task once; one that cannot be built fails for every mask."""
        from mbench.evaluate.prepare import prepare_task

        for task in {task.name: task for task in tasks}.values():
            self.progress.stage(f"prepare {task.name}")
            try:
                with self.runner.timed("prepare"):
                    loaded = self._load()
                    evaluator = prepare_task(task, loaded.tokenizer, self._positions(loaded))
                self._evaluators[task.name] = evaluator
                cost = {"tokens": evaluator.tokens, "items": evaluator.items}
                self.store.write_json("facts", task_cost_key(self.model, task), cost)
            except StoreError:
                raise
            except Exception as error:
                self._task_problem(task, _reason(error))

    @staticmethod
    def _positions(loaded: LoadedModel) -> int | None:
        """Longest input that the model was made for, if it says."""
        return getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)

    def _task_problem(self, task: PlannedTask, reason: str) -> None:
        self.progress.warning(f"task {task.name}: {reason}")
        problem = TaskStatus("failed", reason)
        self.outcome.evaluation_problems[f"{self.model.name} {task.name}"] = problem

    def _evaluate_mask(self, label: str, mask: ExpertMask, tasks: list[PlannedTask]) -> None:
        from mbench.moe.experts import fast_experts
        from mbench.moe.mask import masked

        loaded = self._load()
        tasks = [task for task in tasks if task.name in self._evaluators]
        figures = {}
        try:
            with (
                fast_experts(loaded.layers),
                masked(loaded.layers, mask, self.plan.suite.router),
            ):
                for task in tasks:
                    self.progress.stage(f"{label}: {task.name}")
                    figures |= self._evaluate_task(loaded, label, mask, task)
        except StoreError:
            raise
        except Exception as error:
            for task in tasks:
                key = self.plan.evaluation_key(self.model, mask.content_hash, task)
                if key not in self.outcome.evaluations:
                    problem = TaskStatus("failed", _reason(error))
                    self.outcome.evaluation_problems.setdefault(key, problem)
            self.progress.warning(f"{label}: {_reason(error)}")
        if figures:
            self.progress.figures(label, figures)

    def _evaluate_task(
        self, loaded: LoadedModel, label: str, mask: ExpertMask, task: PlannedTask
    ) -> dict[str, float]:
        key = self.plan.evaluation_key(self.model, mask.content_hash, task)
        try:
            result = self._evaluators[task.name].evaluate(
                loaded.model, batch_tokens=self.plan.suite.batch_tokens, advance=self._advance
            )
        except Exception as error:
            self.outcome.evaluation_problems[key] = TaskStatus("failed", _reason(error))
            self.progress.event(
                "evaluation", mask=label, task=task.name, status="failed", reason=_reason(error)
            )
            return {}
        values = {metric.name: metric.value for metric in result.metrics}
        if task.metric not in values:
            reason = f"no metric {task.metric!r}; it has {', '.join(sorted(values))}"
            self.outcome.evaluation_problems[key] = TaskStatus("failed", reason)
            return {}
        self.store.write_items(key, result.items)
        self.outcome.evaluations[key] = result
        self.progress.event("evaluation", mask=label, task=task.name, status="ok", **values)
        return {task.name: values[task.metric]}

    def _advance(self, tokens: int) -> None:
        self.outcome.forward_tokens += tokens
        self.progress.advance(tokens)

    def _load(self) -> LoadedModel:
        if self._loaded is None:
            from mbench.moe.load import load

            self.progress.stage(f"load {self.model.name}")
            with self.runner.timed("load"):
                model = self.model
                self._loaded = load(model.place, revision=model.revision, dtype=model.dtype)
        return self._loaded


def _reason(error: BaseException) -> str:
    """One line; an error that is not the user's keeps its type."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, MbenchError) else f"{type(error).__name__}: {text}"
