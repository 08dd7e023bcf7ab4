"""lm-eval's own figures of single items, and a rehearsal of them before any model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mbench.core.errors import TaskError, one_line
from mbench.evaluate.lm_eval.items import Item
from mbench.evaluate.lm_eval.metrics import SKIPPING, Figures

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

REHEARSED = 4
"""Items of each member that are scored with made-up answers."""


def figures_of_item(task: Task, item: Item, figures: Figures) -> dict[str, float]:
    """An item's figures by column, from the responses that its task has filtered.

    Of a whole text only its `bytes`: those of the text before any detokenisation, if the task gives
    them.

    Raises:
        TaskError: a figure is no number, where lm-eval's mean would be none either.
    """
    found: dict[str, float] = {}
    for applied in item.instances[0].filtered_resps:
        answers = [instance.filtered_resps[applied] for instance in item.instances]
        try:
            results = task.process_results(item.doc, answers)
        except Exception as error:
            raise TaskError(
                f"task {item.subtask!r}: item {item.identity} cannot be scored: {one_line(error)}"
            ) from error
        if figures.rolling:
            return {"bytes": _bytes(task, item, results)}
        for (metric, kept), column in figures.columns[item.subtask].items():
            if kept == applied:
                found[column] = _number(task, item, metric, results.get(metric, math.nan))
                if metric in results and math.isnan(found[column]):
                    _refuse_nan(task, item, metric)
    return found


def _bytes(task: Task, item: Item, results: Mapping[str, Any]) -> float:
    for metric in ("bits_per_byte", "byte_perplexity"):
        if metric in results:
            return float(results[metric][1])
    return float(task.count_bytes(task.doc_to_target(item.doc)))


def _number(task: Task, item: Item, metric: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TaskError(
            f"task {item.subtask!r}: the {metric} of item {item.identity} is no number but of type"
            f" {type(value).__name__}"
        ) from None


def _refuse_nan(task: Task, item: Item, metric: str) -> None:
    if task.aggregation().get(metric) not in SKIPPING:
        raise TaskError(
            f"task {item.subtask!r}: the {metric} of item {item.identity} is not a number (nan)"
        )


def rehearse(tasks: Mapping[str, Task], items: Sequence[Item], figures: Figures) -> Figures:
    """Score some items as if they had been answered, so that what cannot work fails at once.

    Returns:
        The figures without the metrics that a task declares but does not compute.

    Raises:
        TaskError: filters or metrics fail.
    """
    columns = dict(figures.columns)
    left_out = dict(figures.left_out)
    for name, task in tasks.items():
        own = [item for item in items if item.subtask == name]
        _given(task, own[:REHEARSED], figures, right=False)
        given = _given(task, own[:REHEARSED], figures)
        missing = set(columns[name].values()) - given
        if missing and len(own) > REHEARSED:
            missing -= _given(task, own[REHEARSED:], figures)
        kept = {key: column for key, column in columns[name].items() if column not in missing}
        absent = {metric for metric, _ in columns[name]} - {metric for metric, _ in kept}
        left_out |= dict.fromkeys(absent, "is declared by the task, but its code does not give it")
        columns[name] = kept
    found = replace(figures, columns=columns, left_out=left_out)
    if not found.names:
        raise TaskError(f"the code of task {next(iter(tasks))!r} gives none of its metrics")
    return found


def _given(task: Task, items: Sequence[Item], figures: Figures, *, right: bool = True) -> set[str]:
    """The columns that some item has a figure in after a `right` answer, or after another."""
    given: set[str] = set()
    if not items:
        return given
    instances = [instance for item in items for instance in item.instances]
    try:
        for item in items:
            for instance in item.instances:
                answer = _made_up(task, item, instance, right)
                instance.resps[:] = [answer] * (instance.repeats or 1)
        for ensemble in task._filters:
            ensemble.apply(instances)
        for item in items:
            found = figures_of_item(task, item, figures)
            given |= {column for column, value in found.items() if not math.isnan(value)}
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(
            f"task {items[0].subtask!r}: a {'right' if right else 'wrong'} answer cannot be scored:"
            f" {one_line(error)}"
        ) from error
    finally:
        for instance in instances:
            instance.resps.clear()
            instance.filtered_resps.clear()
    return given


def _made_up(task: Task, item: Item, instance: Instance, right: bool) -> Any:
    """A response as a model could give it: a text, or decreasing log-likelihoods."""
    if instance.request_type == "loglikelihood_rolling":
        return -1.0
    if instance.request_type != "generate_until":
        return -1.0 - instance.idx, False
    if not right:
        return " I do not know"
    target = task.doc_to_target(item.doc)
    if isinstance(target, int) and task.get_config("doc_to_choice") is not None:
        target = task.doc_to_choice(item.doc)[target]
    if isinstance(target, list | tuple) and target:
        target = target[0]
    return str(target)
