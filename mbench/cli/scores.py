"""`mbench scores`: what a method's scorer gives, layer by layer, without evaluating anything."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.completing import names
from mbench.cli.options import (
    narrowing_options,
    plugin_option,
    request_of,
    store_option,
    suite_argument,
)
from mbench.cli.output import clean, console_of, print_json, print_place
from mbench.core.errors import SOME_FAILED

if TYPE_CHECKING:
    from rich.table import Table

    from mbench.run.score_stage import MethodScores, Scored


@click.command("scores")
@suite_argument
@click.argument("method", shell_complete=names("methods"))
@narrowing_options("--model", "--text", "--set")
@plugin_option
@store_option
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write heat maps to a page."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every score.")
def command(suite: Path, method: str, html: Path | None, as_json: bool, **options: Any) -> None:
    """Show the scores that METHOD gives the experts of SUITE's models: no mask is evaluated.

    SUITE is a file, or the name of a suite that comes with mbench (`mbench suites`). METHOD is one
    of the suite's, or any ready-made one of a plugin.

    Only statistics that are not stored yet are collected, in one pass per corpus.

    Exit status: 0 all done, 2 a mistake in the suite or its inputs, 3 a scorer failed.
    """
    from mbench.api.scoring import request_scores, scored
    from mbench.cli.display import json_only, watching

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    asked = request_of(lambda wish, tell: request_scores(wish, method, tell), suite, **options)
    with watching(json_stream=None, quiet=as_json) as progress:
        found = scored(asked, progress)
    if html is not None:
        _write(found, f"{method} in {asked.plan.suite.name}", html)
    if json_stream is not None:
        print_json(_to_json(found), json_stream)
    else:
        for scores in found.scores:
            click.echo(f"{clean(scores.label)}: higher is kept")
            console_of(stderr=False).print(_table(scores))
        if html is not None:
            print_place(html)
    for what, why in found.problems.items():
        click.echo(f"{what}: {why}", err=True)
    if found.problems:
        sys.exit(SOME_FAILED)


def _write(found: Scored, title: str, path: Path) -> None:
    from mbench.report.page.scores_page import ScoreMap, write_scores_page

    maps = [ScoreMap(scores.label, scores.values) for scores in found.scores]
    write_scores_page(title, maps, path)


def _to_json(found: Scored) -> dict[str, Any]:
    from mbench.report.page.scores_page import by_layer

    return {
        "scores": [
            {
                "model": scores.model,
                "method": scores.method,
                "seed": scores.seed,
                "corpus": scores.corpus,
                "layers": list(scores.layers),
                "values": scores.values.tolist(),
                "by_layer": [asdict(layer) for layer in by_layer(scores.values)],
            }
            for scores in found.scores
        ],
        "problems": [{"what": what, "why": why} for what, why in found.problems.items()],
        "forward_tokens": found.forward_tokens,
    }


def _table(scores: MethodScores) -> Table:
    from rich.table import Table

    from mbench.report.page.scores_page import by_layer, numbers, score_text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Layer", "Least", "Median", "Most"):
        table.add_column(name, justify="right")
    for name in ("Best experts", "Worst experts"):
        table.add_column(name)
    table.add_column(f"Different\nof {scores.values.shape[1]}", justify="right")
    for layer in by_layer(scores.values):
        table.add_row(
            str(layer.layer),
            *map(score_text, (layer.minimum, layer.median, layer.maximum)),
            numbers(layer.best),
            numbers(layer.worst),
            str(layer.distinct),
        )
    return table
