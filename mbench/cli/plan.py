"""`mbench plan`: show what a run would do."""

from __future__ import annotations

from typing import Any

import click

from mbench.cli.options import request, suite_options
from mbench.cli.output import print_json


@click.command("plan")
@suite_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool, **options: Any) -> None:
    """Show the cells of SUITE, the forward passes they need, what is stored, and the cost.

    SUITE is a file, or the name of a suite that comes with mbench (`mbench suites`).
    """
    from mbench.cli.display import json_only
    from mbench.cli.summary import show_notes, show_plan
    from mbench.plan.admission.budgets import budget_findings
    from mbench.plan.cost import estimate
    from mbench.plan.in_words import methods_in_words, protocol_in_words

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    planned = request(trust_expected=True, **options)
    suite = planned.plan.suite
    cost = estimate(planned.plan, planned.store)
    if json_stream is not None:
        print_json(cost.to_json(), json_stream)
        return
    click.echo(f"{suite.name}: {suite.title or suite.name}")
    for entry in (*protocol_in_words(suite), *methods_in_words(planned.plan)):
        click.echo(f"  {entry.name}: {entry.text}")
    show_plan(cost, suite, err=False)
    show_notes(budget_findings(planned.plan), err=False)
