"""Merges several runs of one protocol: the union of their cells, or why they cannot be merged.

Runs may share models, budgets, methods, seeds and tasks in any way. They must agree on every
setting that decides a figure (see `setting_differences`), and on every figure that two of them
have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mbench.core.cell_results import UNPRUNED, CellKey, CellResult, TaskStatus
from mbench.core.errors import MergeError
from mbench.core.evaluation import Evaluation
from mbench.core.results import Results
from mbench.report.across_runs.merged_records import (
    first,
    joined_efficiency,
    joined_left_out,
    joined_protocol,
    joined_provenance,
    unique,
)
from mbench.report.across_runs.same_outcomes import agree
from mbench.report.across_runs.setting_differences import counted_items, deciding_differences

if TYPE_CHECKING:
    import pandas as pd

_SEVERITY = ("ok", "early", "failed", "blocked", "interrupted", "pending", "left out", "absent")

ABSENT = TaskStatus("absent", "the run that made this cell did not have this task")


def merge(runs: Mapping[str, Results], prefer: str | None = None) -> Results:
    """Merge runs, each under the name by which messages call it.

    Whatever several runs have is kept once. Cells, tasks, seeds and budgets keep the order in which
    they first occur. Merging is commutative and associative up to that order, and merging a run
    with itself changes nothing. Figures within a tolerance of each other count as equal, and the
    first run's are kept. Where a cell failed in one run, the result of another is used.

    Args:
        runs: name -> results.
        prefer: the run whose masks and figures are used where others contradict them.

    Raises:
        MergeError: settings that decide figures differ, or two runs contradict each other; the
            text has one line for each difference, with both values.
    """
    differences = deciding_differences(runs)
    if differences:
        raise MergeError(_refusal("cannot merge: the runs differ in", map(str, differences)))
    if prefer is not None:
        runs = {prefer: runs[prefer], **runs}
    joined = _Joined(runs, prefer)
    tasks = first(pair for results in runs.values() for pair in results.task_metrics.items())
    cells = tuple(joined.cell(by_run, tasks) for by_run in joined.cells.values())
    if joined.contradictions:
        raise MergeError(
            _refusal("cannot merge: the runs contradict each other on", joined.contradictions)
        )
    used = {(cell.model, cell.mask) for cell in cells}
    named = next((results for results in runs.values() if results.average), None)
    provenance = joined_provenance([results.provenance for results in runs.values()])
    return Results(
        suite="+".join(unique(run.suite for run in provenance.runs)),
        title=" + ".join(unique(run.title for run in provenance.runs)),
        description=" ".join(unique(run.description for run in provenance.runs)),
        task_metrics=tasks,
        average=named.average if named else "",
        average_tasks=named.average_tasks if named else (),
        cells=cells,
        masks=first(
            (key, keep)
            for results in runs.values()
            for key, keep in results.masks.items()
            if key in used
        ),
        stand_ins=first(
            (key, stand_in)
            for results in runs.values()
            for key, stand_in in results.stand_ins.items()
            if key in used
        ),
        scores=first(pair for results in runs.values() for pair in results.scores.items()),
        provenance=provenance,
        protocol=joined_protocol(runs.values(), provenance.runs, joined.settled),
        left_out=joined_left_out(runs.values(), cells),
        efficiency=joined_efficiency(runs.values()),
        admission=tuple(unique(f for results in runs.values() for f in results.admission)),
    )


@dataclass
class _Joined:
    """The cells of all runs, and the contradictions between them."""

    runs: Mapping[str, Results]
    prefer: str | None
    contradictions: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    """Contradictions that the preferred run settles."""
    cells: dict[CellKey, dict[str, CellResult]] = field(init=False)
    """Cell -> run -> the run's result for it."""
    outcomes: dict[tuple[str, ...], Evaluation] = field(init=False)
    """(model, router, mask, task) -> the outcome that is kept: equal masks are one measurement,
    whichever methods made them."""

    def __post_init__(self) -> None:
        self.cells = {}
        measurements: dict[tuple[str, ...], list[tuple[str, CellResult, Evaluation]]] = {}
        for run, results in self.runs.items():
            for cell in results.cells:
                self.cells.setdefault(cell.key, {})[run] = cell
                for task, outcome in cell.evaluations.items():
                    place = (*_measured(cell), task)
                    measurements.setdefault(place, []).append((run, cell, outcome))
        self.outcomes = {}
        for measurement, measured in measurements.items():
            self._check(measurement[-1], measured)
            self.outcomes[measurement] = measured[0][2]

    def _check(self, task: str, measured: Sequence[tuple[str, CellResult, Evaluation]]) -> None:
        """Note a contradiction unless all measurements of one mask on a task agree."""
        by_run: dict[str, dict[str, Evaluation]] = {}
        for run, cell, outcome in measured:
            twice = outcome.items["item"].duplicated()
            if twice.any():
                name = outcome.items["item"][twice].iloc[0]
                self.contradictions.append(f"{cell.label}, {task}: item {name!r} twice in {run}")
                return
            by_run.setdefault(run, {})[f"{run} ({cell.label})"] = outcome
        cell = measured[0][1]
        for of_run in by_run.values():
            if not agree(list(of_run.values())):
                # Even in the preferred run, neither is better than the other.
                self._contradict(cell, *_differing(task, of_run), settled=False)
                return
        firsts = {run: next(iter(of_run.values())) for run, of_run in by_run.items()}
        if not agree(list(firsts.values())):
            self._contradict(cell, *_differing(task, firsts), settled=self.prefer in firsts)

    def _contradict(
        self, cell: CellResult, what: str, values: Mapping[str, str], settled: bool
    ) -> None:
        listed = "; ".join(f"{value} in {run}" for run, value in values.items())
        problems = self.settled if settled else self.contradictions
        problems.append(f"{cell.label}, {what}: {listed}")

    def cell(self, by_run: Mapping[str, CellResult], tasks: Mapping[str, str]) -> CellResult:
        """One cell from the results of several runs for it."""
        best = min(by_run.values(), key=lambda cell: (_severity(cell), cell.reason))
        same = {run: cell for run, cell in by_run.items() if cell.status == best.status}
        masks = {run: cell.mask for run, cell in same.items()}
        if len(set(masks.values())) > 1:
            values = {run: f"mask {mask[:12]}" for run, mask in masks.items()}
            self._contradict(best, "the experts kept", values, settled=self.prefer in values)
            best = next(iter(same.values()))
            same = {run: cell for run, cell in same.items() if cell.mask == best.mask}
        absent = ABSENT if best.status == "ok" else TaskStatus(best.status, best.reason)
        statuses, outcomes, early = {}, {}, {}
        for task in tasks:
            known = [cell.tasks[task] for cell in same.values() if task in cell.tasks]
            statuses[task] = min(known, key=lambda s: (_severity(s), s.reason), default=absent)
            if statuses[task].status == "ok":
                outcomes[task] = self.outcomes[*_measured(best), task]
            if statuses[task].status == "early":
                found = [cell.early[task] for cell in same.values() if task in cell.early]
                early[task] = max(found, key=lambda figure: figure.items)
                reasons = {c.early[task]: c.tasks[task] for c in same.values() if task in c.early}
                statuses[task] = reasons[early[task]]
        looked: dict[str, pd.DataFrame] = {}
        for cell in same.values():
            for task, own in cell.looked.items():
                wanted = task in early or best.method == UNPRUNED
                if wanted and len(own) > len(looked.get(task, ())):
                    looked[task] = own
        notes = tuple(unique(note for cell in same.values() for note in cell.notes))
        return replace(
            best, notes=notes, evaluations=outcomes, early=early, looked=looked, tasks=statuses
        )


def _measured(cell: CellResult) -> tuple[str, str, str]:
    return cell.model, cell.router, cell.mask


def _severity(status: CellResult | TaskStatus) -> int:
    return _SEVERITY.index(status.status)


def _figures(outcome: Evaluation) -> str:
    return ", ".join(f"{figure.name} {figure.value:.6g}" for figure in outcome.metrics)


def _differing(task: str, outcomes: Mapping[str, Evaluation]) -> tuple[str, dict[str, str]]:
    """What outcomes differ in, and the value of each."""
    items = {name: frozenset(outcome.columns["item"]) for name, outcome in outcomes.items()}
    if len(set(items.values())) > 1:
        return f"{task} › items", counted_items(items)
    return task, {name: _figures(outcome) for name, outcome in outcomes.items()}


def _refusal(opening: str, lines: Iterable[str]) -> str:
    return "\n  ".join([opening, *lines])
