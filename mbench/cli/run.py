"""`mbench run`: run a suite and write its leaderboard."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli import tell_interrupted
from mbench.cli.options import early_options, request, suite_options, warn_of_failures
from mbench.cli.output import print_place
from mbench.core.clean_text import shown_place
from mbench.core.errors import SOME_FAILED

if TYPE_CHECKING:
    from mbench.api.running import Finished, Prepared
    from mbench.core.early import EarlyGoal
    from mbench.core.results import Results
    from mbench.report.publish import WrittenReport
    from mbench.run.executor import Executor
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
@early_options
@click.option(
    "--executor",
    "engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who evaluates the masks: this machine, or actors of a Ray cluster (pip install"
    " mbench[ray]), each with the model on its GPUs.",
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
    help="Have workers do the work first (see `mbench worker`), as jobs that submitit starts (pip"
    " install mbench[submitit]).",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="How many workers the launcher starts  [default: 1].",
)
@click.option(
    "--launcher-option",
    "launcher_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of submitit, e.g. cluster=slurm, slurm_partition=gpu, timeout_min=600."
    " Repeatable.",
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

    With --precision or --hours, masks need not be evaluated on all items: the report says on how
    many each figure rests. A later run goes on from there.

    Ctrl-C, SIGTERM and SIGHUP end a run: what is finished is stored, and a report of it is written.

    Exit status: 0 all done, 2 a mistake in the suite or its inputs or a file that cannot be
    written, 3 something failed, 130, 143 and 129 ended by Ctrl-C, SIGTERM and SIGHUP.
    """
    from mbench.api.running import executor_of, prepare
    from mbench.cli.display import json_only, watching
    from mbench.cli.plan_display import show_plan
    from mbench.cli.summary import show_notes
    from mbench.plan.reached import is_reached
    from mbench.run.early.words import goal_of

    goal = goal_of(precision, hours)
    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    asked = request(**options)
    executor = executor_of(asked, goal, engine, gpus)
    _refuse_without(launcher, goal, workers, launcher_options)
    words = ["mbench", *sys.argv[1:]]
    prepared = prepare(asked, output, words, partial(click.echo, err=True), goal)
    if not as_json and not quiet:
        reached = is_reached(asked.plan, asked.store, goal)
        show_plan(prepared.cost, asked.plan, err=True, goal=goal, reached=reached)
        show_notes(prepared.findings)
    with watching(json_stream=json_stream, quiet=quiet) as progress:
        progress.event("plan", **prepared.cost.to_json())
        if goal is not None:
            progress.event("goal", precision=goal.precision, hours=goal.hours)
        if launcher is not None:
            _launch(prepared, workers or 1, launcher_options, progress)
        made = _made(prepared, progress, executor)
    failed = _tell(made, progress, as_json=as_json, quiet=quiet)
    warn_of_failures(asked.registry, asked.registry.rejected_files)
    if not isinstance(made, Path) and made.outcome.interrupted:
        sys.exit(tell_interrupted())
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


def _launch(prepared: Prepared, workers: int, options: tuple[str, ...], progress: Progress) -> None:
    """Workers do all that they can; what is left is for this process, which writes the report."""
    from mbench.api.launching import launch, options_of
    from mbench.cli.summary import counted

    settings, folder = options_of(options), prepared.report.directory
    if prepared.cost.nothing_to_do:
        return
    progress.stage(counted(workers, "worker"))
    logs = folder.parent / f"{folder.name}.jobs"

    def tell(text: str) -> None:
        progress.event("note", text=text)

    launch(prepared.asked, workers, settings, logs, tell, progress.warning)


def _made(prepared: Prepared, progress: Progress, executor: Executor) -> Finished | Path:
    """What the run gave; or the page that is there, where nothing has changed."""
    from mbench.api.running import carry_out, current_page, finished_page, report

    page = finished_page(prepared)
    if page is not None:
        return page
    outcome = carry_out(prepared, progress, executor)
    page = current_page(prepared, outcome)
    return report(prepared, outcome, progress) if page is None else page


def _tell(made: Finished | Path, progress: Progress, *, as_json: bool, quiet: bool) -> int:
    """Say how the run ended; returns the number of problems."""
    from mbench.cli.summary import show_end

    if isinstance(made, Path):
        _tell_current(made, progress, as_json=as_json, quiet=quiet)
        return 0
    told = made.results, made.outcome, made.published
    return _tell_end(progress, *told) if as_json else show_end(*told, quiet=quiet)


def _tell_current(page: Path, progress: Progress, *, as_json: bool, quiet: bool) -> None:
    """Nothing was left to do, and nothing to write."""
    if as_json:
        progress.event(
            "done",
            report=shown_place(page),
            problems=[],
            interrupted=False,
            early=_early_in(page.parent),
            unchanged=True,
        )
        return
    if not quiet:
        click.echo("nothing has changed: the report is as it was", err=True)
    print_place(page)


def _early_in(folder: Path) -> int:
    """Early figures of a report that is as a run left it."""
    from mbench.storage.report_folder import VERDICT

    counts = json.loads((folder / VERDICT).read_text(encoding="utf-8"))["evaluations"]
    return int(counts.get("early", 0))


def _tell_end(
    progress: Progress, results: Results, outcome: Outcome, published: WrittenReport
) -> int:
    """The last event of `--json`; returns the number of problems."""
    from mbench.cli.summary import list_problems

    problems = [{"what": what, "why": why} for what, why in list_problems(results)]
    place = shown_place(published.page)
    early = sum(len(cell.early) for cell in results.cells)
    progress.event(
        "done", report=place, problems=problems, interrupted=outcome.interrupted, early=early
    )
    return len(problems)
