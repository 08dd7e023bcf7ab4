"""Evaluation in several processes on this machine; the store is all that they share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mbench.core.child_process import end_with_parent
from mbench.core.debugger import debugging
from mbench.core.suite import Suite
from mbench.plan.plan import Plan, make_plan
from mbench.plan.plugin_loading import load_registry
from mbench.plan.yaml_source import YamlSource
from mbench.plan.yaml_text import PlacedMap
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.executor import threads_of
from mbench.run.mask_stage import restore_masks
from mbench.run.masked_models import Pending
from mbench.run.progress import Progress
from mbench.run.session import ModelSession, Outcome
from mbench.run.sharing import Alone, Shared
from mbench.storage.hub.offline import offline
from mbench.storage.inputs import Inputs, Pins
from mbench.storage.records import from_plain, to_plain
from mbench.storage.store import Store


class Order(BaseModel):
    """What a worker needs to know, as one line of JSON on its standard input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: Suite
    plugin_files: tuple[Path, ...]
    store: str
    model: str
    worker: int
    """1 for the first one beside the run itself."""
    pins: dict[str, Any]
    """What the run took from the hub, as plain values."""

    def to_json(self) -> str:
        """Only what is set, because a parameter given as null differs from one that is left out."""
        return self.model_dump_json(exclude_unset=True)


class Processes:
    """This process, and as many others as the suite asks for, unless a GPU does the work.

    Plugins of this process alone leave it alone, too: no other could load them. So does the
    debugger.
    """

    hours = None

    def __init__(self, plan: Plan, store: Store) -> None:
        """Workers get the suite, the plugins and the store of this plan."""
        self._plan = plan
        self._store = store

    @property
    def side_by_side(self) -> int:
        """As many as there are processes."""
        import torch

        if torch.cuda.is_available() or self._plan.registry.given or debugging():
            return 1
        return self._plan.suite.processes

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Evaluate; what another process has stored meanwhile is taken from the store."""
        others = max(0, min(self.side_by_side, len(pending)) - 1)
        sharing = Shared(self._store, 0, others + 1, tell=stage.session.progress.warning)
        with (
            threads_of(self._plan),
            self._workers(stage.model_name, others),
            stage.session.shared(sharing if others else Alone()),
        ):
            stage.run(pending)

    @contextmanager
    def _workers(self, model: str, count: int) -> Iterator[None]:
        """Run workers until the block ends; nothing that they store is ever half-written."""
        running: list[subprocess.Popen[str]] = []
        try:
            for number in range(1, count + 1):
                running.append(_start(self.order(model, number)))
            yield
        finally:
            for process in running:
                process.kill()
            for process in running:
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()

    def order(self, model: str, number: int) -> Order:
        """What worker `number` reads on its standard input."""
        return Order(
            suite=self._plan.suite,
            # A worker elsewhere may begin in another folder.
            plugin_files=tuple(Path(file).absolute() for file in self._plan.registry.files),
            store=str(self._store.root),
            model=model,
            worker=number,
            pins=to_plain(self._plan.inputs.pins()),
        )


def _start(order: Order) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if process.stdin is not None:
        # It stays open: its end tells the worker that this process has ended.
        with contextlib.suppress(BrokenPipeError):  # the worker could not start
            process.stdin.write(order.to_json() + "\n")
            process.stdin.flush()
    return process


def session_of(order: Order, store: Store, progress: Progress) -> ModelSession:
    """The model of an order in this process, planned as the run planned it, without a network."""
    source = YamlSource(Path(order.suite.name), PlacedMap())
    offline()
    inputs = Inputs(store, pins=from_plain(Pins, order.pins))
    plan = make_plan(order.suite, source, load_registry(order.plugin_files), store, inputs=inputs)
    (model,) = (model for model in plan.checkpoints if model.name == order.model)
    return ModelSession(plan, model, store, progress, Outcome())


def work(order: Order) -> None:
    """Evaluate the masks of one model that are stored, and write no report."""
    store = Store(order.store)
    session = session_of(order, store, Progress())
    restore_masks(session)
    stage = EvaluationStage(session)
    pending = stage.pending()
    stage.tasks.prepare(task for item in pending for task in item.tasks)
    with session.shared(Shared(store, order.worker, order.suite.processes)):
        stage.run(pending)


if __name__ == "__main__":
    from mbench.run.environment import set_up_libraries

    set_up_libraries()
    line = sys.stdin.readline()
    end_with_parent(sys.stdin)
    work(Order.model_validate_json(line))
