"""Tokenises lm-eval's log-likelihood requests by its own rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from mbench.core.errors import TaskError
from mbench.evaluate.lm_eval.items import Prompt
from mbench.evaluate.packed_batch import Request
from mbench.evaluate.packing import Response

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

UNLIMITED = 10**9
"""Tokenizers without a length limit give a number above this one."""


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
        self._tokens: dict[tuple[str, bool | None], list[int]] = {}
        self.encoded: list[tuple[list[int], list[int]]] = []
        """(context, continuation) of all requests since it was last cleared."""
        self.spanned = False
        """Whether a token of the last request is in its context and in its continuation."""

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **options: Any
    ) -> list[int]:
        """Encode, each text once: the choices of a question repeat its context."""
        key = (string, add_special_tokens)
        if key not in self._tokens:
            self._tokens[key] = super().tok_encode(string, add_special_tokens, **options)
        return self._tokens[key]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        parts: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        whole = self.tok_encode(context + continuation)
        self.spanned = whole[: len(parts[0])] != parts[0]
        return parts

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


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Prompts as lm-eval tokenises them: BOS is not added where one begins with it already."""
    encoder = _Encoder(tokenizer, UNLIMITED)
    return [encoder.tok_encode(text) for text in texts]


def length_limit(tokenizer: PreTrainedTokenizerBase, wanted: int | None) -> int:
    """The most tokens a request may have: `wanted`, else the tokenizer's own limit."""
    limit = wanted or tokenizer.model_max_length
    return UNLIMITED if limit > UNLIMITED else int(limit)


@dataclass(frozen=True)
class Encoded:
    """Log-likelihood requests as tokens."""

    requests: list[Request]
    instances: list[int]
    """For each request the number of its instance: a rolling one has one request per window."""
    prompts: list[Prompt]
    """One for each request of an instance that is not rolling."""

    def part(self, instances: Sequence[int]) -> Encoded:
        """The requests of these instances, numbered from 0 in this order."""
        places: dict[int, list[int]] = {}
        for place, instance in enumerate(self.instances):
            places.setdefault(instance, []).append(place)
        asked = [(at, place) for at, each in enumerate(instances) for place in places[each]]
        return Encoded(
            [self.requests[place] for _, place in asked],
            [at for at, _ in asked],
            [self.prompts[place] for _, place in asked] if self.prompts else [],
        )


def encode(
    instances: Sequence[Instance],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Encoded:
    """Tokenise log-likelihood requests; too long ones are truncated on the left, as in lm-eval.

    Args:
        instances: all of type `loglikelihood` or `loglikelihood_rolling`.
        tokenizer: of the model.
        max_length: most tokens of a request.

    Raises:
        TaskError: a choice or window has no token, or more than `max_length`.
    """
    encoder = _Encoder(tokenizer, max_length)
    encoded = Encoded([], [], [])
    for number, instance in enumerate(instances):
        rolling = instance.request_type == "loglikelihood_rolling"
        encoder.spanned = False
        if rolling:
            encoder.loglikelihood_rolling([instance])
        elif not instance.args[1]:
            raise TaskError(
                f"task {instance.task_name!r}, item {instance.doc_id}: a choice has no text"
            )
        else:
            encoder.loglikelihood([instance], disable_tqdm=True)
        for context, continuation in encoder.encoded:
            if not continuation or len(continuation) > max_length:
                raise TaskError(
                    f"task {instance.task_name!r}, item {instance.doc_id}: a choice has "
                    f"{len(continuation)} tokens; it must have 1 to {max_length}"
                )
            tokens = [*context, *continuation][-(max_length + 1) :][:-1]
            request = Request(tokens, continuation)
            encoded.requests.append(request)
            encoded.instances.append(number)
            if not rolling:
                cut = max(0, len(context) + len(continuation) - max_length - 1)
                encoded.prompts.append(Prompt(len(context), cut, encoder.spanned))
        encoder.encoded.clear()
    return encoded
