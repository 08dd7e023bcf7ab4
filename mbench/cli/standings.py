"""Prints the leaderboard in a terminal: methods by budget, and the answers of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbench.cli.output import clean, console_of
from mbench.report.page.early import early_note
from mbench.report.statistics.answers import BEST, GAIN, HURT, Answer, answers
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards
from mbench.report.statistics.published import MARK
from mbench.report.statistics.ranking import Ranked, Unranked
from mbench.report.stored_forms import stored_in_words
from mbench.report.words import pruned, score_text, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mbench.report.statistics.equal_bytes import EqualBytes
    from mbench.report.statistics.scores import Score


def show_standings(run: RunBoards) -> None:
    """Per model the scores of all methods, and the answers by budget; on standard error."""
    console = console_of(stderr=True)
    for boards in run.groups:
        if run.score is None or not boards.boards:
            continue
        direction = "higher" if run.score.higher else "lower"
        tied = "; bold: tied for best" if console.is_terminal else ""
        say(console, f"{boards.group.model}: {run.score.name}, {direction} is better{tied}")
        if words := stored_in_words(run.results, boards.group.model):
            say(console, words)
        console.print(_scores(boards, run.score))
        if note := early_note(run.results, boards.group.model):
            say(console, f"≈ early; all items may change a verdict either way. {note}")
        for gap in (gap for board in boards.boards for gap in board.gaps):
            say(console, f"no cell: {gap.method} at {pruned(gap.retain)}, {gap.reason}")
        console.print(_answers(boards))
        for warning in boards.answer_warnings:
            say(console, f"note: {warning}")
    for by_bytes in run.equal_bytes:
        say(console, f"{by_bytes.heading}; {by_bytes.score.name}")
        console.print(_by_bytes(by_bytes))


def _by_bytes(board: EqualBytes) -> Table:
    """Who is best with at most so many bytes."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for head in ("With at most", BEST, "Compared"):
        table.add_column(head)
    for limit in board.limits:
        said = _in_words(answers(limit.ranking)[0])
        cells = (size(limit.bytes, "B"), said, str(len(limit.rows)))
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return table


def _answers(boards: GroupBoards) -> Table:
    """The answers of the page: of the methods tied for best, with intervals for all at once."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for head in ("Budget", BEST, HURT, GAIN):
        table.add_column(head)
    for board in boards.boards:
        if board.ranking is not None:
            cells = (Text(clean(_in_words(answer))) for answer in answers(board.ranking))
            table.add_row(Text(f"{board.pruned}\n{board.kept}"), *cells)
    return table


def _in_words(answer: Answer) -> str:
    """Up to three lines, as the page has them."""
    head = f"{answer.name}, {answer.chip}" if answer.name else answer.chip
    last = "; ".join(part for part in (answer.why or answer.interval_text, answer.note) if part)
    return "\n".join(line for line in (head, answer.figures_text, last) if line)


def say(console: Console, text: str) -> None:
    """Print a line without markup, which names may look like."""
    console.print(clean(text), markup=False, highlight=False, soft_wrap=True)


def _scores(boards: GroupBoards, score: Score) -> Table:
    from rich.table import Table
    from rich.text import Text

    group = boards.group
    table = Table()
    table.add_column("Method")
    budgets = boards.boards
    for board in budgets:
        table.add_column(board.pruned, justify="right")
    if group.unpruned is not None and (value := score.value(group.unpruned)) is not None:
        table.add_row("unpruned", *(score_text(value) for _ in budgets), end_section=True)
    published = {cell.method for cell in group.cells.values() if cell.published}
    for method in group.methods:
        name = f"{method} ({MARK})" if method in published else method
        table.add_row(Text(clean(name)), *(_figure(board, method) for board in budgets))
    return table


def _figure(board: Board, method: str) -> Text:
    from rich.text import Text

    ranking = board.ranking
    standing = None if ranking is None else ranking.standing_of(method)
    if ranking is None or standing is None:
        return Text("no cell", style="dim")
    if isinstance(standing, Unranked):
        tasks = [task for task, _ in ranking.score.parts]
        statuses = {c.task_status(t).status for c in standing.entry.cells for t in tasks}
        if "left out" in statuses:
            return Text("not asked for", style="dim")
        return Text("not comparable" if standing.problem else "incomplete", style="red")
    summary = standing.summary
    early = "≈ " if standing.early is not None else ""
    text = early + score_text(summary.mean) + (f" ± {summary.std:.3f}" if summary.count > 1 else "")
    tied = isinstance(standing, Ranked) and standing.tied and len(ranking.ranked) > 1
    return Text(text, style="bold" if tied else "")
