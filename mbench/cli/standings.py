"""Prints the leaderboard in a terminal: methods by budget, and the page's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbench.cli.output import clean, console_of
from mbench.report.statistics.answers import answers
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards
from mbench.report.statistics.ranking import Ranked, Unranked
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
            if board.ranking is not None:
                for answer in answers(board.ranking):
                    say(console, f"{board.pruned}: {answer.question} {answer.chip}")


def say(console: Console, text: str) -> None:
    """Print a line without markup, which names may look like."""
    console.print(clean(text), markup=False, highlight=False, soft_wrap=True)


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
    standing = None if ranking is None else ranking.standing_of(method)
    if ranking is None or standing is None:
        return Text("")
    if isinstance(standing, Unranked):
        return Text("not comparable" if standing.problem else "incomplete", style="red")
    summary = standing.summary
    text = f"{summary.mean:.3f}" + (f" ± {summary.std:.3f}" if summary.count > 1 else "")
    tied = isinstance(standing, Ranked) and standing.tied
    return Text(text, style="bold" if tied else "")
