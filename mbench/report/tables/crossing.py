"""The score of every method on every calibration text, at one budget."""

from __future__ import annotations

import numpy as np

from mbench.report.statistics.crossing import Crossing
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import score_text


def crossing_table(crossing: Crossing) -> Table:
    """Methods as rows, texts as columns, with their means and the best marked."""
    board = crossing.board
    assert board.score is not None
    mixes = board.results.provenance.mixes
    columns = (
        Column("Method", number=False),
        *(Column(text, mixes[text].label if text in mixes else "") for text in crossing.texts),
        Column("mean"),
    )
    scores = crossing.scores
    present = scores[np.isfinite(scores)]
    best = np.nan if not len(present) else present.max() if board.score.higher else present.min()
    rows = [
        Row(
            Cell(method),
            (*(_score(value, value == best) for value in scores[row]), _score(scores[row].mean())),
        )
        for row, method in enumerate(crossing.methods)
    ]
    means = (*(_score(value) for value in scores.mean(axis=0)), _score(scores.mean()))
    caption = f"{board.score.name} by method and calibration text: {board.where}"
    rows.append(Row(Cell("mean"), means, "summary"))
    return Table(f"{board.id}-crossing", caption, columns, tuple(rows))


def _score(value: float, best: bool = False) -> Cell:
    if not np.isfinite(value):
        return MISSING
    return Cell(score_text(value), sort=float(value), kind="best" if best else "")
