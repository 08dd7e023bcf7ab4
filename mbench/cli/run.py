"""`mbench run`: run a suite and write its leaderboard."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.options import request, suite_options, warn_of_failures
from mbench.core import interruption
from mbench.core.clean_text import shown_place

if TYPE_CHECKING:
    from mbench.core.results import Results
    from mbench.plan.cells import Plan
    from mbench.report.publish import WrittenReport
    from mbench.run.progress import Progress
    from mbench.run.session import Outcome

SOME_FAILED = 3


@click.command("run")
@suite_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder of reports; this one is written to its subfolder named after the suite.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--quiet", is_flag=True, help="Print only failures and the report's path.")
def command(output: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Run SUITE and write its leaderboard to reports/<suite>/index.html.

    SUITE is a file, or the name of a suite that comes with mbench (`mbench suites`).

    SUITE may also be a lock, such as the suite.lock of a report: the run is repeated exactly.

    While it evaluates, the report is written anew about every minute (see `mbench view`).

    What is in the store is not computed again; an interrupted run continues where it stopped.

    Ctrl-C, SIGTERM and SIGHUP end a run: what is finished is stored, and a report of it is written.

    Exit status: 0 all done, 2 a mistake in the suite or its inputs or a file that cannot be
    written, 3 something failed, 130, 143 and 129 ended by Ctrl-C, SIGTERM and SIGHUP.
    """
    from mbench.cli.display import json_only, watching
    from mbench.cli.plan_display import show_plan
    from mbench.cli.run_report import RunReport
    from mbench.cli.summary import show_end, show_notes
    from mbench.plan.admission.admit import admit, refuse
    from mbench.plan.cost import estimate
    from mbench.run.processes import Processes
    from mbench.run.runner import Runner
    from mbench.storage.report_folder import check_replaceable

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    asked = request(**options)
    directory = output / asked.plan.suite.name
    check_replaceable(directory)
    _say_what_is_replaced(directory, asked.plan)
    findings = admit(asked.plan, asked.store)
    refuse(findings, asked.source)
    report = RunReport(asked, findings, directory)
    cost = estimate(asked.plan, asked.store)
    if not as_json and not quiet:
        show_plan(cost, asked.plan.suite, err=True)
        show_notes(findings)
    with watching(json_stream=json_stream, quiet=quiet) as progress:
        progress.event("plan", **cost.to_json())
        executor = Processes(asked.plan, asked.store)
        meanwhile = partial(report.write_if_due, warn=progress.warning)
        outcome = Runner(asked.plan, asked.store, progress, executor, meanwhile).run()
    with interruption.finishing():
        results = report.results(outcome)
        published = report.write(results)
    for text in published.warnings:
        progress.warning(text)
    if as_json:
        failed = _tell_end(progress, results, outcome, published)
    else:
        failed = show_end(results, outcome, published, quiet=quiet)
    warn_of_failures(asked.registry, asked.registry.rejected_files)
    if outcome.interrupted:
        click.echo("interrupted; run the same command again to continue", err=True)
        sys.exit(interruption.exit_status())
    if failed or asked.registry.rejected_files:
        sys.exit(SOME_FAILED)


def _tell_end(
    progress: Progress, results: Results, outcome: Outcome, published: WrittenReport
) -> int:
    """The last event of `--json`; returns the number of problems."""
    from mbench.cli.summary import list_problems

    problems = [{"what": what, "why": why} for what, why in list_problems(results)]
    place = shown_place(published.page)
    progress.event("done", report=place, problems=problems, interrupted=outcome.interrupted)
    return len(problems)


def _say_what_is_replaced(directory: Path, plan: Plan) -> None:
    """A narrowed run replaces the report of a larger one, though nothing in the store."""
    from mbench.report.page.index import VERDICT

    try:
        counts = json.loads((directory / VERDICT).read_text(encoding="utf-8"))["evaluations"]
        before = sum(counts.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    cells = sum(cell.method.evaluated for cell in plan.cells) + len(plan.models)
    if before > cells * len(plan.tasks):
        click.echo(
            f"note: the report in {directory} has {before} evaluations and will be replaced by one"
            f" with {cells * len(plan.tasks)}; use --output DIR to keep both",
            err=True,
        )
