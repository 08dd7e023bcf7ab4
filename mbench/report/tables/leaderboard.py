"""Every declared figure of every method at one budget, and which differences are significant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mbench.core.cell_results import UNPRUNED, CellResult, LeftOut, TaskStatus
from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.report.statistics.boards import Board
from mbench.report.statistics.early import lines_of, value_or_early
from mbench.report.statistics.families import Comparison
from mbench.report.statistics.floors import at_floor
from mbench.report.statistics.groups import RANDOM, Entry
from mbench.report.statistics.ranking import Ranked, Ranking, Reference, Unranked
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import Summary, summarize
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import bounds, difference, number, percent, score_text, shorten


def leaderboard(board: Board) -> Table:
    """The unpruned model, then the methods by rank, then those without a rank."""
    columns = tuple(_columns(board))
    rows = []
    if board.ranking is None:
        rows += [_row(board, entry, (), "", len(columns)) for entry in board.entries]
    else:
        ranking = board.ranking
        for kind, reference in (("pinned", ranking.unpruned), ("random", ranking.random)):
            if reference is not None:
                cells = _reference_cells(ranking, reference)
                rows.append(_row(board, reference.entry, cells, kind, len(columns)))
        rows += [
            _row(board, row.entry, _ranked_cells(ranking, row), "", len(columns), row.label)
            for row in ranking.ranked
        ]
        rows += [
            _row(board, row.entry, _unranked_cells(row), "incomplete", len(columns))
            for row in ranking.unranked
        ]
    rows += [_gap(gap, len(columns)) for gap in board.gaps]
    return Table(f"{board.id}-table", f"Leaderboard: {board.where}", columns, tuple(rows))


def _gap(gap: LeftOut, columns: int) -> Row:
    """A method without a cell at this budget, and why."""
    said = Cell("no cell", (shorten(gap.reason),), kind="quiet")
    return Row(Cell(gap.method), (said, *(MISSING,) * (columns - 2)), "incomplete")


def _columns(board: Board) -> Iterator[Column]:
    yield Column("Method", number=False)
    score = board.score
    if score:
        yield Column("Rank", "range")
        yield Column(score.name, "higher is better" if score.higher else "lower is better")
        yield Column("vs. random", "95 %, all at once")
        yield Column("vs. unpruned", "95 %, all at once")
        yield Column("Gap closed", "95 %")
    for task, metric in board.results.task_metrics.items():
        unit = metric + (" ↓" if metric in LOWER_IS_BETTER else "")
        yield Column(task, unit + at_floor(task, board.uninformative))


def _row(
    board: Board,
    entry: Entry,
    score: Sequence[Cell],
    kind: str,
    columns: int,
    label: str = "",
) -> Row:
    """A method with its cells of the score; where it failed altogether, with the reason."""
    name = "unpruned" if entry.method == UNPRUNED else label or entry.method
    head = Cell(name, (*_router(board, entry), *board.marks_of(entry), *_seed_count(entry)))
    first = entry.cells[0]
    if any(cell.status == "ok" for cell in entry.cells):
        return Row(head, (*score, *_task_cells(board, entry)), kind)
    failed = Cell(first.status, (shorten(first.reason),) if first.reason else (), kind="failed")
    # In the column of the score, or of the first task if there is no score.
    before = (MISSING,) if score else ()
    after = (MISSING,) * (columns - 2 - len(before))
    return Row(head, (*before, failed, *after), kind)


def _router(board: Board, entry: Entry) -> tuple[str, ...]:
    """A method's router mode where it is not the suite's."""
    router = entry.cells[0].router
    return () if router == board.group.router else (f"router {router}",)


def _seed_count(entry: Entry) -> tuple[str, ...]:
    count = len(entry.cells)
    return (f"mean ± std of {count} seeds", "and range") if entry.seeded and count > 1 else ()


def _reference_cells(ranking: Ranking, reference: Reference) -> tuple[Cell, ...]:
    summary = reference.summary
    return (MISSING, _score_cell(ranking, reference.entry, summary), *(MISSING,) * 3)


def _unranked_cells(standing: Unranked) -> tuple[Cell, ...]:
    text = "not comparable" if standing.problem else "incomplete"
    details = (shorten(standing.problem),) if standing.problem else ()
    return (MISSING, Cell(text, details, kind="failed"), *(MISSING,) * 3)


def _ranked_cells(ranking: Ranking, row: Ranked) -> tuple[Cell, ...]:
    return (
        _rank_cell(row),
        _score_cell(ranking, row.entry, row.summary),
        _difference_cell(ranking.compare(row.label, RANDOM)),
        _difference_cell(ranking.compare(row.label, UNPRUNED)),
        _gap_cell(row),
    )


def _rank_cell(row: Ranked) -> Cell:
    first, last = row.rank, row.last_rank
    return Cell(str(first) if first == last else f"{first}–{last}", sort=first)


def _score_cell(ranking: Ranking, entry: Entry, summary: Summary) -> Cell:
    score = ranking.score
    details = _spread(score.name, summary) or (_error(score, entry.cells[0]),)
    references = {own.entry.method: own for own in (ranking.random, ranking.unpruned) if own}
    row = references.get(entry.method) or ranking.row_of(entry.method)
    if row is not None and row.early is not None:
        details = ("early", f"{score_text(row.early.low)} to {score_text(row.early.high)}")
    return Cell(f"{summary.mean:.3f}", details, summary.mean)


def _error(score: Score, cell: CellResult) -> str:
    return f"± {number(score.name, score.stderr(cell))}"


def _difference_cell(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return MISSING
    details = (comparison.problem or bounds(comparison.low, comparison.high),)
    kind = "significant" if comparison.clear else "quiet"
    return Cell(difference(comparison.value), details, comparison.value, kind)


def _gap_cell(row: Ranked) -> Cell:
    closed = row.gap_closed
    if closed is None:
        return MISSING
    bounds = f"{percent(round(closed.low, 2))} to {percent(round(closed.high, 2))}"
    return Cell(percent(round(closed.value, 2)), (bounds,), closed.value)


def _task_cells(board: Board, entry: Entry) -> Iterator[Cell]:
    for task, metric in board.results.task_metrics.items():
        figures = [cell.metric(task, metric) for cell in entry.cells]
        if lines := lines_of(entry, task):
            values = [value_or_early(cell, task, metric) for cell in entry.cells]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                mean = summarize(known).mean
                yield Cell(number(metric, mean), lines, mean)
                continue
        present = [figure for figure in figures if figure is not None]
        if len(present) < len(figures):
            yield _failed_cell(entry, task, len(present))
            continue
        summary = summarize(figure.value for figure in present)
        error = present[0].stderr
        details = _spread(metric, summary)
        if not details and math.isfinite(error):
            details = (f"± {number(metric, error, scale=summary.mean)}",)
        yield Cell(number(metric, summary.mean), details, summary.mean)


def _spread(metric: str, summary: Summary) -> tuple[str, ...]:
    """Standard deviation and range over seeds, if there are several."""
    if summary.count < 2:
        return ()
    low, high = (number(metric, value) for value in (summary.minimum, summary.maximum))
    return (f"± {number(metric, summary.std, scale=summary.mean)}", f"{low}–{high}")


def _failed_cell(entry: Entry, task: str, present: int) -> Cell:
    statuses = (cell.task_status(task) for cell in entry.cells)
    missing = TaskStatus("failed", "its items lack the metric")
    status = next((status for status in statuses if status.status != "ok"), missing)
    total = len(entry.cells)
    seeds = (f"{total - present} of {total} seeds",) if total > 1 else ()
    if status.status == "left out":
        return Cell("not asked for", seeds, kind="quiet")
    reason = (shorten(status.reason),) if status.reason else ()
    return Cell(status.status, (*seeds, *reason), kind="failed")
