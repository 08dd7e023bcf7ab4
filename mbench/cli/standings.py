"""Prints the leaderboard in a terminal: methods by budget, and the page's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbench.cli.output import clean, console_of
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards
from mbench.report.statistics.ranking import Ranked
from mbench.report.statistics.verdict import verdict
from mbench.report.words import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mbench.report.statistics.scores import Score

LEGEND = (
    "bold: significantly different from all others (adjusted); "
    "†: not significantly different from the best; [95 % intervals]: not adjusted"
)


def show_standings(run: RunBoards) -> None:
    """One table per model; headline, findings and caveats per budget; on standard error."""
    console = console_of(stderr=True)
    for boards in run.groups:
        if run.score is not None and boards.boards:
            direction = "higher" if run.score.higher else "lower"
            say(console, f"{boards.group.model}: {run.score.name}, {direction} is better")
            console.print(_table(boards, run.score))
            say(console, LEGEND)
        for board in boards.boards:
            conclusion = verdict(board)
            say(console, f"{percent(board.retain)} kept: {conclusion.headline}")
            for sentences in (conclusion.findings, conclusion.caveats):
                if sentences:
                    _say_indented(console, " ".join(sentences))


def say(console: Console, text: str) -> None:
    """Print a line without markup, which names may look like."""
    console.print(clean(text), markup=False, highlight=False, soft_wrap=True)


def _say_indented(console: Console, text: str) -> None:
    """Print a text below a headline; without a terminal as one line, for grep."""
    from rich.padding import Padding
    from rich.text import Text

    if console.is_terminal:
        console.print(Padding(Text(clean(text)), (0, 0, 0, 2)))
    else:
        say(console, f"  {text}")


def _table(boards: GroupBoards, score: Score) -> Table:
    from rich.table import Table
    from rich.text import Text

    group = boards.group
    table = Table()
    table.add_column("Method")
    for board in boards.boards:
        table.add_column(percent(board.retain), justify="right")
    if group.unpruned is not None and (value := score.value(group.unpruned)) is not None:
        table.add_row("unpruned", *(f"{value:.3f}" for _ in boards.boards), end_section=True)
    for method in group.methods:
        table.add_row(Text(clean(method)), *(_figure(board, method) for board in boards.boards))
    return table


def _figure(board: Board, method: str) -> Text:
    from rich.text import Text

    ranking = board.ranking
    standings = ranking.standings if ranking else ()
    standing = next((s for s in standings if s.entry.method == method), None)
    if ranking is None or standing is None:
        return Text("")
    if not isinstance(standing, Ranked):
        return Text("not comparable" if standing.problem else "incomplete", style="red")
    summary = standing.summary
    text = f"{summary.mean:.3f}" + (f" ± {summary.std:.3f}" if summary.count > 1 else "")
    if ranking.winner is not None and method in ranking.leaders:
        return Text(text, style="bold")
    return Text(f"{text} †" if method in ranking.leaders else text)
