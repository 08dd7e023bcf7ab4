"""`mbench compare`: what changed from one run to another, or from one method to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from mbench.report.across_runs.compare import Compared, Comparison


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path), required=False)
@click.option(
    "--methods",
    nargs=2,
    metavar="X Y",
    help="Compare X of FIRST with Y of SECOND; without SECOND, both of FIRST.",
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with every task."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every task.")
def command(
    first: Path,
    second: Path | None,
    methods: tuple[str, str] | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare the results in SECOND with those in FIRST, on the items that both have.

    Every model, budget, method and seed that both have is compared; differences are second minus
    first. The runs may differ in any setting: it is told which.
    """
    from mbench.report.across_runs.compare import compare
    from mbench.report.page.comparison import to_json, write_page
    from mbench.storage.results_folder import read

    if second is None and not methods:
        raise click.UsageError("give a second directory, or two methods of the first")
    one = (str(first), read(first))
    other = one if second in (None, first) else (str(second), read(second))
    found = compare(one, other, methods)
    if html is not None:
        write_page(found, html)
    if as_json:
        click.echo(json.dumps(to_json(found), allow_nan=False))
        return
    _show(found)
    if html is not None:
        click.echo(str(html))


def _show(found: Comparison) -> None:
    from mbench.cli.standings import console_of, say
    from mbench.report.page.comparison import correction, heading

    console = console_of(stderr=False)
    say(console, f"{heading(found)}, with 95 % intervals; bold: separated from zero")
    console.print(_table(found))
    if found.found:
        say(console, f"separated: 5 %, {correction(found)}")
    for line in found.settings:
        say(console, f"differs: {line}")
    for line in found.left:
        say(console, f"not compared: {line}")


def _table(found: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    from mbench.report.page.comparison import by_place, method_label
    from mbench.report.words import percent

    scores = found.overall or tuple(dict.fromkeys(one.score for one in found.found))
    directions = {one.score: "higher" if one.higher else "lower" for one in found.found}
    table = Table()
    for name in ("Model", "Kept", "Method"):
        table.add_column(name)
    for score in scores:
        head = f"{score}\n{directions[score]} is better" if score in directions else score
        table.add_column(Text(head), justify="right", no_wrap=True)
    for (model, retain, methods), own in by_place(found).items():
        figures = (_figure(own.get(score)) for score in scores)
        table.add_row(Text(model), percent(retain), Text(method_label(methods)), *figures)
    return table


def _figure(one: Compared | None) -> Text:
    from rich.text import Text

    from mbench.report.words import interval, signed

    if one is None:
        return Text("–")
    text = f"{signed(one.difference.value)} {interval(one.difference.low, one.difference.high)}"
    return Text(text, style="bold" if one.separated else "")
