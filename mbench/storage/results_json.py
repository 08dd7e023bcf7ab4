"""Results as JSON: all but their tables and arrays, which lie in files of their own beside it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.admission import Finding
from mbench.core.cell_results import UNPRUNED, CellResult, LeftOut, PublishedCheckpoint, TaskStatus
from mbench.core.early import EarlyFigure
from mbench.core.evaluation import Evaluation, evaluation
from mbench.core.provenance import Provenance
from mbench.core.results import ProtocolEntry, Results
from mbench.core.savings import Saving
from mbench.storage.records import from_plain, to_plain
from mbench.storage.stand_in_arrays import arrays_of, described, stand_in_from

if TYPE_CHECKING:
    import pandas as pd

SCORES, STAND_INS = "scores.safetensors", "stand_ins.safetensors"
"""Files of arrays."""

FORMAT = 11
"""Of `results.json`; raised whenever what it holds changes. The first format named no number."""

KEY = ["model", "router", "mask", "task"]
"""Columns that identify one per-item table: equal masks are evaluated once, whatever made them."""


def array_name(values: np.ndarray) -> str:
    """By which an array is called; equal arrays are one."""
    kind = f"{values.shape}" if values.dtype == np.float64 else f"{values.dtype} {values.shape}"
    return hashlib.sha256(kind.encode() + values.tobytes()).hexdigest()[:16]


def to_json(results: Results, dtypes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """All but the tables and arrays themselves; `dtypes` are those of each task's columns."""
    return {
        "format": FORMAT,
        "suite": results.suite,
        "title": results.title,
        "description": results.description,
        "tasks": [
            {"task": task, "metric": metric, "columns": dtypes.get(task, {})}
            for task, metric in results.task_metrics.items()
        ],
        "average": results.average,
        "average_tasks": list(results.average_tasks),
        "protocol": to_plain(results.protocol),
        "provenance": to_plain(results.provenance),
        "left_out": to_plain(results.left_out),
        "efficiency": to_plain(results.efficiency),
        "admission": to_plain(results.admission),
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
        "scores": [
            {"model": model, "method": method, "corpus": corpus, "array": array_name(values)}
            for (model, method, corpus), values in results.scores.items()
        ],
        "stand_ins": [
            {
                "model": model,
                "mask": mask,
                "words": described(stand_in),
                "arrays": {name: array_name(each) for name, each in arrays_of(stand_in).items()},
            }
            for (model, mask), stand_in in sorted(results.stand_ins.items(), key=lambda e: e[0])
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
        "stability": cell.stability,
        "search_tokens": cell.search_tokens,
        "search_masks": cell.search_masks,
        "weight_bytes": cell.weight_bytes,
        "published": to_plain(cell.published),
        "tasks": {task: [status.status, status.reason] for task, status in tasks.items()},
        "early": {task: _early_to_json(figure) for task, figure in cell.early.items()},
    }


def _early_to_json(figure: EarlyFigure) -> dict[str, Any]:
    """JSON has no word for what is not finite, as an interval of too few items is."""
    plain: dict[str, Any] = to_plain(figure)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in plain.items()
    }


_UNKNOWN = dict.fromkeys(("figure", "difference"), math.nan) | {
    f"{name}{end}": -math.inf if end == "low" else math.inf
    for name in ("", "among_", "overall_")
    for end in ("low", "high")
}
"""What is read where a figure of an early verdict is not finite."""


def _early_from_json(data: Mapping[str, Any]) -> EarlyFigure:
    plain: dict[str, Any] = {
        name: _UNKNOWN[name] if value is None else value for name, value in data.items()
    }
    return EarlyFigure(**plain)


def from_json(
    data: Mapping[str, Any],
    items: pd.DataFrame,
    looked: Mapping[tuple[str, ...], pd.DataFrame],
    arrays: Mapping[str, Mapping[str, np.ndarray]],
) -> Results:
    """What `to_json` gave, with all items, those of early figures and the arrays of both files.

    Raises `KeyError`, `ValueError` or `TypeError` for anything else.
    """
    columns = {entry["task"]: entry["columns"] for entry in data["tasks"]}
    evaluations = {}
    for task, rows in items.groupby("task", sort=False, observed=True):
        dtypes = {name: dtype for name, dtype in columns[task].items() if name != "item"}
        table = rows[list(dtypes)].astype(dtypes)
        place, dtype = list(columns[task]).index("item"), columns[task]["item"]
        for key, index in rows.groupby(KEY, sort=False, observed=True).indices.items():
            own = table.iloc[index].reset_index(drop=True)
            own.insert(place, "item", rows["item"].array[index].astype(dtype))
            evaluations[key] = evaluation(task, own)
    masks = {}
    for entry in data["masks"]:
        keep = np.zeros((len(entry["kept"]), entry["experts"]), bool)
        for row, kept in zip(keep, entry["kept"], strict=True):
            row[kept] = True
        masks[entry["model"], entry["mask"]] = keep
    results = Results(
        suite=data["suite"],
        title=data["title"],
        description=data["description"],
        task_metrics={entry["task"]: entry["metric"] for entry in data["tasks"]},
        average=data["average"],
        average_tasks=tuple(data["average_tasks"]),
        cells=tuple(_cell_from_json(cell, evaluations, looked) for cell in data["cells"]),
        masks=masks,
        provenance=from_plain(Provenance, data["provenance"]),
        protocol=tuple(from_plain(ProtocolEntry, entry) for entry in data["protocol"]),
        left_out=tuple(from_plain(LeftOut, left) for left in data["left_out"]),
        efficiency=tuple(from_plain(Saving, saving) for saving in data["efficiency"]),
        admission=tuple(from_plain(Finding, finding) for finding in data["admission"]),
        scores={
            (entry["model"], entry["method"], entry["corpus"]): arrays[SCORES][entry["array"]]
            for entry in data["scores"]
            if arrays[SCORES]
        },
        stand_ins={
            (entry["model"], entry["mask"]): stand_in_from(
                entry["words"],
                {name: arrays[STAND_INS][array] for name, array in entry["arrays"].items()},
            )
            for entry in data["stand_ins"]
            if arrays[STAND_INS]
        },
    )
    _check_records(results)
    return results


def _check_records(results: Results) -> None:
    """Raise `KeyError` unless every model, method and task has its settings on record.

    A method that its plugin left without parts has none, and no mask.
    """
    provenance = results.provenance
    for task in results.task_metrics:
        provenance.tasks[task]
    for cell in results.cells:
        provenance.models[cell.model]
        if cell.method != UNPRUNED and cell.mask:
            provenance.methods[cell.model][cell.method]


def _cell_from_json(
    data: Mapping[str, Any],
    evaluations: Mapping[tuple[str, ...], Evaluation],
    looked: Mapping[tuple[str, ...], pd.DataFrame],
) -> CellResult:
    tasks = {task: TaskStatus(*status) for task, status in data["tasks"].items()}
    outcomes = {
        task: evaluations[data["model"], data["router"], data["mask"], task]
        for task, status in tasks.items()
        if status.status == "ok"
    }
    told = data["published"]
    apart = ("notes", "tasks", "published", "early")
    rest = {name: value for name, value in data.items() if name not in apart}
    return CellResult(
        **rest,
        notes=tuple(data["notes"]),
        evaluations=outcomes,
        tasks=tasks,
        early={task: _early_from_json(figure) for task, figure in data["early"].items()},
        looked={
            task: looked[key]
            for task in tasks
            if (task in data["early"] or data["method"] == UNPRUNED)
            and (key := (data["model"], data["router"], data["mask"], task)) in looked
        },
        published=None if told is None else from_plain(PublishedCheckpoint, told),
    )
