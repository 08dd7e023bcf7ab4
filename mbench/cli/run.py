"""`mbench run`: run a suite and write its leaderboard."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.options import request, suite_options, warn_of_failures
from mbench.cli.output import print_place
from mbench.core import interruption
from mbench.core.clean_text import shown_place
from mbench.core.errors import SOME_FAILED

if TYPE_CHECKING:
    from mbench.api.request import Request
    from mbench.core.early import EarlyGoal
    from mbench.core.results import Results
    from mbench.report.publish import WrittenReport
    from mbench.run.progress import Progress
    from mbench.run.session import Outcome


@click.command("run")
@suite_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder of reports; this one is written to its subfolder named after the suite.",
)
@click.option(
    "--precision",
    type=float,
    metavar="WIDTH",
    help="End a mask on a task once its difference to the unpruned model is known to ± WIDTH in"
    " 95 of 100 cases, in units of the task's metric (0.01: a point of accuracy, 1 % of a"
    " perplexity).",
)
@click.option(
    "--hours",
    type=float,
    metavar="H",
    help="Evaluate all masks on more and more items, and begin nothing after H hours.",
)
@click.option(
    "--executor",
    "engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who evaluates the masks: this machine, or actors of a Ray cluster (mbench[ray]), each"
    " with the model on its GPUs.",
)
@click.option(
    "--gpus",
    type=click.IntRange(0),
    metavar="N",
    help="GPUs that the model of an actor takes  [default: 1 where the cluster has any].",
)
@click.option(
    "--launcher",
    type=click.Choice(["submitit"]),
    help="Have workers do all of it first, as jobs that submitit starts (mbench[submitit]).",
)
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Jobs of the launcher  [default: 1]."
)
@click.option(
    "--launcher-option",
    "launcher_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of submitit, e.g. cluster=slurm, slurm_partition=gpu, timeout_min=600. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--quiet", is_flag=True, help="Print only failures and the report's path.")
def command(
    output: Path,
    as_json: bool,
    quiet: bool,
    precision: float | None,
    hours: float | None,
    engine: str,
    gpus: int | None,
    launcher: str | None,
    workers: int | None,
    launcher_options: tuple[str, ...],
    **options: Any,
) -> None:
    """Run SUITE and write its leaderboard to reports/<suite>/index.html.

    SUITE is a file, or the name of a suite that comes with mbench (`mbench suites`).

    SUITE may also be a lock, such as the suite.lock of a report: the run is repeated exactly.

    While it evaluates, the report is written anew about every minute (see `mbench view`).

    What is in the store is not computed again; an interrupted run continues where it stopped.

    With --precision or --hours, a mask may have had enough items before it had all of them; the
    report says from how many each figure is. A later run goes on from there.

    Ctrl-C, SIGTERM and SIGHUP end a run: what is finished is stored, and a report of it is written.

    Exit status: 0 all done, 2 a mistake in the suite or its inputs or a file that cannot be
    written, 3 something failed, 130, 143 and 129 ended by Ctrl-C, SIGTERM and SIGHUP.
    """
    from mbench.api.running import carry_out, current_page, executor_of, prepare, report
    from mbench.cli.display import json_only, watching
    from mbench.cli.plan_display import show_plan
    from mbench.cli.summary import show_end, show_notes
    from mbench.run.early.words import goal_of

    goal = goal_of(precision, hours)
    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    asked = request(**options)
    executor = executor_of(asked, goal, engine, gpus)
    _refuse_without(launcher, goal, workers, launcher_options)
    words = ["mbench", *sys.argv[1:]]
    prepared = prepare(asked, output, words, partial(click.echo, err=True))
    if not as_json and not quiet:
        show_plan(prepared.cost, asked.plan, err=True, goal=goal)
        show_notes(prepared.findings)
    with watching(json_stream=json_stream, quiet=quiet) as progress:
        progress.event("plan", **prepared.cost.to_json())
        if launcher is not None:
            _launch(asked, workers or 1, launcher_options, prepared.report.directory, progress)
        outcome = carry_out(prepared, progress, executor)
        page = current_page(prepared, outcome)
        finished = report(prepared, outcome, progress) if page is None else None
    if page is not None:
        _tell_current(page, progress, as_json=as_json, quiet=quiet)
    if finished is None:
        failed = 0
    elif as_json:
        failed = _tell_end(progress, finished.results, outcome, finished.published)
    else:
        failed = show_end(finished.results, outcome, finished.published, quiet=quiet)
    warn_of_failures(asked.registry, asked.registry.rejected_files)
    if outcome.interrupted:
        click.echo("interrupted; run the same command again to continue", err=True)
        sys.exit(interruption.exit_status())
    if failed or asked.registry.rejected_files:
        sys.exit(SOME_FAILED)


def _refuse_without(
    launcher: str | None,
    goal: EarlyGoal | None,
    workers: int | None,
    options: tuple[str, ...],
) -> None:
    from mbench.core.errors import SuiteError

    if launcher is None and (workers is not None or options):
        raise SuiteError("--workers and --launcher-option are for --launcher submitit")
    if launcher is not None and goal is not None:
        raise SuiteError("--launcher: workers evaluate all items, without --precision and --hours")


def _launch(
    asked: Request, workers: int, options: tuple[str, ...], folder: Path, progress: Progress
) -> None:
    """Workers do all that they can; what is left is for this process, which writes the report."""
    from mbench.api.launching import launch, options_of

    progress.stage(f"{workers} workers")
    logs = folder.parent / f"{folder.name}.jobs"

    def tell(text: str) -> None:
        progress.event("note", text=text)

    launch(asked, workers, options_of(options), logs, tell, progress.warning)


def _tell_current(page: Path, progress: Progress, *, as_json: bool, quiet: bool) -> None:
    """Nothing was left to do, and nothing to write."""
    if as_json:
        progress.event(
            "done", report=shown_place(page), problems=[], interrupted=False, unchanged=True
        )
        return
    if not quiet:
        click.echo("nothing has changed: the report is as it was", err=True)
    print_place(page)


def _tell_end(
    progress: Progress, results: Results, outcome: Outcome, published: WrittenReport
) -> int:
    """The last event of `--json`; returns the number of problems."""
    from mbench.cli.summary import list_problems

    problems = [{"what": what, "why": why} for what, why in list_problems(results)]
    place = shown_place(published.page)
    progress.event("done", report=place, problems=problems, interrupted=outcome.interrupted)
    return len(problems)
