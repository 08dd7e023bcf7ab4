"""`mbench plan`: show what a run would do."""

from __future__ import annotations

from typing import Any

import click

from mbench.cli.options import early_options, request, suite_options
from mbench.cli.output import print_json, say
from mbench.core.collection import without_collection


@click.command("plan")
@suite_options
@early_options
@click.option("--settings", is_flag=True, help="Show the protocol and every method in words, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@without_collection()
def command(
    settings: bool, as_json: bool, precision: float | None, hours: float | None, **options: Any
) -> None:
    """Show what SUITE would cost, what of it is stored, and which differences it can find.

    SUITE is a file, or the name of a suite that comes with mbench (`mbench suites`).

    A suite that takes nothing from the hub is checked, too; of others `mbench check` says what a
    run would refuse, and counts their tokens.

    With --precision or --hours the cost is still that of all items, the most that a run can take:
    how much less it takes depends on outcomes.
    """
    from mbench.api.running import cost_of
    from mbench.cli.display import json_only
    from mbench.cli.plan_display import show_detectable, show_few_masks, show_plan
    from mbench.cli.summary import show_notes
    from mbench.plan.admission.admit import admit_what_is_here, refuse
    from mbench.plan.detectable import detectable
    from mbench.plan.in_words import methods_in_words, protocol_in_words
    from mbench.plan.random_masks import few_masks
    from mbench.plan.reached import is_reached
    from mbench.run.early.words import goal_of, one_process_alone
    from mbench.storage.records import to_plain

    goal = goal_of(precision, hours)
    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    planned = request(only_look=True, trust_expected=True, **options)
    findings = admit_what_is_here(planned.plan, planned.store)
    refuse(findings, planned.source)
    suite, reached = planned.plan.suite, is_reached(planned.plan, planned.store, goal)
    cost = cost_of(planned, goal)
    few, differences = few_masks(planned.plan, cost), detectable(planned.plan, planned.store)
    in_words = (*protocol_in_words(suite, planned.plan.corpora), *methods_in_words(planned.plan))
    if json_stream is not None:
        extra = {"random_masks": few, "detectable": differences, "settings": in_words}
        early = {} if goal is None else {"goal": goal, "reached": reached}
        print_json({**cost.to_json(), **to_plain({**extra, **early})}, json_stream)
        return
    click.echo(f"{suite.name}: {suite.title or suite.name}")
    show_plan(cost, planned.plan, err=False, goal=goal, reached=reached)
    if goal is not None and suite.processes > 1 and not (reached or cost.nothing_to_do):
        say(f"note: {one_process_alone(suite.processes)}")
    if few is not None:
        show_few_masks(few)
    show_detectable(differences)
    show_notes(findings, err=False)
    for entry in in_words if settings else ():
        say(f"{entry.name}: {entry.text}")
    if not settings:
        click.echo("--settings shows the protocol and every method in words")
