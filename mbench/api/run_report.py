"""Writes the report of a run: at its end, and from time to time while it goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mbench.core.item_texts import ItemText, from_rows
from mbench.run.assemble import INTERRUPTED, PENDING, assemble
from mbench.run.provenance import gather
from mbench.storage.report_folder import LOCK

if TYPE_CHECKING:
    from mbench.api.request import Request
    from mbench.core.admission import Finding
    from mbench.core.cell_results import TaskStatus
    from mbench.core.early import EarlyGoal
    from mbench.core.results import Results
    from mbench.plan.tasks import PlannedTask
    from mbench.report.publish import WrittenReport
    from mbench.run.session import Outcome

EVERY = 60.0
"""Seconds between two reports, and before the first: a shorter run has only its last."""

SHARE = 0.05
"""Most of a run's time that reports before the last may take."""


@dataclass
class RunReport:
    """The report of one run."""

    asked: Request
    findings: tuple[Finding, ...]
    directory: Path
    command: Sequence[str]
    """Its words, as a reader may repeat them."""
    goal: EarlyGoal | None = None
    """What it is to end at before all items, if anything."""
    _due: float = field(default_factory=lambda: time.monotonic() + EVERY)
    lock: str = field(init=False)
    """What repeats the run, as the text of its file."""

    def __post_init__(self) -> None:
        """What the run reads is known before it begins."""
        self.lock = self.asked.lock.to_text()

    def results(self, outcome: Outcome, left: TaskStatus = INTERRUPTED) -> Results:
        """What the outcome comes to; `left` is the status of all that it does not have."""
        asked, source = self.asked, self.asked.source
        file = source.path if source.written else None
        given = "" if source.written else json.dumps(source.plain())
        provenance = gather(
            asked.plan, outcome, file, self.command, asked.changes, given, self.goal
        )
        found = {task.name: self._texts(task) for task in asked.plan.tasks if task.publishes_items}
        texts = {name: of_task for name, of_task in found.items() if of_task}
        return assemble(asked.plan, outcome, provenance, self.findings, left=left, item_texts=texts)

    def _texts(self, task: PlannedTask) -> tuple[ItemText, ...]:
        """What its items ask, of all models: in chat templates they are not the same items."""
        plan = self.asked.plan
        keys = dict.fromkeys(plan.item_texts_key(model, task) for model in plan.models)
        stored = [self.asked.store.read_json(key) for key in keys]
        texts = [text for rows in stored if rows is not None for text in from_rows(rows)]
        return tuple({text.item: text for text in texts}.values())

    def write(self, results: Results) -> WrittenReport:
        """Write the last report; raises `StoreError` where that fails."""
        from mbench.report.publish import publish

        panels = self.asked.registry.panels
        return publish(results, self.directory, panels, files={LOCK: self.lock})

    def write_if_due(self, outcome: Outcome, warn: Callable[[str], object]) -> None:
        """Report what there is by now, if the last report is long enough ago.

        Without the panels of plugins, whose code is called once, with all results. Where it fails,
        `warn` is told, nothing is tried again, and the run goes on.
        """
        start = time.monotonic()
        if start < self._due:
            return
        from mbench.report.publish import publish

        try:
            publish(self.results(outcome, PENDING), self.directory, files={LOCK: self.lock})
        except Exception as error:
            warn(f"no report before the run ends: {error}")
            self._due = math.inf
            return
        end = time.monotonic()
        self._due = end + max(EVERY, (end - start) / SHARE)
