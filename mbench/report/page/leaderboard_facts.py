"""What the leaderboard shows of each method beside its figures and comparisons, as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mbench.core.cell_results import UNPRUNED
from mbench.core.evaluation import LOWER_IS_BETTER, changed_predictions
from mbench.report.statistics.boards import Board
from mbench.report.statistics.disagreements import choice_divergence
from mbench.report.statistics.equal_bytes import bytes_of
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.strata import pairs
from mbench.report.words import DIGITS


def facts(board: Board) -> dict[str, dict[str, Any]]:
    """Method -> what is known of its masks: `marks` beside its name, `stability`, the tokens it
    cost, `calibration` and `search`, and the `bytes` of its checkpoint, the unpruned one's too."""
    entries = list(board.budget.entries)
    if board.group.unpruned is not None:
        entries.append(Entry(UNPRUNED, (board.group.unpruned,)))
    return {entry.method: _facts_of(board, entry) for entry in entries}


def _facts_of(board: Board, entry: Entry) -> dict[str, Any]:
    known = None if entry.method == UNPRUNED else board.facts_of(entry)
    sizes = [bytes_of(board.results, cell) for cell in entry.cells]
    stable = None if known is None else known.stability
    return {
        "marks": list(board.marks_of(entry)) if known or entry.cells[0].published else [],
        "stability": None if stable is None else figure(stable),
        "calibration": None if known is None else known.calibration_tokens,
        "search": 0 if known is None else known.search_tokens,
        "bytes": None if None in sizes else max(own for own in sizes if own is not None),
    }


def won(board: Board) -> dict[str, list[list[int] | None]] | None:
    """For the score: items won and lost of all pairs of rows, and of each row against unpruned;
    None of a pair with several masks; None if nothing is right or wrong."""
    ranking = board.ranking
    if ranking is None or ranking.won is None:
        return None
    counts, rows = ranking.won, len(ranking.ranked)

    def both(first: int, second: int) -> list[int] | None:
        found = counts[first, second], counts[second, first]
        return None if np.isnan(found).any() else [int(own) for own in found]

    unpruned = [both(row, rows) if ranking.unpruned else None for row in range(rows)]
    return {"pairs": [both(a, b) for a, b in pairs(rows)], "unpruned": unpruned}


def divergences(board: Board) -> dict[str, float]:
    """Label of a row with one mask -> divergence of its choices from the unpruned model's, the mean
    over the score's tasks that have choices."""
    full = board.group.unpruned
    if board.score is None or full is None:
        return {}
    found = {}
    for row in board.ranked:
        if len(row.entry.cells) > 1:
            continue
        by_task = [
            choice_divergence(full, row.entry.cells[0], task) for task, _ in board.score.parts
        ]
        present = [value for value in by_task if value is not None]
        if present:
            found[row.label] = round(math.fsum(present) / len(present), DIGITS)
    return found


def changed(board: Board, tasks: Mapping[str, str]) -> dict[str, float]:
    """Label of a row with one mask -> share of tokens whose most likely one is not the unpruned
    model's, the mean over texts of perplexity."""
    rankings = [own for own in (board.ranking, board.by_perplexity) if own is not None]
    found: dict[str, float] = {}
    for row in (row for ranking in rankings for row in ranking.ranked):
        if row.label in found or len(row.entry.cells) > 1:
            continue
        evaluations = row.entry.cells[0].evaluations
        texts = [
            changed_predictions(evaluations[task])
            for task, metric in tasks.items()
            if metric in LOWER_IS_BETTER and task in evaluations
        ]
        present = [share for share in texts if share is not None]
        if present:
            found[row.label] = round(math.fsum(present) / len(present), DIGITS)
    return found


def figure(value: float) -> float | None:
    """Rounded; what is not finite is none, for JSON has no word for it."""
    return round(value, DIGITS) + 0.0 if math.isfinite(value) else None
