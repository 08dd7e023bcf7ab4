"""Which processes evaluate the masks of a run: a protocol, and its simplest implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mbench.run.evaluation_stage import EvaluationStage, Pending


class Executor(Protocol):
    """Has the masks of one model evaluated, wherever and by however many workers."""

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Return once every pending evaluation is stored, or its failure is in the outcome.

        All masks of the model are in the store when this is called, and nothing else runs on the
        machine after it returned. What a worker elsewhere has stored, `stage.run` takes from the
        store instead of computing it.
        """


class Here:
    """This process, one mask after another."""

    def evaluate(self, stage: EvaluationStage, pending: Sequence[Pending]) -> None:
        """Evaluate all of it."""
        stage.run(pending)
