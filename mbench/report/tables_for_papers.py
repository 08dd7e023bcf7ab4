"""Tables for a paper: LaTeX (booktabs) and Markdown, one per model, best figures marked.

Bold are the best figure of a budget and those that are not told apart from it, by the tests of the
page; nothing is where all are tied or nothing is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mbench.core.cell_results import CellResult
from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.report.early_footnote import SIGN, early_footnote
from mbench.report.notations import SYNTAX, Syntax
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards
from mbench.report.statistics.early import estimate_of, value_or_early
from mbench.report.statistics.equal_bytes import EqualBytes, Limit
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.ranking import Ranking
from mbench.report.statistics.scores import Score
from mbench.report.stored_forms import NOT_QUANTISED, stored_in_words
from mbench.report.words import MINUS, listing, number, percent, score_text, size
from mbench.storage.atomic import write_text_atomically

LATEX, MARKDOWN = "tables.tex", "tables.md"

NOTE = (
    "Bold: the best figure at a budget and those not told apart from it (paired over items or"
    " documents, 5 % after Holm's correction for all pairs of methods); none where all are tied."
    " Several seeds: mean and sample standard deviation. A dash: no complete result."
)

BYTES_NOTE = (
    "Of each stored form the unpruned checkpoint if it fits, otherwise each method's largest one"
    " that does. Bold: the best figure under a limit and those not told apart from it (paired over"
    " items or documents, 5 % after Holm's correction for all pairs under the limit)."
)


@dataclass(frozen=True)
class Grid:
    """The table of one model, in the notation of a format."""

    caption: str
    note: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[tuple[str, ...], ...], ...]
    """The unpruned model, then each budget: rows of as many entries as there are columns."""


@dataclass(frozen=True)
class _Column:
    """A score, or a task's declared metric."""

    name: str
    metric: str
    """The metric, or the score's name; determines the number of decimals."""
    higher: bool
    """Whether more is better."""
    value: Callable[[CellResult], float | None]
    mark: Callable[[Board, str], str]
    """`bold` or `plain`: how a method's figure at a budget is marked."""
    score: Score | None = None
    """None for a task."""


def _columns(run: RunBoards) -> Iterator[_Column]:
    for score in (run.score, run.second_score):
        if score is not None:
            mark = partial(_score_mark, score)
            yield _Column(score.name, score.name, score.higher, score.value, mark, score)
    for task, metric in run.results.task_metrics.items():
        value, mark = partial(_task_value, task, metric), partial(_task_mark, task)
        yield _Column(task, metric, metric not in LOWER_IS_BETTER, value, mark)


def _score_mark(score: Score, board: Board, method: str) -> str:
    ranking = board.ranking if score == board.score else board.by_perplexity
    return "plain" if ranking is None else _mark(ranking, method)


def _mark(ranking: Ranking, method: str) -> str:
    row = ranking.row_of(method)
    all_tied = len(ranking.tied) == len(ranking.ranked) > 1
    if row is None or not row.tied or all_tied or "methods" in ranking.untested:
        return "plain"
    return "bold"


def _task_value(task: str, metric: str, cell: CellResult) -> float | None:
    return cell.value(task, metric)


def _task_mark(task: str, board: Board, method: str) -> str:
    return _mark(board.by_task[task], method)


def _note(boards: GroupBoards) -> str:
    """What the marks mean, and where nothing is told apart and why."""
    untold: dict[str, list[str]] = {}
    for board in boards.boards:
        rankings = {r.score.name: r for r in (board.ranking, board.by_perplexity) if r}
        rankings |= {task: ranking for task, ranking in board.by_task.items()}
        for name, ranking in rankings.items():
            if why := ranking.untested.get("methods", ""):
                untold.setdefault(f"{name}: {why}", []).append(board.pruned)
    every = len(boards.boards)
    parts = [
        reason + ("" if len(places) == every else f" ({listing(places)})")
        for reason, places in untold.items()
    ]
    said = [NOTE]
    if words := stored_in_words(boards.results, boards.group.model):
        said.append(f"W{words[1:]}; {NOT_QUANTISED}.")
    if early := early_footnote(boards):
        said.append(early)
    if parts:
        said.append(f"Nothing is told apart on {'; '.join(parts)}.")
    gaps = [f"{gap.method} at {board.pruned}" for board in boards.boards for gap in board.gaps]
    if gaps:
        said.append(f"No cell: {listing(gaps)}.")
    return " ".join(said)


def to_latex(run: RunBoards) -> str:
    """One `table` environment per model."""
    # pandas' Styler sets rules between budgets only with the index in a header of its own, and
    # escapes neither ligatures nor < > |.
    lines = ["% needs \\usepackage{booktabs,textcomp} and \\usepackage[T1]{fontenc}"]
    for grid in _grids(run, SYNTAX["latex"]):
        blocks = "\\midrule\n".join(
            "".join(" & ".join(row) + " \\\\\n" for row in block) for block in grid.blocks
        )
        lines += [
            "\\begin{table}[t]",
            "\\centering",
            f"\\caption{{{grid.caption}. {grid.note}}}",
            f"\\begin{{tabular}}{{ll{'r' * (len(grid.columns) - 2)}}}",
            "\\toprule",
            " & ".join(grid.columns) + " \\\\",
            f"\\midrule\n{blocks}\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    return "\n".join(lines) + "\n"


def to_markdown(run: RunBoards) -> str:
    """One table per model."""
    parts = []
    for grid in _grids(run, SYNTAX["markdown"]):
        rule = ["---", "---", *["---:"] * (len(grid.columns) - 2)]
        rows = [grid.columns, rule, *(row for block in grid.blocks for row in block)]
        table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
        parts.append(f"**{grid.caption}**\n\n{table}\n{grid.note}\n")
    return "\n".join(parts)


def _grids(run: RunBoards, syntax: Syntax) -> Iterator[Grid]:
    columns = list(_columns(run))
    heads = (
        syntax.text(column.name) + ("" if column.higher else f" {syntax.lower}")
        for column in columns
    )
    names = ("Pruned", "Method", *heads)
    for boards in run.groups:
        group = boards.group
        blocks: list[tuple[tuple[str, ...], ...]] = []
        if group.unpruned:
            unpruned = Entry("unpruned", (group.unpruned,))
            figures = (_figure(syntax, unpruned, column) for column in columns)
            blocks.append(((syntax.text(percent(0.0)), "unpruned", *figures),))
        blocks += [_block(syntax, board, columns) for board in boards.boards]
        caption = syntax.text(f"{run.results.title}: {boards.heading}")
        note = syntax.text(_note(boards)).replace(SIGN, syntax.early.strip())
        yield Grid(caption, note.replace("±", syntax.spread), names, tuple(blocks))
    for by_bytes in run.equal_bytes:
        yield _by_bytes(syntax, run.results.title, by_bytes)


def _by_bytes(syntax: Syntax, title: str, board: EqualBytes) -> Grid:
    """Who is best with at most so many bytes: a block for each limit."""
    names = ("With at most", "Checkpoint", "Bytes", syntax.text(board.score.name))
    blocks = tuple(_limit(syntax, limit) for limit in board.limits)
    caption = syntax.text(f"{title}: {board.heading}")
    return Grid(caption, syntax.text(BYTES_NOTE), names, blocks)


def _limit(syntax: Syntax, limit: Limit) -> tuple[tuple[str, ...], ...]:
    rows = []
    for place, row in enumerate(limit.rows):
        figure, found = syntax.missing, limit.row_of(row)
        if found is not None:
            mark = _mark(limit.ranking, row.name)
            figure = _set(syntax, mark, score_text(found.summary.mean))
        most = "" if place else syntax.text(size(limit.bytes, "B"))
        name = f"{row.name} ({row.form})"
        rows.append((most, syntax.text(name), syntax.text(size(row.bytes, "B")), figure))
    return tuple(rows)


def _block(syntax: Syntax, board: Board, columns: Sequence[_Column]) -> tuple[tuple[str, ...], ...]:
    """The rows of one budget."""
    rows: list[tuple[str, ...]] = []
    for entry in board.budget.entries:
        figures = (
            _figure(syntax, entry, column, column.mark(board, entry.method), board.group.unpruned)
            for column in columns
        )
        pruned = "" if rows else syntax.text(percent(1 - board.retain))
        rows.append((pruned, syntax.text(_name(board, entry)), *figures))
    return tuple(rows)


def _name(board: Board, entry: Entry) -> str:
    """With what sets its masks apart: another router mode, uneven layers, what stands in."""
    router = entry.cells[0].router
    routers = () if router == board.group.router else (f"router {router}",)
    return ", ".join((entry.method, *routers, *board.marks_of(entry)))


def _figure(
    syntax: Syntax,
    entry: Entry,
    column: _Column,
    mark: str = "plain",
    unpruned: CellResult | None = None,
) -> str:
    """A method's marked figure over its seeds; an estimate is signed, and a dash stands where any
    of them failed."""
    summary = entry.summary(column.value)
    if summary is None:
        value = _early(entry, column, unpruned)
        if value is None:
            return syntax.missing
        return _set(syntax, mark, number(column.metric, value)) + syntax.early
    text = number(column.metric, summary.mean)
    if summary.count > 1 and math.isfinite(summary.std):
        text += f" ± {number(column.metric, summary.std, scale=summary.mean)}"
    return _set(syntax, mark, text)


def _set(syntax: Syntax, mark: str, text: str) -> str:
    signs = {MINUS: syntax.minus, "∞": syntax.infinite, "±": syntax.spread}
    for sign, written in signs.items():
        text = text.replace(sign, written)
    return str(getattr(syntax, mark)) % text


def _early(entry: Entry, column: _Column, unpruned: CellResult | None) -> float | None:
    """A figure where some masks were evaluated on some items; None where not all have one."""
    if column.score is not None:
        known = estimate_of(entry, column.score, unpruned)
        return None if known is None else known.value
    values = [value_or_early(cell, column.name, column.metric) for cell in entry.cells]
    present = [each for each in values if each is not None]
    if len(present) < len(values):
        return None
    return math.fsum(present) / len(present)


def write_tables(run: RunBoards, directory: Path) -> None:
    """Write `tables.tex` and `tables.md`."""
    for name, text in ((LATEX, to_latex(run)), (MARKDOWN, to_markdown(run))):
        write_text_atomically(directory / name, text)
