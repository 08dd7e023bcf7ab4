"""Tokenises lm-eval's requests by its own rules, and answers them with its own model wrapper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM

from mbench.core.errors import TaskError
from mbench.evaluate.packing import Request, Response
from mbench.evaluate.scoring import wide

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNLIMITED = 10**9
"""Tokenizers without a length limit give a number above this one."""

CHUNK = 8
"""Batches between two reports of progress."""


class _Encoder(HFLM):  # type: ignore[misc]  # lm-eval is not typed
    """The part of lm-eval's model wrapper that tokenises requests; it has no model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.backend = "causal"
        self.add_bos_token = None
        self.custom_prefix_token_id = None
        self.enable_thinking = None
        self.batch_size_per_gpu = UNLIMITED
        self._rank, self._world_size = 0, 1
        self._max_length = max_length
        self._known: dict[tuple[str, bool | None], list[int]] = {}
        self.encoded: list[tuple[list[int], list[int]]] = []

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **options: Any
    ) -> list[int]:
        """Encode, each text once: the choices of a question repeat its context."""
        key = (string, add_special_tokens)
        if key not in self._known:
            self._known[key] = super().tok_encode(string, add_special_tokens, **options)
        return self._known[key]

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[Response]:
        """Store the tokens that would be scored; the responses are placeholders."""
        self.encoded += [(context, continuation) for _, context, continuation in requests]
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> list[float]:
        """As in lm-eval; without a cache to fill afterwards."""
        self.cache_hook = _NoCache()
        sums: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        return sums


class _NoCache:
    def add_partial(self, *_: Any) -> None:
        """Do nothing."""


def length_limit(tokenizer: PreTrainedTokenizerBase, wanted: int | None) -> int:
    """The most tokens a request may have: `wanted`, else the tokenizer's own limit."""
    limit = wanted or tokenizer.model_max_length
    return UNLIMITED if limit > UNLIMITED else int(limit)


def encode(
    instances: Sequence[Instance],
    groups: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> tuple[list[Request], list[int]]:
    """Tokenise log-likelihood requests; too long ones are truncated on the left, as in lm-eval.

    Args:
        instances: all of type `loglikelihood` or `loglikelihood_rolling`.
        groups: for each instance, the group within which it may share a row.
        tokenizer: of the model.
        max_length: most tokens of a request.

    Returns:
        The requests, and for each the number of its instance: a rolling instance has one request
        per window.
    """
    encoder = _Encoder(tokenizer, max_length)
    requests: list[Request] = []
    owners: list[int] = []
    for number, (instance, group) in enumerate(zip(instances, groups, strict=True)):
        rolling = instance.request_type == "loglikelihood_rolling"
        if rolling:
            encoder.loglikelihood_rolling([instance])
        else:
            encoder.loglikelihood([instance], disable_tqdm=True)
        for window, (context, continuation) in enumerate(encoder.encoded):
            if not continuation or len(continuation) > max_length:
                raise TaskError(
                    f"task {instance.task_name!r}, item {instance.doc_id}: a choice has "
                    f"{len(continuation)} tokens; it must have 1 to {max_length}"
                )
            tokens = [*context, *continuation][-(max_length + 1) :][:-1]
            requests.append(Request((group, window) if rolling else group, tokens, continuation))
            owners.append(number)
        encoder.encoded.clear()
    return requests, owners


def reference_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_size: int
) -> HFLM:
    """lm-eval's own wrapper of a model in memory, with a softmax of at least float32."""
    return HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=batch_size,
        max_length=max_length,
        softmax_dtype=wide(model.dtype),
    )


def score_reference(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    batch_tokens: int,
    advance: Callable[[float], None],
) -> dict[int, Response]:
    """Log-likelihoods by lm-eval's own code; `advance` is called with shares of the total."""
    longest = max(len(request.tokens) for request in requests)
    batch_size = max(1, batch_tokens // longest)
    scorer = reference_model(model, tokenizer, longest, batch_size)
    # In lm-eval's own order, so that its batches are the same as without progress reports.
    whole = [(*request.tokens, request.targets[-1]) for request in requests]
    order = sorted(range(len(requests)), key=lambda number: (-len(whole[number]), whole[number]))
    responses: dict[int, Response] = {}
    for start in range(0, len(order), CHUNK * batch_size):
        part = order[start : start + CHUNK * batch_size]
        answers = scorer._loglikelihood_tokens(
            [_parts(requests[number], number) for number in part], disable_tqdm=True
        )
        responses.update(zip(part, answers, strict=True))
        advance(len(part) / len(order))
    return responses


def _parts(request: Request, number: int) -> tuple[tuple[str, str], list[int], list[int]]:
    context = len(request.tokens) + 1 - len(request.targets)
    # lm-eval looks repeated requests up by these texts, so they must differ.
    return (str(number), ""), list(request.tokens[:context]), list(request.targets)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    instances: Sequence[Instance],
    task: str,
    max_length: int,
    batch_size: int,
    advance: Callable[[float], None],
) -> list[str]:
    """Generate texts by lm-eval's own code, in the order of the instances.

    Raises:
        TaskError: logits that are not finite; greedy decoding would not notice.
    """
    finite = torch.ones((), dtype=torch.bool, device=model.device)

    def watch(_module: Any, _inputs: Any, logits: torch.Tensor) -> None:
        finite.logical_and_(logits.isfinite().all())

    generator = reference_model(model, tokenizer, max_length, batch_size)
    lengths = [len(generator.tok_encode(instance.args[0])) for instance in instances]
    order = sorted(range(len(instances)), key=lambda at: (-lengths[at], instances[at].args[0]))
    texts: dict[int, str] = {}
    handle = model.get_output_embeddings().register_forward_hook(watch)
    try:
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            answers = generator.generate_until([instances[at] for at in part], disable_tqdm=True)
            if not finite:
                raise TaskError(
                    f"task {task!r}: the model's logits are not finite in the batch that starts "
                    f"with item {instances[part[0]].doc_id}"
                )
            texts.update(zip(part, answers, strict=True))
            advance(len(part) / len(order))
    finally:
        handle.remove()
    return [texts[at] for at in range(len(instances))]


def not_finite(values: Sequence[float]) -> int | None:
    """Index of the first value that is NaN or infinite."""
    return next((at for at, value in enumerate(values) if not math.isfinite(value)), None)
