"""Runs and workers that wait within their work until the test has acted, however fast they are."""

from __future__ import annotations

import time
from pathlib import Path

LONG = 600.0
"""Seconds that tests wait for what is bound to come, on machines however slow and busy."""

WAITING, GO_ON = "waiting", "go on"
"""Files of the working folder: the process has come to its place; it may leave it."""


def after_one_evaluation() -> None:
    """Have this process wait once it has stored an outcome, with that mask's next task begun."""
    from mbench.run.evaluation_stage import EvaluationStage

    run_task, stored = EvaluationStage.run_task, []

    def held(stage, masked, task):
        if stored:
            Path(WAITING).touch()
            while not Path(GO_ON).exists():
                time.sleep(0.02)
        figures = run_task(stage, masked, task)
        stored.append(task)
        return figures

    EvaluationStage.run_task = held
