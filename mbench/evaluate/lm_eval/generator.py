"""lm-eval's own generation, with the tokens of the answers, and each answer as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from mbench.evaluate.lm_eval.answer_shape import Shape, shape_of


class Generator(HFLM):  # type: ignore[misc]  # lm-eval is not typed
    """lm-eval's model wrapper; what a row of a batch has after its end is blanked.

    transformers goes on with a row whose text of `until` is complete until all rows are, and with
    one that has the tokenizer's end-of-text token if generation_config.json names another one.
    lm-eval cuts off the former again, but not always at the same place, and not the latter; so an
    answer could depend on the batch. Blanked, it is that of a batch of one.
    """

    shapes: Sequence[Shape] = ()
    """Of the last batch, row by row."""

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any
    ) -> torch.Tensor:
        """Generate a batch; int64 [rows, tokens] with the prompts, as lm-eval expects it."""
        found: torch.Tensor = super()._model_generate(context, max_length, stop, **options)
        start, shapes = context.shape[1], []
        limit = max_length - start
        ends = {self.eot_token_id, *_ids(self.model.generation_config.eos_token_id)}
        ends |= set(_ids(options.get("eos_token_id")))
        for row in found[:, start:]:
            tokens = row.tolist()
            last = next((at for at, token in enumerate(tokens) if token in ends), None)
            stopped = self._stopped(tokens[:last], stop)
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

    def _stopped(self, tokens: Sequence[int], stop: Sequence[str]) -> int | None:
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
