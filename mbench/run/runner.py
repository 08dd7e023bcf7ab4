"""Executes a plan, model by model: profiles, masks, evaluations; what is stored stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mbench.core.errors import caught
from mbench.core.results import TaskStatus
from mbench.plan.cells import Cell, Plan, StatisticJob
from mbench.run.efficiency_stage import measure_efficiency
from mbench.run.evaluation_stage import EvaluationStage, Pending
from mbench.run.executor import Executor, Here
from mbench.run.mask_stage import make_masks, restore_masks
from mbench.run.profile_stage import missing_jobs, profile, restore_profiles
from mbench.run.progress import Progress
from mbench.run.session import ModelSession, Outcome
from mbench.storage.store import Store


class Runner:
    """One run of one plan."""

    def __init__(
        self, plan: Plan, store: Store, progress: Progress, executor: Executor | None = None
    ) -> None:
        """Take what the plan asks from `store`, compute the rest, report to `progress`.

        `executor` has the masks evaluated; None: this process alone.
        """
        self.plan = plan
        self.store = store
        self.progress = progress
        self.executor = executor or Here()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do everything that can be done; only a `StoreError` ends a run early.

        Ctrl-C ends it too: what was finished is stored, and the outcome says `interrupted`.
        """
        self.store.listen(self.progress.warning)
        self.store.sweep()
        try:
            for model in self.plan.models:
                session = ModelSession(self.plan, model, self.store, self.progress, self.outcome)
                _run_model(session, self.executor)
                measure_efficiency(session)
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        return self.outcome


def _run_model(session: ModelSession, executor: Executor) -> None:
    cells = restore_masks(session)
    jobs = missing_jobs(session, cells)
    stage = EvaluationStage(session)
    pending = stage.pending()
    if not cells and not jobs and not pending:
        restore_profiles(session)
        return
    session.store.require_writable(_lacking(session, cells, pending))
    if not _load(session):
        return
    # Tasks come before the passes over the corpora: a mistake in one shows within seconds.
    if cells:
        stage.prepare(session.plan.tasks)
    else:
        stage.prepare(task for item in pending for task in item.tasks)
    _announce_total(session, stage, jobs, cells)
    problems = profile(session, jobs)
    restore_profiles(session)
    make_masks(session, cells, problems)
    pending = stage.pending()
    session.progress.total(session.outcome.forward_tokens + _evaluation_tokens(stage, pending))
    executor.evaluate(stage, pending)


def _lacking(session: ModelSession, cells: Sequence[Cell], pending: Sequence[Pending]) -> str:
    """What a run of the model would store."""
    evaluations = sum(len(item.tasks) for item in pending)
    return f"{len(cells)} masks and at least {evaluations} evaluations of {session.model.name}"


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
    cells: list[Cell],
) -> None:
    """Set the total to the most there can be: masks that are not made yet may turn out equal."""
    specs = [session.plan.suite.corpora[corpus] for corpus in jobs]
    unmade = sum(cell.method.evaluated for cell in cells)
    session.progress.total(
        session.outcome.forward_tokens
        + sum(spec.sequences * spec.length for spec in specs)
        + _evaluation_tokens(stage, stage.pending())
        + unmade * sum(stage.tokens(task) for task in session.plan.tasks)
    )


def _evaluation_tokens(stage: EvaluationStage, pending: list[Pending]) -> int:
    return sum(stage.tokens(task) for item in pending for task in item.tasks)
