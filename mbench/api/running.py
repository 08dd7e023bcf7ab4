"""A run of a planned suite, from its admission to its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mbench.api.request import Request
from mbench.api.run_report import RunReport
from mbench.core import interruption
from mbench.plan.admission.admit import admit, refuse
from mbench.plan.cost import Estimate, estimate
from mbench.storage.report_folder import check_replaceable

if TYPE_CHECKING:
    from mbench.core.admission import Finding
    from mbench.core.early import EarlyGoal
    from mbench.core.results import Results
    from mbench.plan.plan import Plan
    from mbench.report.publish import WrittenReport
    from mbench.run.progress import Progress
    from mbench.run.session import Outcome


@dataclass(frozen=True)
class Prepared:
    """A run that is about to begin."""

    asked: Request
    findings: tuple[Finding, ...]
    cost: Estimate
    report: RunReport


@dataclass(frozen=True)
class Finished:
    """A run that has ended, be it by a signal."""

    results: Results
    outcome: Outcome
    published: WrittenReport


def prepare(
    asked: Request, output: Path, command: Sequence[str], tell: Callable[[str], object]
) -> Prepared:
    """Look at all inputs; the report will lie in a folder of `output` named after the suite.

    Raises `AdmissionError` for inputs that would measure something else, and `StoreError` where
    the report could not be written.
    """
    directory = output / asked.plan.suite.name
    check_replaceable(directory)
    if note := _what_is_replaced(directory, asked.plan):
        tell(note)
    findings = admit(asked.plan, asked.store)
    refuse(findings, asked.source)
    report = RunReport(asked, findings, directory, command)
    return Prepared(asked, findings, estimate(asked.plan, asked.store), report)


def carry_out(prepared: Prepared, progress: Progress, goal: EarlyGoal | None = None) -> Finished:
    """Do everything that can be done, or with a `goal` enough for it, and write the report.

    After Ctrl-C the report has what was finished, and the outcome says `interrupted`.
    """
    from mbench.run.early.course import Early
    from mbench.run.processes import Processes
    from mbench.run.runner import Runner

    plan, store, report = prepared.asked.plan, prepared.asked.store, prepared.report
    meanwhile = partial(report.write_if_due, warn=progress.warning)
    executor = Processes(plan, store) if goal is None else Early(plan, goal)
    outcome = Runner(plan, store, progress, executor, meanwhile).run()
    with interruption.finishing():
        results = report.results(outcome)
        published = report.write(results)
    for text in published.warnings:
        progress.warning(text)
    return Finished(results, outcome, published)


def _what_is_replaced(directory: Path, plan: Plan) -> str:
    """A narrowed run replaces the report of a larger one, though nothing in the store."""
    from mbench.report.page.index import VERDICT

    try:
        counts = json.loads((directory / VERDICT).read_text(encoding="utf-8"))["evaluations"]
        before = sum(counts.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    cells = sum(cell.method.evaluated for cell in plan.cells) + len(plan.models)
    if before <= cells * len(plan.tasks):
        return ""
    return (
        f"note: the report in {directory} has {before} evaluations and will be replaced by one"
        f" with {cells * len(plan.tasks)}; use --output DIR to keep both"
    )
