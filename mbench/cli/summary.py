"""What the terminal says before and after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mbench.core.results import Results
    from mbench.core.suite import Suite
    from mbench.plan.cost import Estimate, ModelCost
    from mbench.report.publish import WrittenReport
    from mbench.run.session import Outcome


LONG = 3600.0
"""Seconds on a few CPU cores from which a plan says what it takes on accelerators."""


def show_plan(estimate: Estimate, suite: Suite, *, err: bool) -> None:
    """A line per model: budgets, cells, what is cached, what is left and how long it may take."""
    budgets = " ".join(f"{100 * ratio:g}%" for ratio in suite.retain)
    for cost in estimate.models:
        about = "" if cost.masks_final else "at most "
        click.echo(
            f"{cost.model}: {counted(cost.cells, 'cell')} at {budgets};"
            f" {about}{counted(cost.masks, 'distinct mask')},"
            f" {cost.evaluations_cached} of {about}{cost.evaluations} evaluations in the store",
            err=err,
        )
        click.echo(f"  to do: {_to_do(cost)}", err=err)
        if suite.efficiency is not None:
            click.echo(
                "  and what pruning saves at each budget, unless it was measured on this machine",
                err=err,
            )
        if not cost.seen:
            click.echo("  its files are out of reach: sizes are what the suite expects", err=err)
        if cost.seconds > LONG and not cost.speed_measured:
            click.echo(f"  elsewhere, roughly: {_elsewhere(cost)}", err=err)


def _elsewhere(cost: ModelCost) -> str:
    times = (
        f"{time.device} {duration(3600 * time.hours)}"
        + ("" if time.fits else " (does not hold the weights)")
        for time in cost.devices
    )
    return f"{', '.join(times)}; the weights take {cost.weight_bytes / 1e9:.0f} GB"


def _to_do(cost: ModelCost) -> str:
    left = cost.evaluations - cost.evaluations_cached
    if not left and not cost.profiles:
        return "nothing, everything is in the store"
    parts = []
    if cost.profiles:
        profiles = counted(cost.profiles, "profile")
        parts.append(f"{profiles} of {cost.profile_tokens:,} tokens in all")
    if cost.unknown_tasks:
        unknown = ", ".join(cost.unknown_tasks)
        parts.append(f"{counted(left, 'evaluation')}, their size unknown until built: {unknown}")
        return "; ".join(parts)
    parts.append(f"{counted(left, 'evaluation')} of {cost.evaluation_tokens:,} tokens in all")
    speed = "at the speed last measured" if cost.speed_measured else "roughly"
    parts.append(f"{speed} {duration(cost.seconds)}")
    if cost.expected_tasks:
        parts.append(f"tokens as the suite expects: {', '.join(cost.expected_tasks)}")
    return "; ".join(parts)


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, two digits at most."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} days"


def show_end(results: Results, outcome: Outcome, published: WrittenReport, *, quiet: bool) -> int:
    """Standings, failures and totals on standard error; the report's path on standard output.

    Returns the number of cells and tasks that did not end well.
    """
    if not quiet:
        from mbench.cli.standings import show_standings

        show_standings(results, published.boards)
    problems = list_problems(results)
    for label, reason in problems:
        click.echo(f"{label}: {reason}", err=True)
    if not quiet:
        tasks = results.task_metrics
        spent = sum(outcome.seconds.values())
        ok = sum(
            cell.status == "ok" and all(cell.task_status(t).status == "ok" for t in tasks)
            for cell in results.cells
        )
        click.echo(
            f"{ok} of {counted(len(results.cells), 'cell')} complete,"
            f" {counted(len(problems), 'problem')},"
            f" {outcome.forward_tokens:,} forward tokens, {duration(spent)}",
            err=True,
        )
    click.echo(str(published.page))
    return len(problems)


def list_problems(results: Results) -> list[tuple[str, str]]:
    """(what, why) of every cell, task and measurement without a result, by reason."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}

    def add(status: str, reason: str, label: str, task: str | None = None) -> None:
        labels, tasks = found.setdefault((status, reason), ({}, {}))
        labels[label] = None
        if task is not None:
            tasks[task] = None

    for cell in results.cells:
        if cell.status != "ok":
            add(cell.status, cell.reason, cell.label)
            continue
        for task in results.task_metrics:
            status = cell.task_status(task)
            if status.status != "ok":
                add(status.status, status.reason, cell.label, task)
    for saving in results.efficiency:
        if saving.status != "ok":
            label = f"{saving.model} {100 * saving.retain:g}%"
            add(saving.status, saving.reason, label, "efficiency")
    return [
        (f"{status} {', '.join(tasks)}".rstrip() + f" ({_first_of(list(labels))})", reason)
        for (status, reason), (labels, tasks) in found.items()
    ]


def _first_of(labels: list[str]) -> str:
    return labels[0] + (f" and {len(labels) - 1} more" if labels[1:] else "")
