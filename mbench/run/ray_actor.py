"""What an actor of Ray does, in a process of its own on some machine of the cluster."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.cell_results import TaskStatus
from mbench.core.errors import SuiteError, shown
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.masked_models import MaskedModel, Pending, unpruned
from mbench.run.processes import Order, session_of
from mbench.run.progress import Progress
from mbench.storage.distributions import version_of
from mbench.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answered:
    """What an actor found out about one mask."""

    tables: Mapping[str, pd.DataFrame]
    """Task -> its items."""
    problems: Mapping[str, TaskStatus]
    """Task -> why it has none."""
    scoring: Mapping[str, str]
    warnings: Sequence[str]


@dataclass(frozen=True)
class Machine:
    """One of a cluster."""

    id: str
    """As Ray knows it."""
    name: str
    """As people know it."""
    process: int = field(default=0, compare=False)
    """The actor's, on that machine."""

    def __str__(self) -> str:
        """For people, who may have to end it."""
        return f"process {self.process} on {self.name}"


def inputs_of(stage: EvaluationStage) -> dict[str, Any]:
    """What decides a mask's figures beside the mask, as plain values: code, versions, model, tasks.

    Equal on every machine that may evaluate a mask of a run.
    """
    session, (mask, router) = stage.session, unpruned(stage.session).identity
    inputs: dict[str, Any] = {"mbench": version_of("mbench")}
    for task in session.plan.tasks:
        record = session.plan.evaluation_key(session.model, mask, router, task).record()
        # All but the task is the same for each.
        inputs |= {name: record[name] for name in ("code", "versions", "model")}
        inputs[f"task {task.name}"] = record["task"]
    return inputs


def _differences(path: Sequence[str], one: Any, other: Any) -> Iterator[tuple[str, str, str]]:
    """Where two plain values differ: the names on the way there, and both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from _differences((*path, name), one.get(name), other.get(name))
    elif one != other:
        yield " ".join(path), shown(one), shown(other)


class Actor:
    """Holds a model, and evaluates masks that it is given; Ray runs it in a process of its own."""

    def __init__(self, order: str, threads: int, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Take what it needs to know of the run.

        Args:
            order: an `Order` as JSON.
            threads: those of the run, for equal digits.
            folder: where the run works, which the suite's paths begin from.
            inputs: what `inputs_of` says of the run.
        """
        self._order = order
        self._threads = threads
        self._work_folder = folder
        self._inputs = inputs

    def machine(self) -> Machine:
        """Where it is; asked first, so that what fails later has a place."""
        import ray

        return Machine(ray.get_runtime_context().get_node_id(), platform.node(), os.getpid())

    def get_ready(self) -> None:
        """Plan the suite as the run did, and load the model.

        Raises `SuiteError` where this machine would compute with something else.
        """
        import torch

        from mbench.run.environment import set_up_libraries

        set_up_libraries()
        torch.set_num_threads(self._threads)
        with contextlib.suppress(OSError):  # absolute paths need no such folder
            os.chdir(self._work_folder)
        told = Order.model_validate_json(self._order)
        self._folder = tempfile.TemporaryDirectory(prefix="mbench-ray-")
        # What it keeps is gone with it: the run stores what comes back.
        store = Store(Path(self._folder.name))
        self._progress = _Remembered()
        self._session = session_of(told, store, self._progress)
        self._stage = EvaluationStage(self._session)
        self._tasks = {task.name: task for task in self._session.plan.tasks}
        self._prepared: set[str] = set()
        for what, here, there in _differences((), inputs_of(self._stage), self._inputs):
            raise SuiteError(f"{what} is {here}, and {there} where the run was started")
        self._session.load()

    def evaluate(self, masked: MaskedModel, names: Sequence[str]) -> Answered:
        """Evaluate a mask on the tasks of these names."""
        tasks = tuple(self._tasks[name] for name in names)
        self._stage.tasks.prepare(task for task in tasks if task.name not in self._prepared)
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
