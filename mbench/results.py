"""What a run found: one value, three files, and a table to take elsewhere.

`results.csv` holds every figure in long form, `items.parquet` every per-item outcome from which
the figures follow, and `results.json` the rest: statuses, masks, protocol and provenance.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mbench.errors import MbenchError, StoreError
from mbench.evaluate.outcome import Evaluation, Metric, evaluation

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "failed", "skipped", "blocked", "interrupted"]

UNPRUNED = "none"
"""The method name of the unpruned model, at retain ratio 1."""

CSV, ITEMS, JSON = "results.csv", "items.parquet", "results.json"

DTYPES = {
    "model": "str",
    "method": "str",
    "seed": "Int64",
    "retain": "float64",
    "experts_kept": "int64",
    "router": "str",
    "mask": "str",
    "task": "str",
    "metric": "str",
    "value": "float64",
    "stderr": "float64",
    "items": "Int64",
    "status": "str",
}
"""The columns of the long form, in order."""

KEY = ["model", "router", "mask", "task"]
"""What identifies one per-item table: equal masks are evaluated once, whoever made them."""


@dataclass(frozen=True)
class TaskStatus:
    """How far the evaluation of one mask on one task came."""

    status: Status
    reason: str = ""


@dataclass(frozen=True)
class CellResult:
    """One method at one budget (and seed) on one model."""

    model: str
    method: str
    """`none` for the unpruned model."""
    seed: int | None
    """None where no seed distinguishes the results."""
    retain: float
    kept: int
    """Experts kept per layer."""
    router: str
    mask: str
    """Content hash of the mask, empty if none came about."""
    status: Status
    """Of the mask."""
    reason: str
    notes: tuple[str, ...]
    """What a reader must know, e.g. that a protection budget was clamped."""
    evaluations: Mapping[str, Evaluation] = field(repr=False)
    """By task name, for the tasks whose status is `ok`."""
    tasks: Mapping[str, TaskStatus] = field(repr=False)
    """For every task of the suite."""

    def task_status(self, task: str) -> TaskStatus:
        """The task's status; without a mask, a task that names no status has the mask's."""
        if self.status != "ok" and task not in self.tasks:
            return TaskStatus(self.status, self.reason)
        return self.tasks[task]

    def metric(self, task: str, name: str) -> Metric | None:
        """The named figure on one task, or None if the task has no result."""
        if self.task_status(task).status != "ok":
            return None
        return next((m for m in self.evaluations[task].metrics if m.name == name), None)


@dataclass(frozen=True)
class Results:
    """A finished or partly finished run."""

    suite: str
    title: str
    description: str
    task_metrics: Mapping[str, str]
    """Task -> the metric the suite declares for it, in the suite's order."""
    average: str
    """Name of the average over `average_tasks`, empty if the suite has none."""
    average_tasks: tuple[str, ...]
    cells: tuple[CellResult, ...]
    masks: Mapping[tuple[str, str], np.ndarray] = field(repr=False, compare=False)
    """(model, mask hash) -> bool [layers, N], True where the expert is kept."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Nested mappings, lists and plain values: command, versions, hardware, hashes, costs."""
    protocol: tuple[tuple[str, str], ...]
    """Declared settings in words, shown at the top of the report."""

    def average_of(self, cell: CellResult) -> Metric | None:
        """Unweighted mean of the average's tasks, or None unless all of them have a result.

        The tasks' items are independent, so the standard error is sqrt(sum of squares) / tasks.
        """
        found = [cell.metric(task, self.task_metrics[task]) for task in self.average_tasks]
        figures = [figure for figure in found if figure is not None]
        if not figures or len(figures) < len(found):
            return None
        count = len(figures)
        value = math.fsum(figure.value for figure in figures) / count
        error = math.sqrt(math.fsum(figure.stderr**2 for figure in figures)) / count
        return Metric("mean", value, error, sum(figure.items for figure in figures))


def long_form(results: Results) -> pd.DataFrame:
    """Every figure of a run, one per row.

    Columns: `model`, `method`, `seed` (NA where a method has none), `retain`, `experts_kept` (per
    layer), `router`, `mask` (content hash), `task`, `metric`, `value`, `stderr` (over items),
    `items`, `status`. A task without a result has one row: its declared metric, no value, its
    status. The suite's average has a row where all its tasks are ok: its name as `task`, `mean`
    as `metric`, and the standard error that follows from the tasks' independent ones.
    """
    import pandas as pd

    rows = [row for cell in results.cells for row in _cell_rows(results, cell)]
    return pd.DataFrame(rows, columns=list(DTYPES)).astype(DTYPES)


def _cell_rows(results: Results, cell: CellResult) -> Iterator[dict[str, Any]]:
    common = {
        "model": cell.model,
        "method": cell.method,
        "seed": cell.seed,
        "retain": cell.retain,
        "experts_kept": cell.kept,
        "router": cell.router,
        "mask": cell.mask,
    }

    def row(task: str, figure: Metric) -> dict[str, Any]:
        own = {"value": figure.value, "stderr": figure.stderr, "items": figure.items}
        return {**common, "task": task, "metric": figure.name, **own, "status": "ok"}

    for task, declared in results.task_metrics.items():
        status = cell.task_status(task).status
        if status == "ok":
            yield from (row(task, figure) for figure in cell.evaluations[task].metrics)
        else:
            yield {**common, "task": task, "metric": declared, "status": status}
    average = results.average_of(cell)
    if average is not None:
        yield row(results.average, average)


def write(results: Results, directory: str | Path) -> None:
    """Write the three files, each whole or not at all; equal results give equal bytes."""
    directory = Path(directory)
    items, dtypes = _gather_items(results)
    buffer = io.BytesIO()
    items.to_parquet(buffer, index=False, compression="zstd")
    write_file(directory / ITEMS, buffer.getvalue())
    write_file(directory / CSV, long_form(results).to_csv(index=False).encode())
    text = json.dumps(_to_json(results, dtypes), indent=1, ensure_ascii=False, allow_nan=False)
    write_file(directory / JSON, (text + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` in one step, so that a reader never meets half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def read(directory: str | Path) -> Results:
    """Read back what `write` wrote; metrics are derived again from the per-item outcomes."""
    import pandas as pd

    directory = Path(directory)
    try:
        data = json.loads((directory / JSON).read_text(encoding="utf-8"))
        items = pd.read_parquet(directory / ITEMS)
        return _from_json(data, items)
    except FileNotFoundError as error:
        raise StoreError(f"no results in {directory}: {error.filename} is missing") from error
    except OSError as error:
        raise StoreError(f"cannot read results in {directory}: {_line(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"results in {directory} are malformed: {_line(error)}") from error


def load_results(path: str | Path) -> pd.DataFrame:
    """The long form of a run (see `long_form`), from its directory or its `results.csv`."""
    import pandas as pd

    path = Path(path)
    if path.is_dir():
        path = path / CSV
    # Names such as "null" are names; only numbers may be missing.
    missing = {name: [""] for name, dtype in DTYPES.items() if dtype != "str"}
    try:
        table = pd.read_csv(
            path,
            dtype=DTYPES,
            keep_default_na=False,
            na_values=missing,
        )
    except FileNotFoundError as error:
        raise MbenchError(f"no results at {path}: run a suite first") from error
    except OSError as error:
        raise MbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise MbenchError(f"{path} is not a table of results: {_line(error)}") from error
    if list(table.columns) != list(DTYPES):
        expected = ", ".join(DTYPES)
        raise MbenchError(f"{path} is not a table of results: its columns must be {expected}")
    return table


def _line(error: Exception) -> str:
    """The error's text on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _gather_items(results: Results) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """All per-item tables under one another, and each task's columns with their dtypes."""
    import pandas as pd

    tables: dict[tuple[str, ...], pd.DataFrame] = {}
    dtypes: dict[str, dict[str, str]] = {}
    for cell in results.cells:
        for task in results.task_metrics:
            if cell.task_status(task).status != "ok":
                continue
            items = cell.evaluations[task].items
            key = (cell.model, cell.router, cell.mask, task)
            known = tables.setdefault(key, items)
            if known is not items and not known.equals(items):
                raise ValueError(f"two different outcomes of one mask on {task}: {key}")
            dtypes.setdefault(task, {name: str(items[name].dtype) for name in items.columns})
    if not tables:
        return pd.DataFrame(columns=[*KEY, "item"], dtype="str"), dtypes
    joined = pd.concat(tables.values(), ignore_index=True)
    lengths = [len(items) for items in tables.values()]
    for position, (name, values) in enumerate(zip(KEY, zip(*tables, strict=True), strict=True)):
        joined.insert(position, name, np.repeat(np.array(values, dtype=object), lengths))
    return joined, dtypes


def _to_json(results: Results, dtypes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    return {
        "suite": results.suite,
        "title": results.title,
        "description": results.description,
        "tasks": [
            {"task": task, "metric": metric, "columns": dtypes.get(task, {})}
            for task, metric in results.task_metrics.items()
        ],
        "average": results.average,
        "average_tasks": list(results.average_tasks),
        "protocol": [list(entry) for entry in results.protocol],
        "provenance": _plain(results.provenance),
        "cells": [_cell_to_json(results, cell) for cell in results.cells],
        "masks": [
            {
                "model": model,
                "mask": mask,
                "experts": int(keep.shape[1]),
                "kept": [np.flatnonzero(row).tolist() for row in keep],
            }
            for (model, mask), keep in sorted(results.masks.items(), key=lambda entry: entry[0])
        ],
    }


def _cell_to_json(results: Results, cell: CellResult) -> dict[str, Any]:
    tasks = {task: cell.tasks[task] for task in results.task_metrics if task in cell.tasks}
    return {
        "model": cell.model,
        "method": cell.method,
        "seed": cell.seed,
        "retain": cell.retain,
        "kept": cell.kept,
        "router": cell.router,
        "mask": cell.mask,
        "status": cell.status,
        "reason": cell.reason,
        "notes": list(cell.notes),
        "tasks": {task: [status.status, status.reason] for task, status in tasks.items()},
    }


def _plain(value: Any) -> Any:
    """Nested values as JSON has them; what JSON cannot hold becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, (str, int, type(None))) else str(value)


def _from_json(data: Mapping[str, Any], items: pd.DataFrame) -> Results:
    columns = {entry["task"]: entry["columns"] for entry in data["tasks"]}
    evaluations = {}
    for task, rows in items.groupby("task", sort=False):
        table = rows[list(columns[task])].astype(columns[task])
        for key, index in rows.groupby(KEY, sort=False).indices.items():
            evaluations[key] = evaluation(task, table.iloc[index].reset_index(drop=True))
    masks = {}
    for entry in data["masks"]:
        keep = np.zeros((len(entry["kept"]), entry["experts"]), bool)
        for row, kept in zip(keep, entry["kept"], strict=True):
            row[kept] = True
        masks[entry["model"], entry["mask"]] = keep
    return Results(
        suite=data["suite"],
        title=data["title"],
        description=data["description"],
        task_metrics={entry["task"]: entry["metric"] for entry in data["tasks"]},
        average=data["average"],
        average_tasks=tuple(data["average_tasks"]),
        cells=tuple(_cell_from_json(cell, evaluations) for cell in data["cells"]),
        masks=masks,
        provenance=data["provenance"],
        protocol=tuple((name, text) for name, text in data["protocol"]),
    )


def _cell_from_json(
    data: Mapping[str, Any], evaluations: Mapping[tuple[str, ...], Evaluation]
) -> CellResult:
    tasks = {task: TaskStatus(*status) for task, status in data["tasks"].items()}
    found = {
        task: evaluations[data["model"], data["router"], data["mask"], task]
        for task, status in tasks.items()
        if status.status == "ok"
    }
    rest = {name: value for name, value in data.items() if name not in ("notes", "tasks")}
    return CellResult(**rest, notes=tuple(data["notes"]), evaluations=found, tasks=tasks)
