"""lm-eval's own model wrapper, and the log-likelihoods by it, which packed ones must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm_eval.models.huggingface import HFLM

from mbench.core.batch_limit import BatchLimit
from mbench.evaluate.lm_head import softmax_dtype
from mbench.evaluate.packed_batch import Request
from mbench.evaluate.packing import Response
from mbench.moe.config import turned_by_longest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHUNK = 8
"""Batches between two reports of progress."""


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    batch_size: int,
    kind: type[HFLM] = HFLM,
) -> HFLM:
    """lm-eval's own wrapper of a model in memory, with a softmax of at least float32."""
    return kind(
        pretrained=model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=batch_size,
        max_length=max_length,
        softmax_dtype=softmax_dtype(model.dtype),
    )


@dataclass(frozen=True)
class _Chunk:
    """Requests of some batches."""

    numbers: list[int]
    batch_size: int


def score_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    limit: BatchLimit,
    advance: Callable[[float], None],
) -> list[Response]:
    """Responses in the order of the requests; `advance` is called with shares of the total."""
    longest = max(len(request.tokens) for request in requests)
    alone = turned_by_longest(model.config, longest)
    # In lm-eval's own order, so that its batches are the same as without progress reports.
    whole = [(*request.tokens, request.targets[-1]) for request in requests]
    order = sorted(range(len(requests)), key=lambda number: (-len(whole[number]), whole[number]))
    responses: dict[int, Response] = {}

    def cut(tokens: int) -> Iterator[_Chunk]:
        size = 1 if alone else max(1, tokens // longest)
        for start in range(len(responses), len(order), CHUNK * size):
            yield _Chunk(order[start : start + CHUNK * size], size)

    def compute(chunk: _Chunk) -> None:
        scorer = wrap(model, tokenizer, longest, chunk.batch_size)
        scorer.logits_cache = _logits_may_be_shared([requests[number] for number in chunk.numbers])
        answers = scorer._loglikelihood_tokens(
            [_parts(requests[number], number) for number in chunk.numbers], disable_tqdm=True
        )
        responses.update(zip(chunk.numbers, answers, strict=True))
        advance(len(chunk.numbers) / len(order))

    limit.run(cut, lambda chunk: chunk.batch_size * longest, compute)
    return [responses[number] for number in range(len(requests))]


def _logits_may_be_shared(requests: Sequence[Request]) -> bool:
    """Whether those that read the same have as many targets: lm-eval gives all the logits of one,
    whose last they need not be where others have more or fewer."""
    counts: dict[tuple[int, ...], int] = {}
    return all(
        counts.setdefault(tuple(each.tokens), len(each.targets)) == len(each.targets)
        for each in requests
    )


def _parts(request: Request, number: int) -> tuple[tuple[str, str], list[int], list[int]]:
    context = len(request.tokens) + 1 - len(request.targets)
    # lm-eval looks repeated requests up by these texts, so they must differ.
    return (str(number), ""), list(request.tokens[:context]), list(request.targets)
