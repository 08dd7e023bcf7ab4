"""One way to make ready whatever a suite evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbench.core.evaluation import Evaluator
from mbench.core.suite import LmEvalTask, PerplexityTask
from mbench.evaluate.lm_eval.task_data import LeafData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mbench.storage.texts import Text


def prepare_text(
    name: str,
    spec: PerplexityTask,
    text: Text,
    positions: int | None,
    tokenizer: PreTrainedTokenizerBase,
) -> Evaluator:
    """Tokenise a perplexity text and lay out its windows, which a model has positions for.

    Raises `TaskError` or `CorpusError` where it cannot be made ready.
    """
    from mbench.evaluate import perplexity

    return perplexity.prepare(name, spec, text.in_parts(), tokenizer, positions)


def prepare_task(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    data: Sequence[LeafData],
    positions: int | None,
    tokenizer: PreTrainedTokenizerBase,
) -> Evaluator:
    """Build a task of lm-eval and tokenise its requests, as long as the model has positions for.

    Raises `TaskError` where it cannot be made ready.
    """
    from mbench.evaluate.lm_eval.prepared_task import prepare

    return prepare(name, spec, directories, tokenizer, data, max_length=positions)
