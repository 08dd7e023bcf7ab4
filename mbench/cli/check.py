"""`mbench check`: find the mistakes in a suite and its inputs without running it."""

from __future__ import annotations

import sys
from typing import Any

import click

from mbench.cli.options import request, suite_options
from mbench.cli.output import print_json
from mbench.core.collection import without_collection


@click.command("check")
@suite_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@without_collection()
def command(as_json: bool, **options: Any) -> None:
    """Check SUITE and all that goes into it, within seconds: no weights are read.

    SUITE is a file, or the name of a suite that comes with mbench (`mbench suites`).

    Shows what was found out about models, texts, tasks and budgets. `run` does the same before it
    loads a model, and refuses the same. A model that cannot be reached is passed over if the suite
    states its sizes.

    Exit status: 0 no mistakes, 2 a mistake in the suite or an input that is refused, 3 a plugin's
    component is broken.
    """
    from mbench.cli.display import json_only
    from mbench.cli.summary import counted, show_findings
    from mbench.plan.admission.admit import admit, refuse
    from mbench.storage.records import to_plain

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    asked = request(trust_expected=True, **options)
    findings = admit(asked.plan, asked.store)
    if json_stream is not None:
        print_json({"findings": to_plain(findings)}, json_stream)
    else:
        show_findings(findings)
    refuse(findings, asked.source)
    broken = [cell for cell in asked.plan.cells if cell.problem]
    for cell in broken:
        click.echo(f"{cell.label}: {cell.problem}", err=True)
    if broken or asked.registry.rejected_files:
        sys.exit(3)
    suite = asked.plan.suite
    if json_stream is None:
        cells = counted(sum(cell.method.evaluated for cell in asked.plan.cells), "cell")
        tasks = counted(len(asked.plan.tasks), "task")
        click.echo(f"{asked.path}: ok, {cells}, {tasks} ({suite.name})")
