"""`mbench check`: find the mistakes in a suite without running it."""

from __future__ import annotations

import sys
from typing import Any

import click

from mbench.cli.options import request, suite_options


@click.command("check")
@suite_options
def command(**options: Any) -> None:
    """Check SUITE without running it: keys, names, parameters, models, corpora and budgets.

    SUITE is a file, or the name of a suite that comes with mbench (`mbench suites`).

    Mistakes that need weights, tokens or items to be noticed, such as a corpus that is too short or
    a metric that a task does not have, are found by `run` before its first forward pass.

    Exit status: 0 no mistakes, 2 a mistake in the suite, 3 a plugin's component is broken.
    """
    planned = request(**options)
    broken = [cell for cell in planned.plan.cells if cell.problem]
    for cell in broken:
        click.echo(f"{cell.label}: {cell.problem}", err=True)
    if broken or planned.registry.rejected_files:
        sys.exit(3)
    suite = planned.plan.suite
    cells = sum(cell.method.evaluated for cell in planned.plan.cells)
    tasks = len(planned.plan.tasks)
    click.echo(f"{planned.path}: ok, {cells} cells, {tasks} tasks ({suite.name})")
