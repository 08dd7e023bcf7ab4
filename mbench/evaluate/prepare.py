"""One way to make ready whatever a suite evaluates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbench.core.evaluation import Evaluator
from mbench.core.suite import LmEvalTask, PerplexityTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mbench.storage.texts import Text


def prepare_text(
    name: str, spec: PerplexityTask, text: Text, tokenizer: PreTrainedTokenizerBase
) -> Evaluator:
    """Tokenise a perplexity text and lay out its windows.

    Raises `TaskError` or `CorpusError` where it cannot be made ready.
    """
    from mbench.evaluate import perplexity

    return perplexity.prepare(name, spec, text.documents, tokenizer)


def prepare_task(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> Evaluator:
    """Build a task of lm-eval and tokenise its requests, as long as the model has positions for.

    Raises `TaskError` where it cannot be made ready.
    """
    from mbench.evaluate.lm_eval.prepared_task import prepare
    from mbench.moe.load import positions_of

    positions = positions_of(model)
    max_length = None if math.isinf(positions) else int(positions)
    return prepare(name, spec, directories, tokenizer, max_length=max_length)
