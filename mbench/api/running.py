"""A run of a planned suite, from its admission to its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mbench.api import current_report
from mbench.api.request import Request
from mbench.api.run_report import RunReport
from mbench.core import interruption
from mbench.core.errors import SuiteError
from mbench.plan.admission.admit import admit, refuse
from mbench.plan.cost import Estimate, estimate
from mbench.plan.reached import remember_reached
from mbench.storage.report_folder import PAGE, VERDICT, check_replaceable

if TYPE_CHECKING:
    from mbench.core.admission import Finding
    from mbench.core.early import EarlyGoal
    from mbench.core.results import Results
    from mbench.plan.plan import Plan
    from mbench.report.publish import WrittenReport
    from mbench.run.executor import Executor
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
    asked: Request,
    output: Path,
    command: Sequence[str],
    tell: Callable[[str], object],
    goal: EarlyGoal | None = None,
) -> Prepared:
    """Look at all inputs; the report will lie in a folder of `output` named after the suite.

    `goal` is what the report says that the run was to end at before all items.

    Raises `AdmissionError` for inputs that would measure something else, and `StoreError` where
    the report could not be written.
    """
    directory = output / asked.plan.suite.name
    check_replaceable(directory)
    if note := _what_is_replaced(directory, asked.plan):
        tell(note)
    findings = admit(asked.plan, asked.store)
    refuse(findings, asked.source)
    report = RunReport(asked, findings, directory, command, goal)
    return Prepared(asked, findings, cost_of(asked, goal), report)


def cost_of(asked: Request, goal: EarlyGoal | None) -> Estimate:
    """What a run costs, all items taken; early verdicts are found in one process."""
    return estimate(asked.plan, asked.store, None if goal is None else 1)


def executor_of(
    asked: Request, goal: EarlyGoal | None, engine: str = "local", gpus: int | None = None
) -> Executor:
    """Who evaluates the masks of a run: processes of this machine, or actors of Ray.

    `goal` is when a mask has had enough items, None: when it had all; `gpus` is how many an actor
    takes. Raises `SuiteError` for what cannot go together.
    """
    from mbench.run.processes import Processes

    if engine != "local" and goal is not None:
        raise SuiteError(
            f"--executor {engine} evaluates all items: --precision and --hours are for this machine"
        )
    if gpus is not None and engine == "local":
        raise SuiteError("--gpus is how many an actor of Ray takes: give --executor ray, too")
    if engine == "ray":
        from mbench.run.ray_executor import OnRay

        return OnRay(asked.plan, asked.store, gpus)
    if goal is not None:
        from mbench.run.early.course import Early

        return Early(asked.plan, goal)
    return Processes(asked.plan, asked.store)


def carry_out(prepared: Prepared, progress: Progress, executor: Executor) -> Outcome:
    """Do everything that can be done, with `executor` to evaluate masks.

    After Ctrl-C the outcome says `interrupted`.
    """
    from mbench.run.runner import Runner

    plan, store = prepared.asked.plan, prepared.asked.store
    meanwhile = partial(prepared.report.write_if_due, warn=progress.warning)
    return Runner(plan, store, progress, executor, meanwhile).run()


def report(prepared: Prepared, outcome: Outcome, progress: Progress) -> Finished:
    """Write the report of what was finished."""
    with interruption.finishing():
        results = prepared.report.results(outcome)
        published = prepared.report.write(results)
        current_report.remember(
            prepared.asked.store, prepared.report.directory, _made_of(prepared, outcome)
        )
        if prepared.report.goal is not None and current_report.is_complete(outcome):
            remember_reached(prepared.asked.plan, prepared.asked.store, prepared.report.goal)
    for text in published.warnings:
        progress.warning(text)
    return Finished(results, outcome, published)


def current_page(prepared: Prepared, outcome: Outcome) -> Path | None:
    """The page that is there, where writing the report again would give the same."""
    folder = prepared.report.directory
    current = current_report.is_current(prepared.asked.store, folder, _made_of(prepared, outcome))
    return folder / PAGE if current else None


def finished_page(prepared: Prepared) -> Path | None:
    """The page that is there, where this run has reached its precision before and nothing has
    changed since: then it need not begin."""
    folder, digest = prepared.report.directory, _made_early_of(prepared)
    return (
        folder / PAGE if current_report.is_current(prepared.asked.store, folder, digest) else None
    )


def _made_early_of(prepared: Prepared, outcome: Outcome | None = None) -> str | None:
    said = prepared.report
    return current_report.made_early_of(
        prepared.asked,
        said.directory,
        said.lock,
        prepared.findings,
        said.command,
        said.goal,
        outcome,
    )


def _made_of(prepared: Prepared, outcome: Outcome) -> str | None:
    report = prepared.report
    if report.goal is not None and report.goal.hours is None:
        return _made_early_of(prepared, outcome)
    return current_report.made_of(
        prepared.asked, report.directory, report.lock, prepared.findings, report.command, outcome
    )


def _what_is_replaced(directory: Path, plan: Plan) -> str:
    """A narrowed run replaces the report of a larger one, though nothing in the store."""
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
