"""The index of a folder of result directories: one page that links their leaderboards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mbench.core.errors import StoreError
from mbench.report.page.render import environment
from mbench.report.statistics.answers import Answer, answers
from mbench.report.statistics.boards import Board, RunBoards
from mbench.report.statistics.equal_bytes import EqualBytes, Limit, Sized
from mbench.report.statistics.families import Comparison
from mbench.report.statistics.ranking import Ranking
from mbench.report.words import finite, method_name
from mbench.storage.atomic import write_text_atomically
from mbench.storage.report_folder import PAGE, VERDICT
from mbench.storage.results_folder import CSV, ITEMS, JSON

MARK = '<meta name="generator" content="mbench index">'
"""Identifies our own index: another file of that name is never overwritten."""


@dataclass(frozen=True)
class Leader:
    """Which method is best at one budget."""

    where: str
    methods: str
    verdict: str


@dataclass(frozen=True)
class Listed:
    """One result directory."""

    name: str
    href: str
    title: str = ""
    suite: str = ""
    models: str = ""
    date: str = ""
    """Of the last write of its results, UTC."""
    status: str = ""
    complete: bool = False
    score: str = ""
    leaders: tuple[Leader, ...] = ()
    problem: str = ""
    """Why the directory cannot be listed."""


def to_json(run: RunBoards) -> dict[str, Any]:
    """A run as the index shows it, so that the index reads no outcomes."""
    results = run.results
    every = [c.task_status(task).status for c in results.cells for task in results.task_metrics]
    statuses = [status for status in every if status != "left out"]
    return {
        "suite": results.suite,
        "title": results.title,
        "score": run.score.name if run.score else "",
        "evaluations": {status: statuses.count(status) for status in sorted(set(statuses))},
        "budgets": [_budget_to_json(board) for boards in run.groups for board in boards.boards],
        "equal_bytes": [_equal_bytes_to_json(board) for board in run.equal_bytes],
        "models": list(dict.fromkeys(boards.group.model for boards in run.groups)),
    }


def _budget_to_json(board: Board) -> dict[str, Any]:
    ranking = board.ranking
    return {
        "model": board.group.model,
        "router": board.group.router,
        "retain": board.retain,
        "pruned": board.pruned,
        "tied_for_best": [list(row.names) for row in ranking.tied] if ranking else [],
        "without_figures": [own.entry.method for own in ranking.lacking] if ranking else [],
        "answers": [_answer_to_json(answer) for answer in answers(ranking)] if ranking else [],
        "comparisons": _comparisons_to_json(ranking) if ranking else [],
        "early": [list(row.names) for row in board.ranked if row.early is not None],
    }


def _equal_bytes_to_json(board: EqualBytes) -> dict[str, Any]:
    """Who is best with at most so many bytes; first minus second is each row minus `reference`."""
    return {
        "models": list(board.models),
        "score": board.score.name,
        "limits": [
            {
                "bytes": limit.bytes,
                "reference": limit.reference,
                "tied_for_best": [list(row.names) for row in limit.ranking.tied],
                "answer": _answer_to_json(answers(limit.ranking)[0]),
                "rows": [_sized_to_json(limit, row) for row in limit.rows],
            }
            for limit in board.limits
        ],
        "frontier": [row.name for row in board.frontier],
        "size_not_known": list(board.unknown),
    }


def _sized_to_json(limit: Limit, row: Sized) -> dict[str, Any]:
    compared, found = limit.against_reference(row), limit.row_of(row)
    return {
        "name": row.name,
        "model": row.model,
        "method": method_name(row.method),
        "retain": row.entry.key.retain,
        "form": row.form,
        "bytes": row.bytes,
        "score": None if row.score is None else finite(row.score),
        "rank": None if found is None else [found.rank, found.last_rank],
        "minus_reference": None if compared is None else _comparison_to_json(compared),
    }


def _answer_to_json(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question,
        "answer": answer.chip,
        "why": answer.why,
        "name": answer.name,
        "figures": list(answer.figures) if answer.figures else None,
        "interval": list(answer.interval) if answer.interval else None,
        "note": answer.note,
    }


def _comparisons_to_json(ranking: Ranking) -> list[dict[str, Any]]:
    """Every comparison of every family: first minus second."""
    found = []
    for (first, second), c in ranking.comparisons.items():
        names = {"first": method_name(first), "second": method_name(second)}
        found.append({"family": c.family, **names, **_comparison_to_json(c)})
    return found


def _comparison_to_json(c: Comparison) -> dict[str, Any]:
    figures = {"low": c.low, "high": c.high, "p": c.p, "p_adjusted": c.adjusted}
    return {
        "difference": finite(c.value),
        **{name: finite(value) for name, value in figures.items()},
        "clear": c.clear,
        "early": c.early,
        "not_tested_because": c.problem,
    }


def write_index(folder: Path) -> Path:
    """Write `folder/index.html`, which lists every result directory of `folder`, broken ones too.

    Those of a folder within it that has an index itself, as `--output reports/mine` makes one, are
    listed as well; an index of ours in the folder above is written anew.

    Raises:
        StoreError: the file cannot be written, or is not an index of ours.
    """
    path = _write(folder)
    above = folder.resolve().parent
    if _is_index(above / PAGE):
        _write(above)
    return path


def _write(folder: Path) -> Path:
    path = folder / PAGE
    try:
        if path.exists() and not _is_index(path):
            raise StoreError(f"{path} is not an index of reports: left as it is")
        own = _shown(folder)
        inner = [e for place in own if _is_index(place / PAGE) for e in _shown(place)]
        entries = sorted(each for each in own + inner if _holds_results(each))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    template = environment().get_template("index.html.j2")
    listed = [_listed(entry, entry.relative_to(folder).as_posix()) for entry in entries]
    write_text_atomically(path, template.render(entries=listed, mark=MARK))
    return path


def _is_index(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return MARK in file.read(1000)  # of a report's page, which is large, no more is read


def _shown(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if not each.name.startswith(".")]


def _holds_results(directory: Path) -> bool:
    return any((directory / name).exists() for name in (JSON, CSV, ITEMS))


def _listed(directory: Path, name: str) -> Listed:
    """What the index says of a directory, which is called `name` there."""
    href = quote(f"{name}/{PAGE}")
    try:
        json.loads((directory / JSON).read_text(encoding="utf-8"))
        written = datetime.fromtimestamp((directory / JSON).stat().st_mtime, UTC)
        if not (directory / VERDICT).exists():
            problem = f"{VERDICT} is missing; `mbench report` of this directory writes it"
            return Listed(name, href, problem=problem)
        summary = json.loads((directory / VERDICT).read_text(encoding="utf-8"))
        evaluations: Mapping[str, int] = summary["evaluations"]
        total, done = sum(evaluations.values()), evaluations.get("ok", 0)
        others = [f"{count} {status}" for status, count in evaluations.items() if status != "ok"]
        return Listed(
            name=name,
            href=href,
            title=summary["title"],
            suite=summary["suite"],
            models=", ".join(summary["models"]),
            date=f"{written:%Y-%m-%d %H:%M}",
            status=", ".join([f"{done} of {total} evaluations ok", *others]),
            complete=done == total,
            score=summary["score"],
            leaders=tuple(_leader(budget, summary["models"]) for budget in summary["budgets"]),
        )
    # A broken directory must not keep the others from being listed.
    except OSError as error:
        missing = Path(error.filename or "").name
        return Listed(name, href, problem=f"{missing}: {error.strerror or error}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = " ".join(f"malformed: {type(error).__name__}: {error}".split())
        return Listed(name, href, problem=problem)


def _leader(budget: Mapping[str, Any], models: list[str]) -> Leader:
    where = budget["pruned"] + (f" of {budget['model']}" if len(models) > 1 else "")
    answers = [f"{own['question']} {_said(own)}" for own in budget["answers"]]
    best = budget["answers"][0] if budget["answers"] else None
    text = _said(best) if best else "no method has a complete score"
    return Leader(where, text, " ".join(answers))


def _said(answer: Mapping[str, Any]) -> str:
    """An answer in one line."""
    said = " ".join(part for part in (answer["name"], answer["answer"]) if part)
    more = answer["why"] or answer["note"]
    return f"{said} ({more})" if more else said
