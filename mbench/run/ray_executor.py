"""Evaluation by actors of a Ray cluster, each a process of its own with the model on its GPUs.

The cluster is Ray's own affair: one that `RAY_ADDRESS` names or that runs here already, else one of
this machine alone. An actor needs the model's files and the tasks' data at the places that they
have here, and nothing of the store: masks go to it and tables of items come back. It ends when the
model is done. What an actor had that is lost, e.g. with its machine, another does.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.errors import MbenchError, SuiteError, one_line
from mbench.core.interruption import stop_if_asked
from mbench.core.results import TaskStatus
from mbench.plan.plan import Plan
from mbench.run.evaluation_stage import EvaluationStage, MaskedModel, Pending
from mbench.run.executor import threads_of
from mbench.run.processes import Order, session_of
from mbench.run.progress import Progress
from mbench.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

TRIES = 3
"""Actors that a mask may take down before it counts as failed."""


@dataclass(frozen=True)
class Answered:
    """What an actor found out about one mask."""

    tables: Mapping[str, pd.DataFrame]
    """Task -> its items."""
    problems: Mapping[str, TaskStatus]
    """Task -> why it has none."""
    scoring: Mapping[str, str]
    warnings: Sequence[str]


class OnRay:
    """As many actors as the cluster has room for."""

    def __init__(self, plan: Plan, store: Store, gpus: int | None = None) -> None:
        """`gpus` is how many an actor takes; None: one where the cluster has any.

        Raises `SuiteError` where Ray is not installed, the cluster has fewer GPUs, or plugins exist
        in this process alone.
        """
        try:
            import ray  # noqa: F401
        except ImportError:
            raise SuiteError(
                "--executor ray needs Ray, which is not installed: pip install 'mbench[ray]'"
            ) from None
        if plan.registry.given:
            raise SuiteError(
                f"plugin {next(iter(plan.registry.given))} exists in this process alone, where no"
                " actor of Ray can load it: give it as a file or a package"
            )
        self._plan = plan
        self._store = store
        self._gpus = gpus
        if gpus:  # asked now and not after hours of profiling
            _connect()
            try:
                self._resources()
            finally:
                _ray().shutdown()

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Hand out masks to actors until all have an outcome or a reason for having none."""
        import torch

        ray = _ray()
        if not pending:
            return
        with threads_of(self._plan):
            threads = torch.get_num_threads()
        # Its place on this machine's GPU is an actor's.
        stage.session.unload()
        started = not ray.is_initialized()
        if started:
            _connect()
        try:
            with stage.session.timed("evaluate"):
                _Pool(self._order(stage), threads, self._resources()).run(stage, pending)
        finally:
            if started:
                ray.shutdown()

    def _order(self, stage: EvaluationStage) -> str:
        from mbench.run.processes import Processes

        return Processes(self._plan, self._store).order(stage.model_name, 0).to_json()

    def _resources(self) -> dict[str, float]:
        """What an actor takes of the cluster."""
        there = _ray().cluster_resources()
        gpus = self._gpus if self._gpus is not None else int(bool(there.get("GPU")))
        if gpus > there.get("GPU", 0):
            raise SuiteError(f"--gpus {gpus}: the Ray cluster has {there.get('GPU', 0):g} GPUs")
        return {"num_gpus": gpus, "num_cpus": 1}


def _connect() -> None:
    """To the cluster that there is, else to one of this machine."""
    ray = _ray()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        ray.init(include_dashboard=False, **quiet)


class _Pool:
    """Actors, and what each is doing."""

    def __init__(self, order: str, threads: int, resources: Mapping[str, float]) -> None:
        # What Ray says of its types does not go with arguments that are put together.
        self._remote = _ray().remote(max_restarts=0, **resources)(Actor)
        self._arguments = (order, threads)
        self._resources = resources
        self._starting: dict[Any, Any] = {}
        """What is awaited -> the actor that gets ready: it may wait for room in the cluster."""
        self._working: dict[Any, tuple[Any, Pending]] = {}
        """What is awaited -> the actor that does it, and the mask."""
        self._idle: list[Any] = []
        self._waiting: deque[Pending] = deque()
        self._lost: Counter[Hashable] = Counter()
        """Actors that ended at a mask."""
        self._broken: list[str] = []
        """Why actors could not get ready."""

    def run(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Return once every mask has an outcome, or a reason for having none."""
        ray = _ray()
        self._waiting += [item for item in pending if stage.prepared(item)]
        try:
            while self._waiting or self._working:
                self._hand_out(stage)
                if not self._working and not self._starting:
                    for item in self._waiting:
                        error = MbenchError(self._broken[-1])
                        stage.fail(item.masked, stage.prepared(item), error)
                    return
                awaited = [*self._working, *self._starting]
                for ready in ray.wait(awaited, num_returns=1, timeout=1.0)[0]:
                    if ready in self._starting:
                        self._got_ready(ready)
                    else:
                        self._answered(stage, ready)
                stop_if_asked()
        finally:
            working = (actor for actor, _ in self._working.values())
            for actor in [*self._idle, *self._starting.values(), *working]:
                ray.kill(actor)

    def _hand_out(self, stage: EvaluationStage) -> None:
        """Masks to actors that are ready; and have as many get ready as there is work for."""
        while self._waiting and self._idle:
            actor, item = self._idle.pop(), self._waiting.popleft()
            names = [task.name for task in stage.prepared(item)]
            self._working[actor.evaluate.remote(item.masked, names)] = (actor, item)
        busy = len(self._working) + len(self._starting)
        wanted = min(self._most(), len(self._waiting) + len(self._working))
        for _ in range(wanted - busy if len(self._broken) < TRIES else 0):
            actor = self._remote.remote(*self._arguments)
            self._starting[actor.get_ready.remote()] = actor

    def _got_ready(self, ready: Any) -> None:
        ray, actor = _ray(), self._starting.pop(ready)
        try:
            ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            self._broken.append(one_line(error.cause))
            ray.kill(actor)
        except ray.exceptions.RayError as error:
            self._broken.append(one_line(error))
        else:
            self._idle.append(actor)

    def _answered(self, stage: EvaluationStage, ready: Any) -> None:
        ray, (actor, item) = _ray(), self._working.pop(ready)
        try:
            answered: Answered = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            why = one_line(error.cause)
            stage.fail(item.masked, stage.prepared(item), MbenchError(why))
            self._idle.append(actor)
        except ray.exceptions.RayError as error:
            # Its process or machine is gone, maybe with an answer that lay there; what it had is
            # another's.
            ray.kill(actor)
            self._lost[item.masked.identity] += 1
            if self._lost[item.masked.identity] < TRIES:
                self._waiting.append(item)
            else:
                why = f"{TRIES} actors of Ray ended at it: {one_line(error)}"
                stage.fail(item.masked, stage.prepared(item), MbenchError(why))
        else:
            stage.take(item, answered.tables, answered.problems, answered.scoring)
            for text in answered.warnings:
                stage.session.progress.warning(text)
            self._idle.append(actor)

    def _most(self) -> int:
        """Actors that the cluster has room for by now; machines come and go."""
        there = _ray().cluster_resources()
        names = {"num_gpus": "GPU", "num_cpus": "CPU"}
        fits = [
            int(there.get(names[kind], 0) // each) for kind, each in self._resources.items() if each
        ]
        return max(1, min(fits))


def _ray() -> Any:
    """Ray, most of whose functions have no types."""
    import ray

    return ray


class Actor:
    """Holds a model, and evaluates masks that it is given; Ray runs it in a process of its own."""

    def __init__(self, order: str, threads: int) -> None:
        """`order` is an `Order` as JSON; `threads` are those of the run, for equal digits."""
        self._order = order
        self._threads = threads

    def get_ready(self) -> None:
        """Plan the suite as the run did, and load the model."""
        import torch

        from mbench.run.environment import set_up_libraries

        set_up_libraries()
        torch.set_num_threads(self._threads)
        told = Order.model_validate_json(self._order)
        self._folder = tempfile.TemporaryDirectory(prefix="mbench-ray-")
        # What it keeps is gone with it: the run stores what comes back.
        store = Store(Path(self._folder.name))
        self._progress = _Remembered()
        self._session = session_of(told, store, self._progress)
        self._stage = EvaluationStage(self._session)
        self._tasks = {task.name: task for task in self._session.plan.tasks}
        self._prepared: set[str] = set()
        self._session.load()

    def evaluate(self, masked: MaskedModel, names: Sequence[str]) -> Answered:
        """Evaluate a mask on the tasks of these names."""
        tasks = tuple(self._tasks[name] for name in names)
        self._stage.prepare(task for task in tasks if task.name not in self._prepared)
        self._prepared |= set(names)
        self._stage.run([Pending(masked, tasks)])
        outcome, model = self._session.outcome, self._session.model.name
        tables, problems = {}, {}
        for task in tasks:
            key = self._stage.key(masked, task)
            if key in outcome.evaluations:
                tables[task.name] = outcome.evaluations[key].items
                continue
            unbuilt = outcome.task_problems.get((model, task.name))
            problems[task.name] = outcome.evaluation_problems.get(
                key, unbuilt or TaskStatus("failed", "the actor gave no outcome")
            )
        scoring = {task: how for (_, task), how in outcome.scoring.items()}
        return Answered(tables, problems, scoring, self._progress.take())


class _Remembered(Progress):
    """Keeps warnings until somebody takes them."""

    def __init__(self) -> None:
        self._warnings: list[str] = []

    def warning(self, text: str) -> None:
        """Keep it."""
        self._warnings.append(text)

    def take(self) -> list[str]:
        """Those since the last time."""
        taken, self._warnings = self._warnings, []
        return taken
