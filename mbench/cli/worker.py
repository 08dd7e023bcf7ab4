"""`mbench worker`: do a share of a suite's work, beside others that use the same store."""

from __future__ import annotations

import sys
from typing import Any

import click

from mbench.cli.options import request, suite_options, warn_of_failures
from mbench.core import interruption
from mbench.core.errors import SOME_FAILED


@click.command("worker")
@suite_options
@click.option(
    "--shard",
    metavar="I/N",
    help="Which of N workers this is, from 1, so that they begin at different places  [default: the"
    " task of a SLURM job array, else 1/1].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--quiet", is_flag=True, help="Print only failures.")
def command(shard: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Do a share of the work of SUITE; any number of workers may share a store.

    Workers claim what they do in the store, so that nothing is computed twice; what a worker had
    that died, or whose machine is gone, is done by another. Start as many as you like, whenever you
    like, e.g. as a SLURM job array. Each ends when nothing is left to do. `mbench run` with the
    same arguments then writes the report, and computes nothing.

    What a suite takes from the hub must be given by commit: `mbench lock` resolves it once, and its
    lock takes the place of SUITE.

    Exit status: as of `mbench run`.
    """
    from mbench.api.working import Shard, work
    from mbench.cli.display import json_only, watching
    from mbench.cli.summary import counted

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    place = Shard.read(shard) if shard is not None else Shard.of_slurm() or Shard()
    asked = request(**options)
    with watching(json_stream=json_stream, quiet=quiet) as progress:
        outcome = work(asked, place, progress)
        problems = sum(
            len(each)
            for each in (
                outcome.mask_problems,
                outcome.evaluation_problems,
                outcome.task_problems,
            )
        )
        progress.event(
            "worked",
            masks=outcome.made_masks,
            evaluations=outcome.made_evaluations,
            problems=problems,
            interrupted=outcome.interrupted,
        )
    if not as_json and not quiet:
        made = counted(outcome.made_masks, "mask"), counted(outcome.made_evaluations, "evaluation")
        ended = "interrupted: start it again to go on"
        if not outcome.interrupted:
            ended = "`mbench run` writes the report"
        click.echo(
            f"worker {place.number + 1}/{place.of}: {' and '.join(made)} made,"
            f" {counted(problems, 'problem')}; {ended}",
            err=True,
        )
    warn_of_failures(asked.registry, asked.registry.rejected_files)
    if outcome.interrupted:
        sys.exit(interruption.exit_status())
    if problems or asked.registry.rejected_files:
        sys.exit(SOME_FAILED)
