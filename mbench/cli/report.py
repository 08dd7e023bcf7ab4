"""`mbench report`: render the leaderboard or tables of finished runs, one or several merged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbench.cli.options import plugin_option, warn_of_failures
from mbench.cli.output import print_place

if TYPE_CHECKING:
    from mbench.core.results import Results


@click.command("report")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "latex", "markdown"]),
    default="html",
    show_default=True,
    help="html writes the report; the others print tables for a paper and write nothing.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the merged results of several directories [default: A+B next to the first].",
)
@click.option(
    "--prefer",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The directory whose masks and figures are used where another one contradicts them.",
)
@plugin_option
def command(
    directories: tuple[Path, ...],
    form: str,
    output: Path | None,
    prefer: Path | None,
    plugin_files: tuple[Path, ...],
) -> None:
    """Render the report of DIRECTORIES again, e.g. reports/quickstart; several are merged into one.

    Only runs of the same protocol can be merged: settings that affect figures must be equal, and
    figures must not contradict each other. Otherwise every difference is listed.
    """
    if len(directories) == 1 and (output or prefer):
        raise click.UsageError("--output and --prefer are for merging several directories")
    if prefer is not None and prefer not in directories:
        raise click.UsageError(
            f"--prefer {prefer} is not one of the directories ({', '.join(map(str, directories))})"
        )
    results = _read(directories, prefer)
    if form != "html":
        from mbench.report.statistics.boards import boards
        from mbench.report.tables_for_papers import to_latex, to_markdown

        to_text = to_latex if form == "latex" else to_markdown
        click.echo(to_text(boards(results)), nl=False)
        return
    from mbench.plan.plugin_loading import load_registry
    from mbench.report.publish import publish

    registry = load_registry(plugin_files)
    warn_of_failures(registry)
    directory, merged = directories[0], len(directories) > 1
    if merged:
        runs = [run.resolve() for run in directories]
        directory = output or runs[0].parent / "+".join(run.name for run in runs)
        if directory.resolve() in runs:
            raise click.UsageError(f"{directory} is one of the runs: choose another --output")
    published = publish(results, directory, registry.panels, files={} if merged else None)
    for warning in published.warnings:
        click.echo(f"warning: {warning}", err=True)
    print_place(published.page)


def _read(directories: tuple[Path, ...], prefer: Path | None) -> Results:
    from mbench.report.across_runs.merge import merge
    from mbench.storage.results_folder import read

    if len(directories) == 1:
        return read(directories[0])
    runs = {str(directory): read(directory) for directory in directories}
    return merge(runs, prefer=None if prefer is None else str(prefer))
