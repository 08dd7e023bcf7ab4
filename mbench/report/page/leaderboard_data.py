"""What the leaderboard of the page shows, as JSON: every comparison of every budget and score.

The page computes nothing: each difference, interval and p-value is that of `statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mbench.core.cell_results import UNPRUNED
from mbench.core.early import TOO_FEW
from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import Results
from mbench.report.item_files import FOLDER, file_of
from mbench.report.page.leaderboard_facts import changed, divergences, facts, figure, won
from mbench.report.statistics.boards import Board, RunBoards
from mbench.report.statistics.early import early_lines, value_or_early
from mbench.report.statistics.families import LEVEL, Comparison
from mbench.report.statistics.groups import RANDOM, Entry
from mbench.report.statistics.ranking import Ranked, Ranking, Reference, Unranked
from mbench.report.statistics.scores import task_score
from mbench.report.statistics.seed_summaries import Summary
from mbench.report.statistics.strata import pairs
from mbench.report.words import DIGITS, listing


def leaderboard_data(run: RunBoards) -> dict[str, Any]:
    """All models, budgets and scores; a score's `id` is `score`, `perplexity` or `task:` and name.

    Comparisons are lists [difference, low, high, p, adjusted p], [difference, low, high] where one
    of the two is early, or [difference] where nothing is told: of all pairs of rows (first row with
    second, with third, ..., second with third, ...), of each row with random pruning, and of each
    row and random pruning with the unpruned model.
    """
    results = run.results
    scores = {"score": run.score, "perplexity": run.second_score} | {
        f"task:{task}": task_score(task, metric) for task, metric in results.task_metrics.items()
    }
    return {
        "scores": [
            {
                "id": id,
                "name": score.name,
                "higher": score.higher,
                "tasks": [task for task, _ in score.parts],
            }
            for id, score in scores.items()
            if score is not None
        ],
        "tasks": [
            {
                "name": task,
                "metric": metric,
                "higher": metric not in LOWER_IS_BETTER,
                "file": "" if metric in LOWER_IS_BETTER else f"{FOLDER}/{file_of(task)}",
            }
            for task, metric in results.task_metrics.items()
        ],
        "models": [
            {
                "name": boards.group.model,
                "id": boards.id,
                "router": boards.group.router,
                "budgets": [_budget(board, results) for board in boards.boards],
            }
            for boards in run.groups
            if boards.boards
        ],
        "masks": _masks(results),
    }


def _masks(results: Results) -> dict[str, dict[str, list[list[Any]]]]:
    """Model -> `method at ratio` -> [seed, name of its outcomes in the files of items]."""
    found: dict[str, dict[str, list[list[Any]]]] = {}
    for cell in results.cells:
        if cell.mask:
            of_model = found.setdefault(cell.model, {})
            outcome = f"{cell.model} {cell.router} {cell.mask}"
            of_model.setdefault(f"{cell.method} {cell.retain}", []).append([cell.seed, outcome])
    return found


def _budget(board: Board, results: Results) -> dict[str, Any]:
    rankings: dict[str, Ranking | None] = {
        "score": board.ranking,
        "perplexity": board.by_perplexity,
        **{f"task:{task}": ranking for task, ranking in board.by_task.items()},
    }
    return {
        "id": board.id,
        "retain": board.retain,
        "pruned": board.pruned,
        "kept": board.kept,
        "tasks": _task_figures(board, results),
        "partly": _partly(board, results.task_metrics),
        "early": early_lines(board.budget.entries, results.task_metrics),
        "facts": facts(board),
        "answers": _answers(board),
        "gaps": [{"name": gap.method, "why": f"no cell: {gap.reason}"} for gap in board.gaps],
        "won": won(board),
        "divergence": divergences(board),
        "changed": changed(board, results.task_metrics),
        "boards": {id: _ranking(own) for id, own in rankings.items() if own is not None},
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    rows = ranking.ranked
    labels = [row.label for row in rows]
    unpruned = [*labels, *([RANDOM] if ranking.random else [])] if ranking.unpruned else []
    return {
        "rows": [_row(row) for row in rows],
        "random": _reference(ranking.random),
        "unpruned": _reference(ranking.unpruned),
        "lacking": len(ranking.lacking),
        "unranked": [_unranked(own) for own in ranking.unranked],
        "untested": dict(ranking.untested),
        "units": [[u.task, u.unit, u.count, round(u.effective, 1)] for u in ranking.units],
        "pairs": _comparisons(ranking, ((labels[a], labels[b]) for a, b in pairs(len(labels)))),
        "vsRandom": _comparisons(
            ranking, ((label, RANDOM) for label in labels if ranking.random is not None)
        ),
        "vsUnpruned": _comparisons(ranking, ((label, UNPRUNED) for label in unpruned)),
    }


def _row(row: Ranked) -> dict[str, Any]:
    closed = row.gap_closed
    return {
        "label": row.label,
        "names": row.names,
        "rank": [row.rank, row.last_rank],
        "tied": row.tied,
        "early": row.early is not None,
        **_summary(row.summary),
        "beaten": row.masks_beaten,
        "gap": None if closed is None else [figure(v) for v in vars(closed).values()],
    }


def _reference(reference: Reference | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    return {"early": reference.early is not None, **_summary(reference.summary)}


def _unranked(own: Unranked) -> dict[str, Any]:
    reasons = ((task, cell.task_status(task)) for cell in own.entry.cells for task in cell.tasks)
    lacking = [(task, status) for task, status in reasons if status.status not in ("ok", "early")]
    first = own.entry.cells[0]
    why = own.problem or first.reason
    if not why and lacking:
        status = lacking[0][1]
        why = status.reason or status.status
        if status.status == "left out":
            why = f"not asked for {listing(dict.fromkeys(task for task, _ in lacking))}"
    elif not why and (untold := [e.untold for c in own.entry.cells for e in c.early.values()]):
        why = f"early: {next(filter(None, untold), TOO_FEW)}"
    seeds = len(own.entry.cells)
    return {"name": own.entry.method, "why": why or "incomplete", "seeds": seeds}


def _summary(summary: Summary) -> dict[str, Any]:
    """One figure, or the mean of several with their deviation and range."""
    found: dict[str, Any] = {"score": figure(summary.mean)}
    if summary.count > 1:
        found |= {
            "seeds": summary.count,
            "std": figure(summary.std),
            "range": [figure(summary.minimum), figure(summary.maximum)],
        }
    return found


def _comparisons(ranking: Ranking, compared: Iterable[tuple[str, str]]) -> list[list[float | None]]:
    found = (ranking.comparisons[pair] for pair in compared)
    return [_comparison(comparison) for comparison in found]


def _comparison(comparison: Comparison) -> list[float | None]:
    if comparison.problem:
        return [figure(comparison.value)]
    c = comparison
    if c.early:
        return [_signed(value, c) for value in (c.value, c.low, c.high)]
    return [*(_signed(value, c) for value in (c.value, c.low, c.high)), _p(c.p), _p(c.adjusted)]


def _p(value: float) -> float:
    """Two significant digits, but for a p-value that these would carry over the level."""
    rounded = float(f"{value:.2g}")
    return rounded if (rounded < LEVEL) == (value < LEVEL) else value


def _signed(value: float, comparison: Comparison) -> float | None:
    """A difference or a bound; one that is clear by very little keeps its sign."""
    rounded = figure(value)
    if rounded == 0 and comparison.clear and value:
        return math.copysign(10.0**-DIGITS, value)
    return rounded


def _task_figures(board: Board, results: Results) -> dict[str, list[Any]]:
    """Method -> its figure on every task: a mean over seeds, or a text that says why not."""
    entries = list(board.budget.entries)
    if board.group.unpruned is not None:
        entries.append(Entry(UNPRUNED, (board.group.unpruned,)))
    return {entry.method: _figures(entry, results.task_metrics) for entry in entries}


def _figures(entry: Entry, tasks: Mapping[str, str]) -> list[Any]:
    figures: list[Any] = []
    for task, metric in tasks.items():
        values = [value_or_early(cell, task, metric) for cell in entry.cells]
        present = [value for value in values if value is not None]
        if len(present) == len(values):
            figures.append(figure(math.fsum(present) / len(present)))
        else:
            states = (cell.task_status(task).status for cell in entry.cells)
            state = next((state for state in states if state != "ok"), "no such metric")
            figures.append("not asked for" if state == "left out" else state)
    return figures


def _partly(board: Board, tasks: Mapping[str, str]) -> dict[str, dict[str, list[Any]]]:
    """Method -> task that only some of its seeds have -> their mean, and how many they are."""
    found: dict[str, dict[str, list[Any]]] = {}
    for entry in board.budget.entries:
        for task, metric in tasks.items():
            values = [value_or_early(cell, task, metric) for cell in entry.cells]
            present = [value for value in values if value is not None]
            if 0 < len(present) < len(values):
                said = f"{len(present)} of {len(values)} seeds"
                mean = figure(math.fsum(present) / len(present))
                found.setdefault(entry.method, {})[task] = [mean, said]
    return found


def _answers(board: Board) -> dict[str, dict[str, list[float | None]]]:
    """Generating task -> method -> shares of its answers that loop, and that are cut off."""
    return {
        shapes.task: {
            row.entry.method: [
                figure(row.figures.get(name, math.nan)) for name in ("loops", "hit_limit")
            ]
            for row in shapes.rows
        }
        for shapes in board.answers
    }
