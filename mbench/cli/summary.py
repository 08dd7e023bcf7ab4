"""Prints what was found out before a run, and at its end what was done and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from mbench.cli.output import print_place, say
from mbench.core.cell_results import LACKS, budget_label
from mbench.core.run_record import IN_ALL

if TYPE_CHECKING:
    from mbench.core.admission import Finding
    from mbench.core.results import Results
    from mbench.report.publish import WrittenReport
    from mbench.run.session import Outcome


def show_notes(findings: Iterable[Finding], *, err: bool = True) -> None:
    """What a reader of the figures should know of the inputs."""
    for finding in findings:
        if finding.level == "note":
            say(f"note: {finding.subject}, {finding.fact}: {finding.words}", err=err)


def show_findings(findings: Iterable[Finding]) -> None:
    """One table of everything that was found out about the inputs."""
    rows = [(f.subject, f.fact, f.level, f.words) for f in findings]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for *short, words in rows:
        cells = (text.ljust(width) for text, width in zip(short, widths, strict=True))
        say("  ".join((*cells, words)), hang=sum(widths) + 6)


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """A time in the unit that suits it: seconds, minutes, hours or days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} days"


def show_end(results: Results, outcome: Outcome, published: WrittenReport, *, quiet: bool) -> int:
    """Standings, failures and totals on standard error; the report's path on standard output.

    Returns the number of problems, see `list_problems`.
    """
    if not quiet:
        from mbench.cli.standings import show_standings

        show_standings(published.boards)
    problems = list_problems(results)
    for label, reason in problems:
        click.echo(f"{label}: {reason}", err=True)
    if not quiet:
        tasks = results.task_metrics
        (run,) = results.provenance.runs
        ok = sum(
            cell.status == "ok"
            and all(cell.task_status(t).status in ("ok", "left out") for t in tasks)
            for cell in results.cells
        )
        early = Counter(figure.ended for cell in results.cells for figure in cell.early.values())
        ends = ", ".join(f"{count:,} {ended}" for ended, count in early.most_common())
        click.echo(
            f"{ok} of {counted(len(results.cells), 'cell')} complete,"
            + (f" {counted(early.total(), 'figure')} from some items ({ends})," if early else "")
            + f" {counted(len(problems), 'problem')},"
            f" {outcome.forward_tokens:,} forward tokens, {duration(run.cost.seconds[IN_ALL])}",
            err=True,
        )
    print_place(published.page)
    return len(problems)


def list_problems(results: Results) -> list[tuple[str, str]]:
    """(what, why) of the cells, tasks and measurements without a result, grouped by reason."""
    problems: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}

    def add(status: str, reason: str, label: str, task: str | None = None) -> None:
        labels, tasks = problems.setdefault((status, reason), ({}, {}))
        labels[label] = None
        if task is not None:
            tasks[task] = None

    for cell in results.cells:
        if cell.status != "ok":
            add(cell.status, cell.reason, cell.label)
            continue
        for task in results.task_metrics:
            status = cell.task_status(task)
            if status.status in LACKS:
                add(status.status, status.reason, cell.label, task)
    for saving in results.efficiency:
        if saving.status != "ok":
            label = budget_label(saving.model, saving.retain)
            add(saving.status, saving.reason, label, "efficiency")
    return [
        (f"{status} {', '.join(tasks)}".rstrip() + f" ({_first_of(list(labels))})", reason)
        for (status, reason), (labels, tasks) in problems.items()
    ]


def _first_of(labels: list[str]) -> str:
    return labels[0] + (f" and {len(labels) - 1} more" if labels[1:] else "")
