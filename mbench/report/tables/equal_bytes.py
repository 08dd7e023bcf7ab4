"""Who is best with at most so many bytes: all limits in short, and each in full."""

from __future__ import annotations

from mbench.report.statistics.answers import answers
from mbench.report.statistics.equal_bytes import EqualBytes, Limit, Sized
from mbench.report.statistics.published import MARK
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import bounds, difference, listing, score_text, size


def limits_table(board: EqualBytes) -> Table:
    """One row for each limit: which checkpoint is best with at most so many bytes."""
    columns = (
        Column("With at most", number=False),
        Column("Which is best?", number=False),
        Column(board.score.name, "of the tied group"),
        Column("Highest" if board.score.higher else "Lowest", "and its bytes", number=False),
        Column("Minus the best of another form", "95 %, all pairs at once"),
        Column("Compared"),
    )
    rows = tuple(_limit_row(limit) for limit in board.limits)
    return Table(f"{board.id}-limits", f"{board.heading}: by limit", columns, rows)


def _limit_row(limit: Limit) -> Row:
    answer = answers(limit.ranking)[0]
    best = next(row for row in limit.rows if limit.row_of(row) is not None)
    tied = [found.label for found in limit.ranking.tied]
    beneath = answer.chip if answer.name else listing(tied)
    said = Cell(answer.name or answer.chip, (beneath,), kind="prose")
    if answer.why:
        said = Cell(answer.chip, (answer.why,), kind="prose")
    return Row(
        Cell(size(limit.bytes, "B"), sort=limit.bytes),
        (
            said,
            Cell(answer.figures_text, sort=best.score),
            Cell(best.name, (size(best.bytes, "B"),), kind="prose"),
            _over_another_form(limit, best),
            Cell(str(len(limit.rows)), sort=len(limit.rows)),
        ),
    )


def _over_another_form(limit: Limit, best: Sized) -> Cell:
    """The answer to whether pruning or fewer bits is better, where both fit."""
    others = (row for row in limit.rows if row.kind != best.kind and limit.row_of(row) is not None)
    other = next(others, None)
    compared = None if other is None else limit.ranking.compare(best.name, other.name)
    if other is None or compared is None:
        return MISSING
    details = (compared.problem or bounds(compared.low, compared.high), other.name)
    kind = "significant" if compared.clear else "quiet"
    return Cell(difference(compared.value), details, compared.value, kind)


def limit_table(board: EqualBytes, limit: Limit, number: int) -> Table:
    """All checkpoints that are compared under one limit, from best to worst."""
    higher = "higher" if board.score.higher else "lower"
    columns = (
        Column("Checkpoint", number=False),
        Column("Rank", "range"),
        Column("Bytes", "as stored"),
        Column(board.score.name, f"{higher} is better"),
        Column(f"Difference to {limit.reference}", "95 %, all pairs at once"),
    )
    rows = tuple(_row(limit, row) for row in limit.rows)
    return Table(f"{board.id}-limit-{number}", f"{board.heading}, {limit.words}", columns, rows)


def _row(limit: Limit, sized: Sized) -> Row:
    published = sized.entry.cells[0].published is not None
    head = Cell(sized.name, (sized.form, *((MARK,) if published else ())))
    stored = Cell(size(sized.bytes, "B"), sort=sized.bytes)
    found = limit.row_of(sized)
    if found is None:
        own = next(own for own in limit.ranking.unranked if own.entry.method == sized.name)
        text = "not comparable" if own.problem else "incomplete"
        failed = Cell(text, (own.problem,) if own.problem else (), kind="failed")
        return Row(head, (MISSING, stored, failed, MISSING), "incomplete")
    first, last = found.rank, found.last_rank
    return Row(
        head,
        (
            Cell(str(first) if first == last else f"{first}–{last}", sort=first),
            stored,
            Cell(score_text(found.summary.mean), sort=found.summary.mean),
            _difference(limit, sized),
        ),
    )


def _difference(limit: Limit, sized: Sized) -> Cell:
    compared = limit.against_reference(sized)
    if compared is None:
        return Cell("reference", kind="quiet")
    details = (compared.problem or bounds(compared.low, compared.high),)
    kind = "significant" if compared.clear else "quiet"
    return Cell(difference(compared.value), details, compared.value, kind)
