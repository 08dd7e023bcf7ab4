"""`mbench plan`: what a run would do."""

from __future__ import annotations

import json
from typing import Any

import click

from mbench.cli.options import request, suite_options


@click.command("plan")
@suite_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool, **options: Any) -> None:
    """Show the cells of SUITE, the forward passes they need, what is cached, and the cost."""
    from mbench.assemble import protocol_in_words
    from mbench.cli.summary import show_plan
    from mbench.cost import estimate

    asked = request(**options)
    suite = asked.plan.suite
    cost = estimate(asked.plan, asked.store)
    if as_json:
        click.echo(json.dumps(cost.to_json()))
        return
    click.echo(f"{suite.name}: {suite.title or suite.name}")
    for setting, words in protocol_in_words(suite):
        click.echo(f"  {setting}: {words}")
    for name in dict.fromkeys(cell.method.name for cell in asked.plan.cells):
        method = next(cell.method for cell in asked.plan.cells if cell.method.name == name)
        click.echo(f"  Method {name}: {_method_in_words(method)}")
    show_plan(cost, suite.retain, err=False)


def _method_in_words(method: Any) -> str:
    words = []
    for kind, part in method.parts.items():
        settings = part.params.model_dump()
        listed = ", ".join(f"{key}={value}" for key, value in settings.items())
        words.append(f"{kind} {part.name}" + (f" ({listed})" if listed else ""))
    if method.corpora:
        words.append("corpora " + ", ".join(method.corpora))
    if method.candidate:
        words.append(f"candidate {method.candidate}")
    if method.seeds != (None,):
        words.append("seeds " + ", ".join(map(str, method.seeds)))
    return "; ".join(words) + ("" if method.evaluated else " (as a candidate only)")
