"""How the generated answers of a task look at one budget, beside its accuracy."""

from __future__ import annotations

from mbench.core.cell_results import UNPRUNED
from mbench.report.statistics.answer_shapes import AnswerShapes, AnswersOf
from mbench.report.statistics.boards import Board
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import bounds, difference, number


def answers_table(board: Board, shapes: AnswerShapes, id: str) -> Table:
    """A row per method in the leaderboard's order; what is clearly more than in the unpruned model
    is marked."""
    columns = (
        Column("Method", number=False),
        Column(shapes.task, shapes.metric),
        Column("Looping", "share of answers"),
        Column("vs. unpruned", "looping, 95 %, all at once"),
        Column("Cut off", "share of answers"),
        Column("vs. unpruned", "cut off, 95 %, all at once"),
        Column("Repeated", "rep-4"),
        Column("Length", "tokens"),
    )
    places = {entry.method: place for place, entry in enumerate(board.entries)}
    ordered = sorted(shapes.rows, key=lambda row: places.get(row.entry.method, -1))
    rows = tuple(_row(board, shapes, row) for row in ordered)
    return Table(id, f"Generated answers of {shapes.task}: {board.where}", columns, rows)


def _row(board: Board, shapes: AnswerShapes, row: AnswersOf) -> Row:
    full = row.entry.method == UNPRUNED
    facts = None if full else board.facts_of(row.entry)
    head = Cell("unpruned" if full else row.entry.method, () if facts is None else facts.marks)
    summary = row.entry.summary(lambda cell: cell.value(shapes.task, shapes.metric))
    score = MISSING
    if summary is not None:
        score = Cell(number(shapes.metric, summary.mean), sort=summary.mean)
    cells = (
        score,
        _share(row, "loops"),
        _difference(row, "loops"),
        _share(row, "hit_limit"),
        _difference(row, "hit_limit"),
        Cell(f"{row.figures['rep_4']:.3f}", sort=row.figures["rep_4"]),
        Cell(f"{row.figures['answer_tokens']:.1f}", sort=row.figures["answer_tokens"]),
    )
    return Row(head, cells, "pinned" if full else "")


def _share(row: AnswersOf, metric: str) -> Cell:
    if metric not in row.figures:
        return MISSING
    value = row.figures[metric]
    compared = row.against.get(metric)
    text = f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    if compared is None or not compared.clear or compared.value < 0:
        return Cell(text, sort=value)
    return Cell(text, sort=value, kind="worse", fill=max(20, round(100 * compared.value)))


def _difference(row: AnswersOf, metric: str) -> Cell:
    compared = row.against.get(metric)
    if compared is None:
        return MISSING
    details = (compared.problem or bounds(compared.low, compared.high),)
    kind = "significant" if compared.clear else "quiet"
    return Cell(difference(compared.value), details, compared.value, kind)
