"""How long a model's share of a run will take: measured in its first minute, checked at its end.

What was measured here before needs no measuring. Otherwise every task is begun on the unpruned
model, a scored one with some items drawn at random, a generating one with all of its rows, and
given up after its share of a minute. How long answers are is not known by then, so all count as
long as they may be. Once the unpruned model has been evaluated, the forecast is made again; in runs
so short that measuring would cost more than it tells, for the first time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.interruption import stop_if_asked
from mbench.core.provenance import Forecast
from mbench.plan.cost import model_cost
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.run.evaluation_stage import EvaluationStage
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

    def __init__(self, session: ModelSession, later: float, started: float) -> None:
        """`later` are the seconds that models after this one are to take; `started` is when the run
        began (`time.monotonic`)."""
        self._session = session
        self._later = later
        self._started = started
        self._made: list[float] = []
        self._first = True
        self._due = 0.0
        self._tasks: Sequence[PlannedTask] = ()

    def begin(self, stage: EvaluationStage, tasks: Sequence[PlannedTask]) -> None:
        """Measure what is not known, if that pays, and forecast if all is known then."""
        distinct = {task.name: task for task in tasks if stage.evaluator(task) is not None}
        self._tasks = list(distinct.values())
        unknown = [task for task in self._tasks if not self._knows(task)]
        if unknown:
            budget = min(LONGEST, SHARE * self._left()) / len(unknown)
            if budget >= SHORTEST:
                self._session.progress.stage("measure speed")
                measure(self._session, stage, unknown, budget)
        self._forecast()

    def after_mask(self) -> None:
        """Forecast again after the first, the unpruned model; then tell what is left at times."""
        if self._first:
            self._first = False
            self._forecast()
        elif self._made and time.monotonic() >= self._due:
            self._tell(self._left())

    def _forecast(self) -> None:
        """Say what is left, to be checked at the end; nothing while a task's speed is unknown."""
        if not self._tasks or not all(map(self._knows, self._tasks)):
            return
        model, now = self._session.model.name, time.monotonic()
        self._session.speeds.write()
        left = self._left()
        self._made.append(now)
        made = Forecast(model, round(now - self._started, 1), round(left, 1), None)
        self._session.outcome.forecasts.append(made)
        self._session.progress.event("forecast", model=model, seconds=made.seconds)
        self._tell(left)

    def _tell(self, left: float) -> None:
        self._session.progress.time_left(left + self._later)
        self._due = time.monotonic() + TOLD

    def end(self) -> None:
        """All of the model's work is done: note what it took."""
        self._session.speeds.write()
        if self._session.outcome.early:
            return  # not all that was forecast has been done
        end, forecasts = time.monotonic(), self._session.outcome.forecasts
        own = range(len(forecasts) - len(self._made), len(forecasts))
        for at, made in zip(own, self._made, strict=True):
            forecasts[at] = replace(forecasts[at], took=round(end - made, 1))

    def _left(self) -> float:
        session = self._session
        return model_cost(
            session.plan, session.store, session.model, session.speeds.speeds()
        ).seconds

    def _knows(self, task: PlannedTask) -> bool:
        session = self._session
        return session.speeds.knows(session.plan.task_size_key(session.model, task).digest)


def measure(
    session: ModelSession, stage: EvaluationStage, tasks: Sequence[PlannedTask], budget: float
) -> None:
    """Begin each task on the unpruned model, for about `budget` seconds each.

    What fails is left unmeasured: it fails again where it counts, and is told there.
    """
    from mbench.moe.experts import fast_experts
    from mbench.moe.mask import masked

    layers = session.load().layers
    with (
        fast_experts(layers),
        masked(layers, session.model.unpruned_mask, session.plan.suite.router),
    ):
        for task in tasks:
            evaluator = stage.evaluator(task)
            assert evaluator is not None
            size = TaskSize(evaluator.items, evaluator.tokens, evaluator.generated)
            digest = session.plan.task_size_key(session.model, task).digest
            try:
                if size.generated:
                    _measure_generation(session, evaluator, digest, budget)
                else:
                    _measure_scoring(session, evaluator, digest, budget)
            except Exception as error:
                session.progress.event("unmeasured", task=task.name, reason=str(error))


class _Enough(Exception):
    """Ends an evaluation that has taken its share of the time."""


def _measure_generation(
    session: ModelSession, evaluator: Evaluator, digest: str, budget: float
) -> None:
    """Begin with as many answers side by side as in earnest."""
    end = time.perf_counter() + budget

    def stop_in_time() -> None:
        # Not before every kind of work was done.
        if time.perf_counter() > end and evaluator.work and evaluator.work.steps:
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
