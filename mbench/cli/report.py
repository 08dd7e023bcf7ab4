"""`mbench report`: leaderboards from results that are already there."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(directories: tuple[Path, ...]) -> None:
    """Render index.html again from the results in each of DIRECTORIES, e.g. reports/quickstart."""
    from mbench.report import render
    from mbench.results_files import read

    for directory in directories:
        click.echo(str(render(read(directory), directory)))
