"""lm-eval's own generation, with the tokens of the answers, and each answer as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mbench.evaluate.answers import Answer
from mbench.evaluate.lm_eval.answer_shape import Shape, shape_of

SLACK = 8
"""Tokens that may stand for less than a byte."""


class Generator(HFLM):  # type: ignore[misc]  # lm-eval is not typed
    """lm-eval's model wrapper; what a row of a batch has after its end is blanked.

    transformers goes on with a row whose text of `until` is complete until all rows are, and with
    one that has the tokenizer's end-of-text token if generation_config.json names another one.
    lm-eval cuts off the former again, but not always at the same place, and not the latter; so an
    answer could depend on the batch. Blanked, it is that of a batch of one.
    """

    shapes: Sequence[Shape] = ()
    """Of the last batch, row by row."""
    _made: Answer | None = None
    """The answer to what lm-eval asks next, if it was generated elsewhere."""

    @property
    def ends(self) -> set[int]:
        """Tokens that end an answer."""
        return {self.eot_token_id, *_ids(self.model.generation_config.eos_token_id)}

    def prompt(self, text: str, limit: int) -> list[int]:
        """What is read of a prompt by itself, if the answer may have so many tokens."""
        ids, _ = self.tok_batch_encode(
            [text], left_truncate_len=self.max_length - limit, truncation=self.truncation
        )
        tokens: list[int] = ids[0].tolist()
        return tokens

    def text_of(self, instance: Instance, answer: Answer) -> tuple[str, Shape]:
        """What lm-eval makes of an answer that was generated elsewhere."""
        self._made = answer
        try:
            (text,) = self.generate_until([instance], disable_tqdm=True)
        finally:
            self._made = None
        return text, self.shapes[0]

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any
    ) -> torch.Tensor:
        """Generate a batch; int64 [rows, tokens] with the prompts, as lm-eval expects it."""
        if self._made is None:
            found: torch.Tensor = super()._model_generate(context, max_length, stop, **options)
        else:
            assert context[0].tolist() == list(self._made.prompt), "another prompt was answered"
            found = torch.cat([context, context.new_tensor([self._made.tokens])], dim=1)
        start, shapes = context.shape[1], []
        limit = max_length - start
        ends = self.ends | set(_ids(options.get("eos_token_id")))
        for row in found[:, start:]:
            tokens = row.tolist()
            last = next((at for at, token in enumerate(tokens) if token in ends), None)
            stopped = self.stopped(tokens[:last], stop)
            if stopped is not None:
                row[stopped:] = self.tokenizer.pad_token_id
                shapes.append(shape_of(tokens[:stopped], True, limit))
            elif last is not None:
                row[last + 1 :] = self.tokenizer.pad_token_id
                shapes.append(shape_of(tokens[:last], True, limit))
            else:
                shapes.append(shape_of(tokens, False, limit))
        self.shapes = shapes
        return found

    def ending(self, until: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        """Whether tokens that were one fewer a moment ago are an answer by now.

        Only the last ones are looked at, as many as the longest text of `until` may take; what
        seems to hold it is looked at as a whole.
        """
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        texts = [text for text in (*until, end) if text]
        ends, reach = self.ends, SLACK + max(len(text.encode()) for text in texts)

        def ended(tokens: Sequence[int]) -> bool:
            if tokens[-1] in ends:
                return True
            tail = self.tokenizer.decode(tokens[-reach:], skip_special_tokens=False)
            return any(text in tail for text in texts) and self.stopped(tokens, texts) is not None

        return ended

    def stopped(self, tokens: Sequence[int], stop: Sequence[str]) -> int | None:
        """How many tokens it takes until a text that ends answers is complete; None if none is."""
        texts = [text for text in stop if text]

        def complete(count: int) -> bool:
            text = self.tokenizer.decode(tokens[:count], skip_special_tokens=False)
            return any(each in text for each in texts)

        if not complete(len(tokens)):
            return None
        none, some = 0, len(tokens)
        while some - none > 1:
            middle = (none + some) // 2
            none, some = (none, middle) if complete(middle) else (middle, some)
        return some


def _ids(token: int | Sequence[int] | None) -> Sequence[int]:
    if token is None:
        return ()
    return (token,) if isinstance(token, int) else token
