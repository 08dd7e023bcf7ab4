"""The rows and columns of a task's per-item table: its documents, and the metrics that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.api.metrics import mean, nanmean
from lm_eval.utils import handle_non_serializable, hash_string

from mbench.core.errors import TaskError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

Columns = dict[tuple[str, str], str]
"""(metric, filter) -> column of the per-item table."""

HASH = 12
"""Hexadecimal digits kept of each of an item's three hashes."""


@dataclass(frozen=True)
class Item:
    """One document of one task, with its requests."""

    subtask: str
    identity: str
    """`doc_id:doc_hash:prompt_hash:target_hash`, hashes as in lm-eval's own logs but shortened."""
    doc: Any
    instances: tuple[Instance, ...]


def read_items(name: str, task: Task, prefixed: bool) -> list[Item]:
    """The items of a task whose requests are built; `prefixed` by its name if one of many."""
    by_document: dict[int, list[Instance]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    items = []
    for number, instances in by_document.items():
        instances.sort(key=lambda instance: instance.idx)
        first = instances[0]
        document = json.dumps(
            first.doc, indent=2, default=handle_non_serializable, ensure_ascii=False
        )
        parts = (document, first.arguments[0], str(task.doc_to_target(first.doc)))
        hashes = ":".join(hash_string(part)[:HASH] for part in parts)
        identity = f"{name}/{number}:{hashes}" if prefixed else f"{number}:{hashes}"
        items.append(Item(name, identity, first.doc, tuple(instances)))
    return items


def columns_of(name: str, tasks: Mapping[str, Task]) -> dict[str, Columns]:
    """For each task, the column of each (metric, filter) to keep.

    Only metrics that are means over items: others, such as F1, have no per-item value. A column has
    the metric's name, or lm-eval's `metric,filter` where there are several filters.

    Raises:
        TaskError: the task that the suite calls `name` has no such metric.
    """
    columns: dict[str, Columns] = {}
    for subtask, task in tasks.items():
        filters = [str(ensemble.name) for ensemble in task._filters]
        means = [key for key, how in task.aggregation().items() if how in (mean, nanmean)]
        columns[subtask] = {
            (metric, applied): metric if len(filters) == 1 else f"{metric},{applied}"
            for metric in means
            for applied in filters
            if not (task.OUTPUT_TYPE == "loglikelihood" and metric == "perplexity")
        }
    rolling = any(task.OUTPUT_TYPE == "loglikelihood_rolling" for task in tasks.values())
    if not rolling and not any(columns.values()):
        metrics = sorted({metric for task in tasks.values() for metric in task.aggregation()})
        raise TaskError(
            f"task {name!r} has no metric that is a mean over its items (it has: "
            f"{', '.join(metrics) or 'none'})"
        )
    return columns
