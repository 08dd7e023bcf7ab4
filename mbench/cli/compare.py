"""`mbench compare`: the differences between two runs, or two methods, on the same items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbench.cli.output import clean, console_of, print_json, print_place
from mbench.core.clean_text import cleaned

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
    first. The runs may differ in any setting: these are listed.
    """
    from mbench.report.across_runs.compare import compare
    from mbench.report.page.comparison import to_json, write_page
    from mbench.storage.results_folder import read

    if second is None and not methods:
        raise click.UsageError("give a second directory, or two methods (--methods X Y)")
    before = (str(first), read(first))
    after = before if second is None or second == first else (str(second), read(second))
    comparison = compare(before, after, methods)
    if html is not None:
        write_page(cleaned(comparison), html)
    if as_json:
        print_json(to_json(comparison))
        return
    _show(comparison)
    if html is not None:
        print_place(html)


def _show(comparison: Comparison) -> None:
    from mbench.cli.standings import say
    from mbench.report.page.comparison import heading, reading

    console = console_of(stderr=False)
    legend = ", 95 % intervals that hold for all at once" if comparison.families else ""
    bold = "; bold: told apart (adjusted)" if legend and console.is_terminal else ""
    say(console, f"{heading(comparison)}{legend}{bold}")
    console.print(_table(comparison))
    for line in reading(comparison):
        say(console, line)
    for line in comparison.settings:
        say(console, f"differs: {line}")
    for each in comparison.not_compared:
        say(console, f"not compared: {each.line(most=2)}")


def _table(comparison: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    from mbench.report.page.comparison import by_place, method_label
    from mbench.report.words import pruned

    differences = comparison.compared
    scores = comparison.overall or tuple(dict.fromkeys(each.score for each in differences))
    directions = {each.score: "higher" if each.higher else "lower" for each in differences}
    table = Table()
    for name in ("Model", "Budget", "Method"):
        table.add_column(name)
    for score in scores:
        head = f"{score}\n{directions[score]} is better" if score in directions else score
        table.add_column(Text(clean(head)), justify="right", no_wrap=True)
    for (model, retain, methods), by_score in by_place(comparison).items():
        figures = (_figure(by_score.get(score)) for score in scores)
        table.add_row(
            Text(clean(model)), pruned(retain), Text(clean(method_label(methods))), *figures
        )
    return table


def _figure(compared: Compared | None) -> Text:
    from rich.text import Text

    from mbench.report import words

    if compared is None:
        return Text("–")
    of = compared.difference
    interval = of.problem or words.bounds(of.low, of.high)
    return Text(f"{words.difference(of.value)} {interval}", style="bold" if of.clear else "")
