"""Writes the results of a run to a folder, and reads them back.

`results.csv` holds every figure in long form, `items.parquet` every per-item outcome from which
the figures follow, and `results.json` the rest: statuses, masks, protocol and provenance, and the
checksums of itself and of the files beside it, so that no damaged byte is taken for a figure.
`scores.safetensors` has what the methods' scorers gave, each distinct array once; `results.json`
says which is whose, as it does for `stand_ins.safetensors`, what stands in for dropped experts,
where anything does. Where a suite measures what pruning saves, `efficiency.csv` has the figures
(see `efficiency_table`).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.admission import Finding
from mbench.core.clean_text import visible
from mbench.core.errors import Damaged, MbenchError, StoreError, one_line
from mbench.core.evaluation import Evaluation, evaluation
from mbench.core.provenance import Provenance
from mbench.core.results import (
    DTYPES,
    UNPRUNED,
    CellResult,
    Footprint,
    ProtocolEntry,
    Results,
    Saving,
    Spread,
    TaskStatus,
    long_form,
)
from mbench.storage.atomic import write_atomically
from mbench.storage.records import from_plain, to_plain
from mbench.storage.seal import OPEN_SEAL, check, check_sha256, sealed
from mbench.storage.stand_in_arrays import arrays_of, described, stand_in_from

if TYPE_CHECKING:
    import pandas as pd

CSV, ITEMS, JSON = "results.csv", "items.parquet", "results.json"
EFFICIENCY, SCORES = "efficiency.csv", "scores.safetensors"
STAND_INS = "stand_ins.safetensors"

RESULT_FILES = (JSON, CSV, ITEMS, EFFICIENCY, SCORES, STAND_INS)
"""All that `write` may write."""

FORMAT = 8
"""Of `results.json`; raised whenever what it holds changes. The first format named no number."""

KEY = ["model", "router", "mask", "task"]
"""Columns that identify one per-item table: equal masks are evaluated once, whatever made them."""


def _write(path: Path, content: bytes) -> None:
    def fill(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, fill)


def write(results: Results, directory: str | Path) -> None:
    """Write the files, each whole or not at all; equal results give equal bytes."""
    directory = Path(directory)
    items, dtypes = _gather_items(results)
    buffer = io.BytesIO()
    items.to_parquet(buffer, index=False, compression="zstd")
    content = buffer.getvalue()
    _write(directory / ITEMS, content)
    _write(directory / CSV, to_csv(long_form(results)).encode())
    if results.efficiency:
        table = efficiency_table(results.efficiency)
        _write(directory / EFFICIENCY, to_csv(table).encode())
    else:
        (directory / EFFICIENCY).unlink(missing_ok=True)
    checksums = {"checksum": OPEN_SEAL, "items_sha256": hashlib.sha256(content).hexdigest()}
    checksums |= _write_arrays(directory / SCORES, results.scores.values())
    stand_ins = (arrays_of(each).values() for each in results.stand_ins.values())
    checksums |= _write_arrays(directory / STAND_INS, itertools.chain.from_iterable(stand_ins))
    data = {**checksums, **_to_json(results, dtypes)}
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    _write(directory / JSON, sealed((text + "\n").encode()))


def _write_arrays(path: Path, arrays: Iterable[np.ndarray]) -> dict[str, str]:
    """Write each distinct array once, under the name by which `results.json` calls it.

    Returns the file's checksum by its name there; without arrays there is neither.
    """
    from safetensors.numpy import save

    named = {_array_name(values): values for values in arrays}
    if not named:
        path.unlink(missing_ok=True)
        return {}
    content = save(named)
    _write(path, content)
    return {f"{path.stem}_sha256": hashlib.sha256(content).hexdigest()}


def _read_arrays(path: Path, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `_write_arrays` wrote; nothing where there is no such file."""
    from safetensors.numpy import load

    if not data[path.stem] or not path.exists():
        return {}
    content = path.read_bytes()
    check_sha256(content, data[f"{path.stem}_sha256"])
    return load(content)


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV, with an apostrophe before text that a spreadsheet would run as a formula."""

    def cell(value: object) -> object:
        if not isinstance(value, str):
            return value
        text = visible(value)
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text

    texts = [name for name, dtype in table.dtypes.items() if dtype.kind not in "biufc"]
    cells = table.assign(**{str(name): table[name].map(cell) for name in texts})
    text: str = cells.to_csv(index=False)
    return text


def read(directory: str | Path) -> Results:
    """Read back what `write` wrote; metrics are derived again from the per-item outcomes.

    The files of scores and of stand-ins may be missing: no figure follows from them.

    Raises:
        StoreError: a file is missing or malformed, or another version of mbench wrote it.
    """
    import pandas as pd

    directory = Path(directory)
    name = JSON
    try:
        content = (directory / JSON).read_bytes()
        data = json.loads(content)
        _check_format(directory, data)
        check(content)
        name = ITEMS
        table = (directory / ITEMS).read_bytes()
        check_sha256(table, data["items_sha256"])
        arrays = {}
        for name in (SCORES, STAND_INS):
            arrays[name] = _read_arrays(directory / name, data)
        return _from_json(data, pd.read_parquet(io.BytesIO(table)), arrays)
    except FileNotFoundError as error:
        runs = sorted(path.parent.name for path in directory.glob(f"*/{JSON}"))
        hint = f"; did you mean {directory / runs[0]}?" if runs else ""
        raise StoreError(f"no results in {directory}: {error.filename} is missing{hint}") from error
    except OSError as error:
        raise StoreError(f"cannot read results in {directory}: {one_line(error)}") from error
    except Damaged as damage:
        raise StoreError(
            f"results in {directory} are malformed: {name} is damaged ({damage}); run the suite"
            " again: nothing in the store is computed again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"results in {directory} are malformed: {one_line(error)}") from error


def _check_format(directory: Path, data: Mapping[str, Any]) -> None:
    written: int = data.get("format", 1)
    if written < FORMAT:
        raise StoreError(
            f"results in {directory} were written by an older mbench: run the suite again; nothing"
            " in the store is computed again"
        )
    if written > FORMAT:
        raise StoreError(f"results in {directory} were written by a newer mbench: update this one")


def load_results(path: str | Path) -> pd.DataFrame:
    """The long form of a run (see `long_form`), from its directory or its `results.csv`.

    Raises:
        MbenchError: the file is missing, cannot be read, or is not such a table.
    """
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
        raise MbenchError(f"{path} is not a table of results: {one_line(error)}") from error
    if list(table.columns) != list(DTYPES):
        expected = ", ".join(DTYPES)
        raise MbenchError(f"{path} is not a table of results: its columns must be {expected}")
    return table


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
            first = tables.setdefault(key, items)
            if first is not items and not first.equals(items):
                raise ValueError(f"two different outcomes of one mask on {task}: {key}")
            dtypes.setdefault(task, {name: str(items[name].dtype) for name in items.columns})
    if not tables:
        return pd.DataFrame(columns=[*KEY, "item"], dtype="str"), dtypes
    joined = pd.concat(tables.values(), ignore_index=True)
    lengths = [len(items) for items in tables.values()]
    for position, (name, values) in enumerate(zip(KEY, zip(*tables, strict=True), strict=True)):
        joined.insert(position, name, np.repeat(np.array(values, dtype=object), lengths))
    return joined, dtypes


def _array_name(values: np.ndarray) -> str:
    kind = f"{values.shape}" if values.dtype == np.float64 else f"{values.dtype} {values.shape}"
    return hashlib.sha256(kind.encode() + values.tobytes()).hexdigest()[:16]


def _to_json(results: Results, dtypes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
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
            {"model": model, "method": method, "corpus": corpus, "array": _array_name(values)}
            for (model, method, corpus), values in results.scores.items()
        ],
        "stand_ins": [
            {
                "model": model,
                "mask": mask,
                "words": described(stand_in),
                "arrays": {name: _array_name(each) for name, each in arrays_of(stand_in).items()},
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
        "tasks": {task: [status.status, status.reason] for task, status in tasks.items()},
    }


def _from_json(
    data: Mapping[str, Any],
    items: pd.DataFrame,
    arrays: Mapping[str, Mapping[str, np.ndarray]],
) -> Results:
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
    results = Results(
        suite=data["suite"],
        title=data["title"],
        description=data["description"],
        task_metrics={entry["task"]: entry["metric"] for entry in data["tasks"]},
        average=data["average"],
        average_tasks=tuple(data["average_tasks"]),
        cells=tuple(_cell_from_json(cell, evaluations) for cell in data["cells"]),
        masks=masks,
        provenance=from_plain(Provenance, data["provenance"]),
        protocol=tuple(from_plain(ProtocolEntry, entry) for entry in data["protocol"]),
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
    data: Mapping[str, Any], evaluations: Mapping[tuple[str, ...], Evaluation]
) -> CellResult:
    tasks = {task: TaskStatus(*status) for task, status in data["tasks"].items()}
    outcomes = {
        task: evaluations[data["model"], data["router"], data["mask"], task]
        for task, status in tasks.items()
        if status.status == "ok"
    }
    rest = {name: value for name, value in data.items() if name not in ("notes", "tasks")}
    return CellResult(**rest, notes=tuple(data["notes"]), evaluations=outcomes, tasks=tasks)


def efficiency_table(savings: tuple[Saving, ...]) -> pd.DataFrame:
    """Two rows for each budget, the unpruned model's first, as `efficiency.csv` has them.

    Columns: `model`, `retain` (the budget that both rows belong to), `variant` (`unpruned` or
    `pruned`), `experts_kept` (of the pruned model), `parameters`, `checkpoint_bytes`,
    `weight_bytes` (in memory), `peak_bytes` (with what one batch allocates), `allocations` (what
    counted these), `prefill_...` and `decode_...` with `min`, `median` and `max` over the
    repetitions in tokens per second, `device`, `status`. A budget that failed has no figures.
    """
    import pandas as pd

    return pd.DataFrame([row for saving in savings for row in _rows(saving)])


def _rows(saving: Saving) -> Iterator[dict[str, Any]]:
    for variant in ("unpruned", "pruned"):
        footprint: Footprint | None = getattr(saving, variant)
        row: dict[str, Any] = {
            "model": saving.model,
            "retain": saving.retain,
            "variant": variant,
            "experts_kept": saving.kept,
        }
        for name in ("parameters", "checkpoint_bytes", "weight_bytes", "peak_bytes"):
            row[name] = getattr(footprint, name, None)
        row["allocations"] = saving.allocations
        for stage in ("prefill", "decode"):
            speed: Spread | None = getattr(footprint, stage, None)
            for short, long in (("min", "minimum"), ("median", "median"), ("max", "maximum")):
                row[f"{stage}_{short}"] = getattr(speed, long, None)
        yield {**row, "device": saving.device, "status": saving.status}
