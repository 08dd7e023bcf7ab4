"""Every declared figure of every method at one budget, and which differences are significant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import CellResult, TaskStatus
from mbench.report.statistics.boards import Board
from mbench.report.statistics.floors import at_floor
from mbench.report.statistics.groups import RANDOM, Entry
from mbench.report.statistics.ranking import Ranked, Ranking, Unranked
from mbench.report.statistics.scores import Score
from mbench.report.statistics.seed_summaries import Summary, summarize
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import interval, number, percent, shorten, signed


def leaderboard(board: Board) -> Table:
    """The unpruned model, then the methods by rank, then those without a rank."""
    columns = tuple(_columns(board))
    rows = []
    if board.group.unpruned:
        unpruned = board.group.unpruned
        cells = _unpruned_cells(board.ranking, unpruned) if board.ranking else ()
        rows.append(
            Row(
                Cell("unpruned"),
                (*cells, *_task_cells(board, Entry("unpruned", (unpruned,)))),
                "pinned",
            )
        )
    if board.ranking is None:
        rows += [_row(board, entry, (), "", len(columns)) for entry in board.entries]
    else:
        ranked = board.ranking.ranked
        rows += [
            _row(board, s.entry, _ranked_cells(board.ranking, s), "", len(columns)) for s in ranked
        ]
        rows += [
            _row(board, s.entry, _unranked_cells(s), "incomplete", len(columns))
            for s in board.ranking.unranked
        ]
    return Table(f"{board.id}-table", f"Leaderboard: {board.where}", columns, tuple(rows))


def _columns(board: Board) -> Iterator[Column]:
    yield Column("Method", number=False)
    score = board.score
    if score:
        yield Column("Rank", "range")
        yield Column(score.name, "higher is better" if score.higher else "lower is better")
        yield Column("vs. random", "95 % interval")
        yield Column("Masks beaten", "of random")
        yield Column("Gap closed", "to unpruned")
        yield Column("vs. best", "95 % interval")
    for task, metric in board.results.task_metrics.items():
        unit = metric + (" ↓" if metric in LOWER_IS_BETTER else "")
        yield Column(task, unit + at_floor(task, board.uninformative))


def _row(board: Board, entry: Entry, score: Sequence[Cell], kind: str, columns: int) -> Row:
    """A method with its cells of the score; where it failed altogether, with the reason."""
    head = Cell(entry.method, (*_router(board, entry), *_seed_count(entry)))
    kind = kind or ("random" if entry.method == RANDOM else "")
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


def _unpruned_cells(ranking: Ranking, unpruned: CellResult) -> tuple[Cell, ...]:
    score, value = ranking.score, ranking.score.value(unpruned)
    if value is None:
        return (MISSING,) * 6
    figure = Cell(f"{value:.3f}", (f"± {number(score.name, score.stderr(unpruned))}",), value)
    comparable = any(s.gap_closed is not None for s in ranking.ranked)
    random = [s.summary.mean for s in ranking.ranked if s.entry.method == RANDOM and comparable]
    gap = Cell(signed(value - random[0]), sort=value - random[0]) if random else MISSING
    whole = Cell(percent(1.0), sort=1.0) if random else MISSING
    return (MISSING, figure, gap, MISSING, whole, MISSING)


def _unranked_cells(standing: Unranked) -> tuple[Cell, ...]:
    text = "not comparable" if standing.problem else "incomplete"
    details = (shorten(standing.problem),) if standing.problem else ()
    return (MISSING, Cell(text, details, kind="failed"), *(MISSING,) * 4)


def _ranked_cells(ranking: Ranking, standing: Ranked) -> tuple[Cell, ...]:
    return (
        _rank_cell(standing),
        _score_cell(ranking, standing),
        _random_cell(standing),
        _masks_beaten_cell(standing),
        _gap_cell(standing),
        _best_cell(standing),
    )


def _rank_cell(standing: Ranked) -> Cell:
    first, last = standing.rank, standing.last_rank
    return Cell(str(first) if first == last else f"{first}–{last}", sort=first)


def _score_cell(ranking: Ranking, standing: Ranked) -> Cell:
    """The score with a bar behind it, which is longest for the best method."""
    score, summary, entry = ranking.score, standing.summary, standing.entry
    details = _spread(score.name, summary) or (_error(score, entry.cells[0]),)
    first, last = ranking.ranked[0].summary.mean, ranking.ranked[-1].summary.mean
    worst, best = sorted((last, first), key=lambda v: v if score.higher else -v)
    share = (summary.mean - worst) / (best - worst) if best != worst else 1.0
    kind = "bar best" if standing.rank == 1 else "bar"
    return Cell(f"{summary.mean:.3f}", details, summary.mean, kind, 8 + round(92 * share))


def _error(score: Score, cell: CellResult) -> str:
    return f"± {number(score.name, score.stderr(cell))}"


def _random_cell(standing: Ranked) -> Cell:
    against = standing.against_random
    if against is None:
        return Cell("reference" if standing.entry.method == RANDOM else "–", kind="quiet")
    gap = against.difference
    kind = "significant" if against.significant else "quiet"
    return Cell(signed(gap.value), (interval(gap.low, gap.high),), gap.value, kind)


def _masks_beaten_cell(standing: Ranked) -> Cell:
    against = standing.against_random
    if against is None:
        return MISSING
    return Cell(f"{against.masks_beaten}/{against.masks}", sort=against.masks_beaten)


def _gap_cell(standing: Ranked) -> Cell:
    share = standing.gap_closed
    if share is None or math.isnan(share):
        return MISSING
    return Cell(percent(round(share, 2)), sort=share)


def _best_cell(standing: Ranked) -> Cell:
    gap = standing.from_best
    if gap is None:
        return Cell("best", sort=0.0, kind="quiet")
    bounds = interval(gap.low, gap.high)
    if standing.tied_with_best:
        return Cell(signed(gap.value), (bounds, "not significant"), gap.value, "quiet")
    return Cell(signed(gap.value), (bounds,), gap.value, "significant")


def _task_cells(board: Board, entry: Entry) -> Iterator[Cell]:
    for task, metric in board.results.task_metrics.items():
        figures = [cell.metric(task, metric) for cell in entry.cells]
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
    reason = (shorten(status.reason),) if status.reason else ()
    return Cell(status.status, (*seeds, *reason), kind="failed")
