"""`mbench check`: is this suite right?"""

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

    What only the weights, tokens or items can show, such as a corpus that is too short or a metric
    that a task has not, `run` finds before its first forward pass.

    Exit status: 0 all right, 2 a mistake in the suite, 3 a plugin's component is broken.
    """
    asked = request(**options)
    broken = [cell for cell in asked.plan.cells if cell.problem]
    for cell in broken:
        click.echo(f"{cell.label}: {cell.problem}", err=True)
    if broken or asked.registry.rejected_files:
        sys.exit(3)
    suite = asked.plan.suite
    cells = sum(cell.method.evaluated for cell in asked.plan.cells)
    click.echo(f"{asked.path}: ok, {cells} cells, {len(asked.plan.tasks)} tasks ({suite.name})")
