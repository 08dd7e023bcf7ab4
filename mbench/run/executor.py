"""Which processes evaluate the masks of a run: a protocol, and its simplest implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from mbench.plan.plan import Plan
from mbench.run.evaluation_stage import EvaluationStage
from mbench.run.masked_models import Pending


class Executor(Protocol):
    """Has the masks of one model evaluated, wherever and by however many workers."""

    @property
    def side_by_side(self) -> int | None:
        """Masks that are evaluated at a time; None where that shows only as it works."""

    @property
    def hours(self) -> float | None:
        """Wall-clock hours of the run after which nothing more begins; None where all is done."""

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Return once every pending evaluation is stored, or its failure is in the outcome.

        All masks of the model are in the store when this is called, and nothing else runs on the
        machine after it returned. What a worker elsewhere has stored, `stage.run` takes from the
        store instead of computing it.
        """


class Here:
    """This process, one mask after another."""

    side_by_side = 1
    hours = None

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Evaluate all of it."""
        with threads_of(stage.session.plan):
            stage.run(pending)


@contextmanager
def threads_of(plan: Plan) -> Iterator[None]:
    """As many threads as each of a plan's processes has, however many of them there are: with more
    of them, sums end in other digits."""
    import torch

    threads = torch.get_num_threads()
    if plan.suite.processes > 1 and not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
