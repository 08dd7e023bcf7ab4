"""The few-shot examples that a task draws, and whether it has enough of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mbench.core.errors import TaskError

if TYPE_CHECKING:
    from lm_eval.api.task import Task


def remember_examples(name: str, task: Task) -> list[Sequence[Any]]:
    """A list that will hold, for each item whose prompt is made, the documents of its examples.

    Raises:
        TaskError: the task has fewer examples than it puts into a prompt.
    """
    drawn: list[Sequence[Any]] = []
    wanted = task.config.num_fewshot or 0
    sampler = getattr(task, "sampler", None)
    if not wanted or sampler is None:
        return drawn
    pool = len(sampler.df)
    # lm-eval's own condition for leaving the item itself out.
    itself = task.config.fewshot_config.split == task.config.test_split
    if pool < wanted + itself:
        raise TaskError(
            f"task {name!r} puts {wanted} examples into each prompt, but"
            f" {source_of_examples(task)} has {pool}{', the item itself among them' * itself}"
            " (lower num_fewshot)"
        )
    sample = sampler.sample

    def remembered(*arguments: Any, **named: Any) -> Sequence[Any]:
        examples: Sequence[Any] = sample(*arguments, **named)
        drawn.append(examples)
        return examples

    sampler.sample = remembered
    return drawn


def source_of_examples(task: Task) -> str:
    """Where examples come from, by lm-eval's rule for tasks that do not say so."""
    config = task.config
    if config.fewshot_config.split is not None:
        return f"the split {config.fewshot_config.split!r}"
    if config.fewshot_config.samples is not None:
        return "the task file"
    split = config.training_split or config.validation_split or config.test_split
    return f"the split {split!r} (the task names none for examples)"
