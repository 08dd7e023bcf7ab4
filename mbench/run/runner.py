"""Executes a plan, model by model: profiles, masks, evaluations; what is stored stays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mbench.core.cell_results import TaskStatus
from mbench.core.errors import caught
from mbench.core.interfaces import WEIGHTS_ONLY
from mbench.plan.cells import Cell, StatisticJob
from mbench.plan.cost import model_cost
from mbench.plan.plan import Plan
from mbench.plan.tasks import PlannedTask
from mbench.run.early.hours import NO_TIME, by_turns, end_of_masks, end_of_savings, last_mask
from mbench.run.efficiency_stage import lacks_efficiency, measure_efficiency
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.executor import Executor, Here
from mbench.run.fetch_stage import fetch, texts_of
from mbench.run.forecast import Forecaster
from mbench.run.mask_stage import make_masks, restore_masks
from mbench.run.masked_models import Pending
from mbench.run.profile_stage import missing_jobs, profile, restore_profiles
from mbench.run.progress import Progress
from mbench.run.published_stage import differing, recognise_checkpoints, restore_recognised
from mbench.run.session import ModelSession, Outcome
from mbench.run.sharing import Sharing
from mbench.run.stored_sizes import find_sizes
from mbench.storage.inputs import Fetchable
from mbench.storage.store import Key, Store


class Runner:
    """One run of one plan."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        progress: Progress,
        executor: Executor | None = None,
        meanwhile: Callable[[Outcome], object] = lambda outcome: None,
        sharing: Sharing | None = None,
    ) -> None:
        """Take what the plan asks from `store`, compute the rest, report to `progress`.

        `executor` has the masks evaluated; None: this process alone. `meanwhile`
        gets the outcome whenever a mask has been evaluated, e.g. to report it. `sharing`: with
        whom the work is shared; None: this run does all of it.
        """
        self.plan = plan
        self.store = store
        self.progress = progress
        self.executor = executor or Here()
        self.outcome = Outcome()
        self._meanwhile = meanwhile
        self._sharing = sharing

    def run(self) -> Outcome:
        """Do everything that can be done; only a `StoreError` ends a run early.

        Ctrl-C ends it too: what was finished is stored, and the outcome says `interrupted`.
        """
        self.store.listen(self.progress.warning)
        self.store.sweep()
        try:
            sessions = [
                ModelSession(
                    self.plan,
                    model,
                    self.store,
                    self.progress,
                    self.outcome,
                    self._meanwhile,
                    self._sharing,
                )
                for model in self.plan.models
            ]
            work = [_work(session) for session in sessions]
            fetch((each for part in work for each in part.inputs()), self.progress)
            for number, part in enumerate(work):
                part.session.begun = time.monotonic()
                find_sizes(part.session)
                recognise_checkpoints(part.session, part.unrecognised)
                self._run_model(part, later=work[number + 1 :])
                measure_efficiency(part.session, self._until(end_of_masks, part.session))
                # Two models need not fit into memory.
                part.session.unload()
                for published in _differing(part.session):
                    self._run_model(published)
                    published.session.unload()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        return self.outcome

    def _run_model(self, work: _Work, later: Sequence[_Work] = ()) -> None:
        """One model's share of the run; `later` are those of the models after it."""
        session, stage = work.session, work.stage
        if not work.cells and not work.jobs and not work.pending:
            restore_profiles(session)
            return
        session.store.require_writable(_lacking(session, work.cells, work.pending))
        seconds = sum(
            model_cost(self.plan, self.store, each.session.model).seconds for each in later
        )
        side_by_side = self.executor.side_by_side if self._sharing is None else None
        forecaster = Forecaster(session, seconds, self.outcome.begun, side_by_side)
        if not _load(session):
            return
        # Tasks come before the passes over the corpora: a mistake in one shows within seconds.
        stage.tasks.prepare(work.tasks)
        _announce_total(session, stage, work.jobs, work.cells)
        if self.executor.hours is not None and session.published_of is None:
            # Afterwards no hours are left.
            measure_efficiency(session, self._until(end_of_savings, session))
        forecaster.begin(stage, work.tasks)
        session.meanwhile = partial(self._told, forecaster)
        problems = profile(session, work.jobs)
        restore_profiles(session)
        _make_masks(session, work.cells, problems, self.executor.hours)
        forecaster.masks_made()
        pending = forecaster.first(stage.pending())
        session.progress.total(session.outcome.forward_tokens + _evaluation_tokens(stage, pending))
        self.executor.evaluate(stage, pending)
        forecaster.end()

    def _until(self, end: Callable[[ModelSession, float], float], session: ModelSession) -> float:
        """One of a model's ends, where the run has hours."""
        return math.inf if self.executor.hours is None else end(session, self.executor.hours)

    def _told(self, forecaster: Forecaster, outcome: Outcome) -> None:
        """A mask has been evaluated, the unpruned model first."""
        forecaster.after_mask()
        self._meanwhile(outcome)


@dataclass(frozen=True)
class _Work:
    """What is left to do with one model."""

    session: ModelSession
    cells: Sequence[Cell]
    """Whose masks are not stored."""
    unrecognised: Sequence[Cell]
    """Published checkpoints of which nothing is known yet."""
    jobs: Mapping[str, Sequence[StatisticJob]]
    """By corpus, statistics that are not stored."""
    stage: EvaluationStage
    pending: Sequence[Pending]
    """Evaluations of stored masks that are not."""

    @property
    def tasks(self) -> list[PlannedTask]:
        """Those that are to be prepared."""
        if self.cells:
            return list(self.session.plan.tasks)
        return [task for item in self.pending for task in item.tasks]

    def inputs(self) -> Iterator[Fetchable]:
        """What must be on disk for it."""
        session = self.session
        left = self.cells or self.jobs or self.pending or lacks_efficiency(session)
        if (left or self.unrecognised) and session.model.checkpoint is not None:
            yield session.model.checkpoint
        for cell in self.unrecognised:
            published = cell.method.published
            if published is not None and published.checkpoint is not None:
                yield published.checkpoint
        for part in _differing(session):
            yield from part.inputs()
        # A search reads text although all statistics may be stored.
        searched = [c for cell in self.cells if cell.search_tokens for c in cell.method.corpora]
        yield from texts_of(session.plan, [*self.jobs, *searched])
        for task in self.tasks:
            yield from task.fetchables


def _work(session: ModelSession) -> _Work:
    """Look at the store; what is there goes into the outcome."""
    cells, unrecognised = restore_masks(session), restore_recognised(session)
    stage = EvaluationStage(session)
    jobs = missing_jobs(session, cells)
    return _Work(session, cells, unrecognised, jobs, stage, stage.pending())


def _differing(session: ModelSession) -> Iterator[_Work]:
    """Each published checkpoint that has to be evaluated itself, as a model of its own."""
    for model in differing(session):
        own = ModelSession(
            session.plan,
            model,
            session.store,
            session.progress,
            session.outcome,
            session.meanwhile,
            session.sharing,
        )
        own.published_of = session
        yield _work(own)


def _lacking(session: ModelSession, cells: Sequence[Cell], pending: Sequence[Pending]) -> str:
    """What a run of the model would store; what follows from masks is not known before."""
    evaluations = sum(len(item.tasks) for item in pending)
    counts = {"mask": len(cells), "evaluation": evaluations}
    said = [f"{count} {what}{'s' * (count != 1)}" for what, count in counts.items() if count]
    return f"{' and '.join(said)} of {session.model.name}"


def _make_masks(
    session: ModelSession, cells: Sequence[Cell], problems: Mapping[Key, str], hours: float | None
) -> None:
    """All of them; within hours something of everything first, and none begins too late."""
    if hours is None:
        make_masks(session, cells, problems)
        return
    end = last_mask(session, hours)

    def too_late() -> TaskStatus | None:
        return NO_TIME if time.monotonic() >= end else None

    # Of all cells, so that a candidate comes first wherever it lacks a mask.
    lacking = {cell.key for cell in cells}
    in_turn = [cell for cell in by_turns(session.cells) if cell.key in lacking]
    make_masks(session, in_turn, problems, too_late)


def _load(session: ModelSession) -> bool:
    """Load the model; False, and the reason for everything unfinished, where it cannot be."""
    try:
        session.load()
    except Exception as error:
        problem = TaskStatus("failed", caught(error))
        session.progress.warning(problem.reason)
        for cell in session.cells:
            session.outcome.mask_problems.setdefault(cell.key, problem)
        for task in session.plan.tasks:
            session.outcome.task_problems[session.model.name, task.name] = problem
        return False
    return True


def _announce_total(
    session: ModelSession,
    stage: EvaluationStage,
    jobs: Mapping[str, Sequence[StatisticJob]],
    cells: Sequence[Cell],
) -> None:
    """Set the total to the most there can be: masks that are not made yet may turn out equal."""
    corpora = [session.plan.corpora[corpus] for corpus in jobs if corpus != WEIGHTS_ONLY]
    unmade = [cell for cell in cells if cell.method.evaluated]
    session.progress.total(
        session.outcome.forward_tokens
        + sum(corpus.tokens for corpus in corpora)
        + _evaluation_tokens(stage, stage.pending())
        + sum(stage.tasks.tokens(task) for cell in unmade for task in session.plan.tasks_of(cell))
        + sum(cell.search_tokens for cell in cells)
    )


def _evaluation_tokens(stage: EvaluationStage, pending: Sequence[Pending]) -> int:
    return sum(stage.tasks.tokens(task) for item in pending for task in item.tasks)
