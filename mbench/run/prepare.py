"""One way to make ready whatever a suite evaluates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbench.core.evaluation import Evaluator
from mbench.core.specs import PerplexitySpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mbench.plan.tasks import PlannedTask


def prepare_task(
    task: PlannedTask, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> Evaluator:
    """Build and tokenise a task or perplexity text; `max_length` is the model's in tokens.

    Raises `TaskError` or `CorpusError` where it cannot be made ready.
    """
    if isinstance(task.spec, PerplexitySpec):
        from mbench.evaluate import perplexity

        return perplexity.prepare(task.spec, task.text.documents, tokenizer)
    from mbench.evaluate.lm_eval import tasks

    return tasks.prepare(task.spec, tokenizer, max_length=max_length)
