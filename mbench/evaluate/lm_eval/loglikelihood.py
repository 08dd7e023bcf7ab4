"""Log-likelihood requests of a task: tokenised once, answered for one mask after another.

They are computed packed where the model allows it (see `packing`), else by lm-eval's own code.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.batch_limit import BatchLimit
from mbench.core.errors import TaskError
from mbench.evaluate.lm_eval import reference
from mbench.evaluate.lm_eval.encoding import Encoded, encode
from mbench.evaluate.lm_eval.items import Item
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.lm_head import SplitModel
from mbench.evaluate.meter import Meter
from mbench.evaluate.packing import Packing, Response

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LoglikelihoodRequests:
    """The requests of items of type `loglikelihood` or `loglikelihood_rolling`.

    Rolling ones ask for whole documents: an item has one instance, which has one request a window.
    """

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        rolling: bool,
        encoded: Encoded | None = None,
    ) -> None:
        """Tokenise them, unless they are `encoded` already.

        Raises `TaskError` for a choice that is empty or too long to be scored.
        """
        self.rolling = rolling
        self.work = None
        self.scoring = ""
        self._name = name
        self._items = items
        self._tokenizer = tokenizer
        instances = [instance for item in items for instance in item.instances]
        self.item_of = [at for at, item in enumerate(items) for _ in item.instances]
        """Of each instance, the place of its item."""
        self._repeats = [instance.repeats or 1 for instance in instances]
        self._max_length = max_length
        self._encoded = encoded or encode(instances, tokenizer, max_length)
        encoded = self._encoded
        self.requests, self._instance_of = encoded.requests, encoded.instances
        """One for each instance; of rolling ones, one for each window."""
        self.prompts = encoded.prompts
        """One for each instance, but none of rolling ones."""
        self._packing = Packing(self.requests)
        self.tokens = self._packing.tokens
        """Forward tokens of one mask."""
        self.floor = self._packing.floor
        """Of these, those that would do if nothing that requests begin with were computed twice."""
        self.longest = max(len(request.tokens) for request in self.requests)
        """Tokens of the longest request."""
        self._checked: tuple[weakref.ref[Any], SplitModel | None] | None = None
        self._whole = self
        """Of what they are a part; themselves where they are none."""

    generated = 0
    """Nothing is."""

    def part(self, numbers: Sequence[int]) -> LoglikelihoodRequests:
        """Those of these items alone, in this order, as they were tokenised."""
        instances: list[list[int]] = [[] for _ in self._items]
        for instance, item in enumerate(self.item_of):
            instances[item].append(instance)
        found = LoglikelihoodRequests(
            self._name,
            [self._items[number] for number in numbers],
            self._tokenizer,
            self._max_length,
            rolling=self.rolling,
            encoded=self._encoded.part([each for at in numbers for each in instances[at]]),
        )
        found._whole = self._whole
        return found

    def answer(
        self, model: PreTrainedModel, limit: BatchLimit, meter: Meter
    ) -> list[tuple[Any, ...]]:
        """For each instance, the response to each repetition, all the same.

        A response is (log-likelihood, is greedy), or the sum of rolling windows.
        """
        parts = self._split(model, limit)
        if parts is not None:
            responses = self._packing.score(parts, limit, model.device, meter.add)
        else:
            with quiet():
                responses = reference.score_all(
                    model, self._tokenizer, self.requests, limit, meter.add_share
                )
        self._refuse_not_finite(responses)
        self._whole._checked = (weakref.ref(model), parts)
        self.scoring = "reference" if parts is None else "packed"
        by_instance: list[Any] = responses
        if self.rolling:
            values = [value for value, _ in responses]
            by_instance = np.bincount(self._instance_of, weights=values).tolist()
        return [(each,) * times for each, times in zip(by_instance, self._repeats, strict=True)]

    def _split(self, model: PreTrainedModel, limit: BatchLimit) -> SplitModel | None:
        """Body and head of the model if it allows packing; checked once per model."""
        if self._whole is not self:
            return self._whole._split(model, limit)
        if self._checked is not None and self._checked[0]() is model:
            return self._checked[1]
        return self._packing.usable(model, limit)

    def _refuse_not_finite(self, responses: Sequence[Response]) -> None:
        for number, (value, _) in enumerate(responses):
            if not math.isfinite(value):
                item = self._items[self.item_of[self._instance_of[number]]]
                raise TaskError(
                    f"task {self._name!r}: the log-likelihood of item {item.identity} is {value}: "
                    "the model's output is not finite"
                )

    def columns(self, responses: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
        """Columns of the per-item table that hold the responses themselves."""
        firsts = [each[0] for each in responses]
        if self.rolling:
            sizes = np.zeros(len(responses), dtype=np.int64)
            lengths = [len(request.targets) for request in self.requests]
            np.add.at(sizes, self._instance_of, lengths)
            losses = [-float(value) for value in firsts]
            documents = list(range(len(firsts)))
            return {"document": documents, "nll": losses, "tokens": sizes.tolist()}
        by_item: list[list[float]] = [[] for _ in self._items]
        for item, (value, _) in zip(self.item_of, firsts, strict=True):
            by_item[item].append(float(value))
        return {"loglikelihoods": by_item}
