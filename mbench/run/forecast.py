"""How long a model's share of a run will take: measured in its first minute, checked at its end.

What was measured here before needs no measuring. Otherwise every task is begun under masks drawn at
random, one of each budget, and given up after its share of a minute: a scored task with some items
drawn at random, a generating one with all of its rows. How long answers get is reckoned from how
many had ended by then. Once a mask of each budget has been evaluated, the forecast is made again;
in runs so short that measuring would cost more than it tells, for the first time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.interfaces import Budget, ExpertMask
from mbench.core.interruption import stop_if_asked
from mbench.core.run_record import Forecast
from mbench.plan.cost import ModelCost, model_cost
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.executor import threads_of
from mbench.run.masked_models import Pending
from mbench.run.session import ModelSession

if TYPE_CHECKING:
    from mbench.core.evaluation import Evaluator

LONGEST = 45.0
"""Seconds that measuring may take in all."""

SHARE = 0.01
"""Of the time that a run is roughly to take: most that measuring may cost."""

SHORTEST = 0.5
"""Seconds for a task below which nothing is measured beforehand."""

TOLD = 15.0
"""Seconds from one word on what is left to the next: counting what is stored takes a moment."""

ITEMS = 8
"""With which a scored task is begun; four times as many until it has taken its share."""


class Forecaster:
    """Forecasts one model's share of a run, tells what is left, and checks itself."""

    def __init__(
        self, session: ModelSession, later: float, started: float, side_by_side: int | None
    ) -> None:
        """Before the model is loaded.

        `later` are the seconds that models after this one are to take; `started` is when the run
        began (`time.monotonic`); `side_by_side` are the masks that are evaluated at a time: nothing
        is forecast where that is None, not known.
        """
        self._session = session
        self._later = later
        self._started = started
        self._side_by_side = side_by_side
        self._before = time.monotonic()
        self._made: list[float] = []
        self._counted = 0
        """Evaluations to come, by the last forecast."""
        self._masks = 0
        self._ahead = 0
        """Masks after which each budget was seen."""
        self._due = 0.0
        self._tasks: Sequence[PlannedTask] = ()

    def begin(self, stage: EvaluationStage, tasks: Sequence[PlannedTask]) -> None:
        """The model is loaded and tasks are prepared: measure what is not known, if that pays, and
        forecast if all is known then."""
        if self._side_by_side is None:
            return
        distinct = {task.name: task for task in tasks if task in stage.tasks}
        self._tasks = list(distinct.values())
        unknown = [task for task in self._tasks if not self._knows(task)]
        masks = masks_drawn(self._session)
        if unknown and masks:
            budget = min(LONGEST, SHARE * self._left()) / len(unknown) / len(masks)
            if budget >= SHORTEST:
                self._session.progress.stage("measure speed")
                measure(self._session, stage, unknown, masks, budget)
        # Other processes are as long in coming as this one was.
        others = self._side_by_side - 1
        coming = (time.monotonic() - self._before) * others / self._side_by_side
        self._forecast(coming)

    def first(self, pending: Sequence[Pending]) -> list[Pending]:
        """A mask of each budget from the middle of its methods before the rest, after the unpruned
        model, so that all speeds and lengths of answers are soon known."""
        by_size: dict[int, list[Pending]] = {}
        for item in pending:
            by_size.setdefault(int(item.masked.mask.keep.sum()), []).append(item)
        ahead = [items[len(items) // 2] for items in by_size.values()]
        self._ahead = len(ahead)
        others = (item for item in pending if not any(item is each for each in ahead))
        return [*ahead, *others]

    def masks_made(self) -> None:
        """Forecast again if methods have agreed."""
        if self._made and self._cost().evaluations_left != self._counted:
            self._forecast()

    def after_mask(self) -> None:
        """Forecast again once a mask of each budget is done; then tell what is left at times."""
        self._masks += 1
        if self._masks == self._ahead:
            self._forecast()
        elif self._made and time.monotonic() >= self._due:
            self._tell(self._left())

    def _forecast(self, coming: float = 0.0) -> None:
        """Say what is left, to be checked at the end; nothing while a task's speed is unknown."""
        if not self._tasks or not all(map(self._knows, self._tasks)):
            return
        model, now = self._session.model.name, time.monotonic()
        self._session.speeds.write()
        cost = self._cost()
        left, self._counted = self._seconds(cost) + coming, cost.evaluations_left
        self._made.append(now)
        after = round(now - self._started, 1)
        made = Forecast(model, after, round(left, 1), self._counted, took=None)
        self._session.outcome.forecasts.append(made)
        self._session.progress.event("forecast", model=model, seconds=made.seconds)
        self._tell(left)

    def _tell(self, left: float) -> None:
        self._session.progress.time_left(left + self._later)
        self._due = time.monotonic() + TOLD

    def end(self) -> None:
        """All of the model's work is done: note what it took."""
        self._session.speeds.write()
        end, forecasts = time.monotonic(), self._session.outcome.forecasts
        own = range(len(forecasts) - len(self._made), len(forecasts))
        for at, made in zip(own, self._made, strict=True):
            forecasts[at] = replace(forecasts[at], took=round(end - made, 1))

    def _left(self) -> float:
        return self._seconds(self._cost())

    def _seconds(self, cost: ModelCost) -> float:
        """Of a model that is loaded."""
        return max(0.0, cost.seconds - self._session.speeds.speeds().load)

    def _cost(self) -> ModelCost:
        session, speeds = self._session, self._session.speeds.speeds()
        return model_cost(session.plan, session.store, session.model, speeds, self._side_by_side)

    def _knows(self, task: PlannedTask) -> bool:
        session = self._session
        return session.speeds.knows(session.plan.task_size_key(session.model, task).digest)


def masks_drawn(session: ModelSession) -> list[ExpertMask]:
    """One of each budget, for measuring: which experts they keep changes speed by little."""
    rng = np.random.default_rng(0)
    budgets = {(cell.budget.kept, cell.budget.groups): cell.budget for cell in session.cells}
    return [_drawn(budget, rng) for budget in budgets.values()]


def _drawn(budget: Budget, rng: np.random.Generator) -> ExpertMask:
    """Equally many experts of each group."""
    order = rng.random((budget.num_layers, budget.groups, budget.num_experts // budget.groups))
    keep = order.argsort(axis=-1).argsort(axis=-1) < budget.kept // budget.groups
    return ExpertMask(keep.reshape(budget.num_layers, budget.num_experts))


def measure(
    session: ModelSession,
    stage: EvaluationStage,
    tasks: Sequence[PlannedTask],
    masks: Sequence[ExpertMask],
    budget: float,
) -> None:
    """Begin each task under each mask, for about `budget` seconds each.

    What fails is left unmeasured: it fails again where it counts, and is told there.
    """
    from mbench.moe.experts import fast_experts
    from mbench.moe.mask import masked

    layers = session.load().layers
    for mask in masks:
        with (
            _unmeasured_if_it_fails(session),
            threads_of(session.plan),
            fast_experts(layers),
            masked(layers, mask, session.plan.suite.router),
        ):
            for task in tasks:
                evaluator = stage.tasks.looks(task).whole
                digest = session.plan.task_size_key(session.model, task).digest
                with _unmeasured_if_it_fails(session, task=task.name):
                    if evaluator.generated:
                        _measure_generation(session, evaluator, digest, budget)
                    else:
                        _measure_scoring(session, evaluator, digest, budget)


@contextlib.contextmanager
def _unmeasured_if_it_fails(session: ModelSession, **what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        session.progress.event("unmeasured", **what, reason=str(error))


class _Enough(Exception):
    """Ends an evaluation that has taken its share of the time."""


def _measure_generation(
    session: ModelSession, evaluator: Evaluator, digest: str, budget: float
) -> None:
    """Begin with as many answers side by side as in earnest."""
    end = time.perf_counter() + budget

    def stop_in_time() -> None:
        # Not before every kind of work was done, of which there is one where a token is an answer.
        work = evaluator.work
        if work and time.perf_counter() > end and (work.steps or 0 < work.begun == work.limits):
            raise _Enough

    with contextlib.suppress(_Enough):
        _evaluate(session, evaluator, stop_in_time)
    if evaluator.work:
        session.speeds.begun(digest, evaluator.work)


def _measure_scoring(
    session: ModelSession, evaluator: Evaluator, digest: str, budget: float
) -> None:
    """Time a random part; the last and largest counts, since the first call warms up."""
    order = np.random.default_rng(0).permutation(evaluator.items)
    count, spent = ITEMS, 0.0
    while True:
        part = evaluator.part(np.sort(order[:count]).tolist())
        start = time.perf_counter()
        _evaluate(session, part)
        seconds = time.perf_counter() - start
        spent += seconds
        if spent >= budget / 2 or count >= evaluator.items:
            break
        count *= 4
    session.speeds.evaluated(digest, TaskSize(part.items, part.tokens, 0), seconds)


def _evaluate(
    session: ModelSession, evaluator: Evaluator, between: Callable[[], None] = lambda: None
) -> None:
    """Without progress: what is done here is done again."""

    def count(tokens: int) -> None:
        stop_if_asked()
        session.outcome.forward_tokens += tokens
        between()

    model = session.load().model
    limit = session.batch_limit(evaluator.name)
    evaluator.evaluate(model, batch_tokens=limit, advance=count)
