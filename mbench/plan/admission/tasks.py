"""Tasks of lm-eval: whether their metric exists, and what becomes of their items on each model.

A task is built as a run would build it; no model answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING

from mbench.core.admission import Finding
from mbench.core.errors import MbenchError, TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.task_code import code_of
from mbench.plan.admission.chats import refused
from mbench.plan.admission.check import Check, RefusedElsewhere, keep_size
from mbench.plan.admission.models import model_inputs
from mbench.plan.fact_keys import admission_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.tasks import PlannedTask, TaskSize

if TYPE_CHECKING:
    from mbench.evaluate.lm_eval.prepared_task import BuiltTask

Built = Callable[[], "BuiltTask | MbenchError"]
"""Builds a task when it is first called, and gives the same again."""


def task_checks(plan: Plan) -> Iterator[Check]:
    """Every task by itself, then on every model whose files are here."""
    for task in plan.tasks:
        if not isinstance(task.spec, LmEvalTask):
            continue
        if task.out_of_reach:
            yield Check(partial(_out_of_reach, task))
            continue
        inputs = {
            "name": task.name,
            "task": dict(task.fingerprint),
            "metric": task.metric,
            "items": task.expected_items,
        }
        built = cache(partial(_build, task))
        yield Check(partial(_code, task))
        key = admission_key(plan.code, f"the items of {task.name}", inputs)
        yield Check(partial(_items, task, built), key)
        for model in plan.models:
            if model.files_available:
                what = f"{task.name} on {model.name}"
                key = admission_key(plan.code, what, {**inputs, **model_inputs(model)})
                size = plan.task_size_key(model, task)
                keep = partial(keep_size, plan.inputs.store, size)
                own = built if task.chat is None else cache(partial(_build, task, model))
                yield Check(partial(_requests, task, model, built, own, keep), key, also=size)


def _out_of_reach(task: PlannedTask) -> Iterator[Finding]:
    yield Finding("tasks", task.name, "data", task.out_of_reach, "refused")


def _build(task: PlannedTask, model: PlannedModel | None = None) -> BuiltTask | MbenchError:
    """With prompts as plain text, or as they are in the chat template of a model."""
    from mbench.evaluate.lm_eval.prepared_task import build

    assert isinstance(task.spec, LmEvalTask)
    try:
        tokenizer = None if model is None else model.tokenizer
        return build(task.name, task.spec, task.directories, task.data, tokenizer)
    except MbenchError as error:
        return error


def _code(task: PlannedTask) -> Iterator[Finding]:
    assert isinstance(task.spec, LmEvalTask)
    if task.spec.trust_code:
        name = task.spec.lm_eval_name(task.name)
        for path, function in code_of(name, task.directories, ()):
            words = f"runs {function.reference} of {path}"
            yield Finding("tasks", task.name, "code", words, "note")


def _items(task: PlannedTask, built: Built) -> Iterator[Finding]:
    from mbench.evaluate.lm_eval.looks import looks_at_items

    assert isinstance(task.spec, LmEvalTask)
    found = built()
    if isinstance(found, MbenchError):
        yield Finding("tasks", task.name, "definition", str(found), "refused")
        return
    for look in looks_at_items(found, task.metric, task.spec.limit):
        yield Finding("tasks", task.name, look.fact, look.words, look.level)
    if task.expected_items not in (None, len(found.items)):
        words = f"{len(found.items)}, but the suite expects {task.expected_items}"
        yield Finding("tasks", task.name, "items", words, "refused")


def _requests(
    task: PlannedTask,
    model: PlannedModel,
    built: Built,
    own: Built,
    keep: Callable[[TaskSize], None],
) -> Iterator[Finding]:
    """`own` is the task with its prompts in the model's chat template, if it has a `chat`."""
    from mbench.evaluate.lm_eval.looks import looks_at_requests

    try:
        tokenizer = model.tokenizer
    except MbenchError:
        return  # the model itself is refused
    if task.chat is not None and refused(model, task.chat):
        raise RefusedElsewhere
    found = own()
    if isinstance(found, MbenchError):
        if not isinstance(built(), MbenchError):
            yield Finding("tasks", task.name, "prompts", str(found), "refused", model.name)
        return
    try:
        prepared = found.tokenised(tokenizer, model.facts.positions)
    except TaskError as error:
        yield Finding("tasks", task.name, "requests", str(error), "refused", model.name)
        return
    keep(TaskSize(prepared.items, prepared.tokens, prepared.generated))
    ends = () if task.chat is None else model.ends
    for look in looks_at_requests(prepared, tokenizer, ends):
        yield Finding("tasks", task.name, look.fact, look.words, look.level, model.name)
