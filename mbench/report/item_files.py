"""Files beside a report with the items of its tasks: what was asked, and what each mask answered.

`items/<task>.js` calls `mbenchItems` with one JSON object, since a page that is opened from disk
may load a script and nothing else. The page loads one only when a reader asks for its items.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mbench.core.cell_results import CellResult
from mbench.core.clean_text import visible
from mbench.core.results import Results
from mbench.storage.atomic import write_text_atomically

FOLDER = "items"


def file_of(task: str) -> str:
    """The file of a task: its name as far as a file may have it, and a hash that keeps it apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", task)[:60]
    return f"{plain}-{hashlib.sha256(task.encode()).hexdigest()[:8]}.js"


def write_items(results: Results, directory: Path) -> None:
    """Write the files of all tasks whose texts are known."""
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    for task in results.item_texts:
        text = json.dumps(_items(results, task), separators=(",", ":"), allow_nan=False)
        write_text_atomically(folder / file_of(task), f"mbenchItems({text})\n")


def _items(results: Results, task: str) -> dict[str, Any]:
    texts = results.item_texts[task]
    metric = results.task_metrics[task]
    outcomes: dict[str, dict[str, Any]] = {}
    for cell in results.cells:
        if cell.mask and cell.task_status(task).status == "ok":
            key = f"{cell.model} {cell.router} {cell.mask}"
            outcomes.setdefault(key, _outcome(cell, task, metric))
    return {
        "task": task,
        "metric": metric,
        "items": [visible(text.item) for text in texts],
        "prompts": [visible(text.prompt) for text in texts],
        "choices": [[visible(choice) for choice in text.choices] for text in texts],
        "truth": [visible(t) if isinstance(t := text.truth, str) else t for text in texts],
        "outcomes": outcomes,
    }


def _outcome(cell: CellResult, task: str, metric: str) -> dict[str, Any]:
    """One mask's answers, in the order of its items."""
    table = cell.evaluations[task].items
    values = table[metric].to_numpy(float) if metric in table else np.full(len(table), np.nan)
    found: dict[str, Any] = {
        "items": [visible(item) for item in table["item"]],
        "values": [None if np.isnan(value) else round(float(value), 4) for value in values],
    }
    if "loglikelihoods" in table and table["loglikelihoods"].notna().all():
        found["logs"] = [[round(float(x), 3) for x in row] for row in table["loglikelihoods"]]
    if "answer" in table:
        found["answers"] = [visible(str(answer)) for answer in table["answer"]]
    return found
