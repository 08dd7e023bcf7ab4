"""Perplexity of a text on a model in memory: tokenised once, then run on one mask after another.

Bytes: a token stands for the text from the end of the tokens before it to its own end. So text that
the tokenizer drops counts for the next token (at the end of a text, for the last one), and a
character of several tokens counts for the first of them. The bytes of all tokens are thus exactly
the text's length in UTF-8. If a tokenizer gives no offsets, the bytes are distributed evenly.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from mbench.core.errors import CorpusError, TaskError
from mbench.core.evaluation import PERPLEXITY_METRICS, Evaluation, evaluation
from mbench.core.suite import PerplexityTask
from mbench.evaluate.lm_head import (
    SplitModel,
    log_probabilities,
    softmax_dtype,
    split,
)
from mbench.evaluate.meter import Meter
from mbench.moe.load import positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPARED_TOKENS = 16
"""Tokens on which body and head are compared with the whole model."""


@dataclass(frozen=True)
class Tokens:
    """One text."""

    ids: np.ndarray
    """int64 [n], BOS included if there is one."""
    size: np.ndarray
    """int64 [n], bytes that each token stands for; 0 for BOS."""


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `stop` of a text, of which the last `scored` are predicted."""

    text: int
    start: int
    stop: int
    scored: int

    @property
    def read(self) -> int:
        """Tokens that go through the model: all but the last."""
        return self.stop - self.start - 1


def prepare(
    name: str,
    spec: PerplexityTask,
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> PreparedText:
    """Tokenise the documents and lay out the windows.

    Args:
        name: what results and errors call the text.
        spec: protocol and windows; its source is not looked at.
        documents: the text.
        tokenizer: of the model.

    Raises:
        CorpusError: there is too little text.
    """
    if spec.protocol != "document":
        documents = [spec.join.join(documents)]
    texts = [tokenise(document, tokenizer) for document in documents]
    windows = [
        window for number, text in enumerate(texts) for window in lay_out(spec, number, text)
    ][: spec.max_windows]
    if not windows:
        tokens = sum(len(text.ids) for text in texts)
        needed = "2 in one document" if spec.protocol == "document" else f"{spec.window}"
        raise CorpusError(
            f"perplexity {name!r}: the text has {tokens} tokens, but one window needs at least"
            f" {needed}"
        )
    return PreparedText(name, texts, windows)


def lay_out(spec: PerplexityTask, number: int, text: Tokens) -> Iterator[Window]:
    """The windows of one text by the protocol; see `PerplexityTask`."""
    count = len(text.ids)
    if spec.protocol == "document":
        for start in range(0, count - 1, spec.window):
            stop = min(start + spec.window + 1, count)
            yield Window(number, start, stop, stop - start - 1)
    elif spec.protocol == "gptq":
        for stop in range(spec.window, count + 1, spec.window):
            yield Window(number, stop - spec.window, stop, spec.window - 1)
    elif count >= spec.window:
        assert spec.stride is not None
        scored_up_to = 1
        for start in range(0, count, spec.stride):
            stop = min(start + spec.window, count)
            yield Window(number, start, stop, stop - scored_up_to)
            scored_up_to = stop
            if stop == count:
                break


def tokenise(text: str, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Token ids and the bytes that each stands for; see the module's docstring."""
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
    )
    ids = encoded["input_ids"]
    width = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    ends_of_characters = np.concatenate(
        [[0], np.cumsum(1 + (width > 0x7F) + (width > 0x7FF) + (width > 0xFFFF))]
    ).astype(np.int64)
    if tokenizer.is_fast:
        ends = np.array([stop for _, stop in encoded["offset_mapping"]], dtype=np.int64)
        ends = ends_of_characters[np.maximum.accumulate(ends)]
    else:
        ends = ends_of_characters[-1] * np.arange(1, len(ids) + 1) // max(1, len(ids))
    ends[-1:] = ends_of_characters[-1]
    size = np.diff(ends, prepend=0)
    if tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [
        tokenizer.bos_token_id
    ]:
        ids = [tokenizer.bos_token_id, *ids]
        size = np.concatenate([[0], size])
    return Tokens(np.array(ids, dtype=np.int64), size.astype(np.int64))


class PreparedText:
    """A text in windows; an `Evaluator`."""

    def __init__(self, name: str, texts: Sequence[Tokens], windows: Sequence[Window]) -> None:
        self.name = name
        self.metrics = PERPLEXITY_METRICS
        self.scoring = ""
        self.tokens = sum(window.read for window in windows)
        self._texts = texts
        self._windows = windows
        self._order = sorted(range(len(windows)), key=lambda at: -windows[at].read)
        self._checked: tuple[weakref.ref[Any], SplitModel | None] | None = None

    @property
    def item_names(self) -> list[str]:
        """`text:first scored token` of every window."""
        return [f"{w.text}:{w.stop - w.scored}" for w in self._windows]

    @property
    def items(self) -> int:
        """Windows, which are the rows of the per-item table."""
        return len(self._windows)

    def evaluate(
        self,
        model: PreTrainedModel,
        *,
        batch_tokens: int = 8192,
        advance: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Score all windows with the model as it is now; see `Evaluator.evaluate`."""
        longest = self._windows[self._order[0]].read
        if longest > positions_of(model):
            raise TaskError(
                f"perplexity {self.name!r} has windows of {longest} tokens, but the model has "
                f"{positions_of(model)} positions"
            )
        parts = self._split(model)
        meter = Meter(self.tokens, advance)
        losses = np.empty(len(self._windows))
        start = 0
        while start < len(self._order):
            read = self._windows[self._order[start]].read
            # The whole model's logits of several windows would not fit into bounded memory.
            count = 1 if parts is None else max(1, batch_tokens // read)
            batch = self._order[start : start + count]
            losses[batch] = self._losses(model, parts, [self._windows[at] for at in batch])
            meter.add(sum(self._windows[at].read for at in batch))
            start += count
        bad = next(iter(np.flatnonzero(~np.isfinite(losses)).tolist()), None)
        if bad is not None:
            raise TaskError(
                f"perplexity {self.name!r}: the loss of window {bad} is {losses[bad]}: the "
                "model's output is not finite"
            )
        self._checked = (weakref.ref(model), parts)
        self.scoring = "reference" if parts is None else "split"
        return evaluation(self.name, self._frame(losses))

    def _split(self, model: PreTrainedModel) -> SplitModel | None:
        if self._checked is not None and self._checked[0]() is model:
            return self._checked[1]
        window = self._windows[self._order[0]]
        ids = self._texts[window.text].ids[window.start : window.stop - 1][:COMPARED_TOKENS]
        return split(model, torch.tensor(ids, device=model.device)[None])

    @torch.no_grad()
    def _losses(
        self, model: PreTrainedModel, parts: SplitModel | None, windows: Sequence[Window]
    ) -> np.ndarray:
        """float64 [windows] natural-log losses, summed over each window's scored tokens."""
        length = max(window.read for window in windows)
        # Padding is on the right, where no scored position sees it.
        ids = np.zeros((len(windows), length), dtype=np.int64)
        rows, targets, owners = [], [], []
        for line, window in enumerate(windows):
            text = self._texts[window.text].ids
            ids[line, : window.read] = text[window.start : window.stop - 1]
            rows.append(line * length + np.arange(window.read - window.scored, window.read))
            targets.append(text[window.stop - window.scored : window.stop])
            owners.append(np.full(window.scored, line))
        place, target, owner = (
            torch.tensor(np.concatenate(parts_of), device=model.device)
            for parts_of in (rows, targets, owners)
        )
        inputs = torch.tensor(ids, device=model.device)
        if parts is None:
            logits = model(input_ids=inputs, use_cache=False).logits.flatten(0, 1)[place]
            logs = torch.log_softmax(logits, -1, dtype=softmax_dtype(logits.dtype))
            logs = logs.gather(1, target[:, None])[:, 0]
        else:
            hidden = parts.body(input_ids=inputs, use_cache=False).last_hidden_state
            logs, _ = log_probabilities(parts.head, hidden.flatten(0, 1), place, target)
        sums = torch.zeros(len(windows), dtype=torch.float64, device=model.device)
        losses: np.ndarray = -sums.index_add_(0, owner, logs.double()).cpu().numpy()
        return losses

    def _frame(self, losses: np.ndarray) -> pd.DataFrame:
        """The per-item table."""
        scored = [(self._texts[w.text].size, w.stop - w.scored, w.stop) for w in self._windows]
        return pd.DataFrame(
            {
                "item": self.item_names,
                "nll": losses,
                "tokens": [w.scored for w in self._windows],
                "bytes": [int(size[first:stop].sum()) for size, first, stop in scored],
            }
        )
