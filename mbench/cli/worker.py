"""`mbench worker`: do a share of a suite's work, beside others that use the same store."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.options import request, suite_options, warn_of_failures
from mbench.core import interruption
from mbench.core.errors import SOME_FAILED, SuiteError

if TYPE_CHECKING:
    from mbench.core.cell_results import TaskStatus
    from mbench.run.session import Outcome


def _refuse(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise SuiteError(
            f"--{option.name}: workers evaluate all items; it is for `mbench run`, without workers"
        )


@click.command("worker")
@suite_options
@click.option(
    "--shard",
    metavar="I/N",
    help="Which of N workers this is, from 1, so that they begin at different places  [default: the"
    " task of a SLURM job array, else 1/1].",
)
@click.option("--precision", hidden=True, expose_value=False, callback=_refuse)
@click.option("--hours", hidden=True, expose_value=False, callback=_refuse)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--quiet", is_flag=True, help="Print only failures.")
def command(shard: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Do a share of the work of SUITE; any number of workers may share a store.

    Workers claim what they do in the store, so that nothing is computed twice; what a worker had
    claimed that died, or whose machine is gone, is done by another. Start as many as you like,
    whenever you like, e.g. as a SLURM job array. Each ends when nothing is left to do. `mbench run`
    with the same arguments then writes the report, and computes nothing.

    What a suite takes from the hub must be given by commit: `mbench lock` resolves it once, and its
    lock takes the place of SUITE.

    Exit status: as of `mbench run`.
    """
    from mbench.api.working import Shard, work
    from mbench.cli.display import json_only, watching
    from mbench.cli.summary import counted

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    place, contradiction = Shard.chosen(shard)
    who = f"worker {place}"
    told = not as_json and not quiet
    if told:
        click.echo(f"{who}: reads {options['suite']} and looks at its inputs", err=True)
    asked = request(**options)
    if told:
        from mbench.cli.plan_display import show_plan
        from mbench.plan.cost import estimate

        show_plan(estimate(asked.plan, asked.store), asked.plan, err=True)
        click.echo(f"{who}: does what no other worker has claimed in {asked.store.root}", err=True)
    with watching(json_stream=json_stream, quiet=quiet) as progress:
        if contradiction:
            progress.warning(contradiction)
        outcome = work(asked, place, progress)
        failed = _failed(outcome)
        progress.event(
            "worked",
            masks=outcome.made_masks,
            evaluations=outcome.made_evaluations,
            problems=len(failed),
            interrupted=outcome.interrupted,
        )
    if quiet and not as_json:
        for reason, count in Counter(f"{each.status}: {each.reason}" for each in failed).items():
            click.echo(f"{reason} ({counted(count, 'time')})", err=True)
    if told:
        click.echo(f"{who}: {_done(outcome, len(failed))}", err=True)
    warn_of_failures(asked.registry, asked.registry.rejected_files)
    if outcome.interrupted:
        sys.exit(interruption.exit_status())
    if failed or asked.registry.rejected_files:
        sys.exit(SOME_FAILED)


def _failed(outcome: Outcome) -> list[TaskStatus]:
    return [
        *outcome.mask_problems.values(),
        *outcome.evaluation_problems.values(),
        *outcome.task_problems.values(),
    ]


def _done(outcome: Outcome, problems: int) -> str:
    """What a worker did, and what is to be done next."""
    from mbench.cli.summary import counted

    made = counted(outcome.made_masks, "mask"), counted(outcome.made_evaluations, "evaluation")
    ended = "`mbench run` writes the report"
    if outcome.interrupted:
        ended = "interrupted: start it again to go on"
    return f"{' and '.join(made)} made, {counted(problems, 'problem')}; {ended}"
