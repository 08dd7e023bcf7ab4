"""`mbench lock`: fetch what a suite needs, and write its lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbench.cli.options import request, suite_options, warn_of_failures
from mbench.cli.output import print_place


@click.command("lock")
@suite_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="The file to write; -: standard output  [default: suite.lock in reports/SUITE; where"
    " a report is there, it has one, and a file must be given]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(output: Path | None, as_json: bool, **options: Any) -> None:
    """Fetch all that SUITE needs, weights included, and write a lock with commits and hashes.

    `mbench run` with the lock in the place of SUITE repeats the run exactly, without a network too.
    Every run writes such a lock into its report.
    """
    from mbench.cli.display import json_only, watching
    from mbench.core.errors import StoreError
    from mbench.run.fetch_stage import all_inputs, fetch
    from mbench.storage.atomic import write_text_atomically
    from mbench.storage.report_folder import LOCK
    from mbench.storage.results_folder import JSON

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    asked = request(**options)
    folder = Path("reports") / asked.plan.suite.name
    if output is None and (folder / JSON).exists():
        raise StoreError(f"{folder} holds a report and its lock: give another file with --output")
    with watching(json_stream=json_stream, quiet=False) as progress:
        fetch(all_inputs(asked.plan), progress)
        for each in all_inputs(asked.plan):
            each.refuse_missing()
    text = asked.lock.to_text()
    warn_of_failures(asked.registry, asked.registry.rejected_files)
    if output is not None and str(output) == "-":
        click.echo(text, nl=False, file=json_stream)
        return
    path = output or folder / LOCK
    write_text_atomically(path, text)
    if json_stream is not None:
        progress.event("done", lock=str(path))
    else:
        print_place(path)
