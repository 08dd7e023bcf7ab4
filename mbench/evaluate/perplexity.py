"""Perplexity of a text on a model in memory: tokenised once, then run on one mask after another."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from mbench.core.batch_limit import BatchLimit, bands
from mbench.core.errors import TaskError
from mbench.core.evaluation import PERPLEXITY_METRICS, Evaluation, evaluation, joined
from mbench.core.item_texts import ItemText
from mbench.core.suite import PerplexityTask
from mbench.evaluate.lm_head import (
    Predicted,
    SplitModel,
    log_probabilities,
    split,
    to_device,
)
from mbench.evaluate.meter import Meter
from mbench.evaluate.windows import Windows, windows_of
from mbench.moe.config import turned_by_longest
from mbench.moe.load import embedding_rows
from mbench.moe.tokenizer import refuse_unknown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPARED_TOKENS = 16
"""Tokens on which body and head are compared with the whole model."""


def prepare(
    name: str,
    spec: PerplexityTask,
    documents: Iterable[Iterable[str]],
    tokenizer: PreTrainedTokenizerBase,
    positions: int | None,
) -> PreparedText:
    """Tokenise the documents and lay out the windows.

    Args:
        name: what results and errors call the text.
        spec: protocol and windows; its source is not looked at.
        documents: the text, each document in parts of any length.
        tokenizer: of the model.
        positions: the most tokens that the model accepts; None: any number.

    Raises:
        CorpusError: there is too little text, or no BOS token where it is asked for.
        TaskError: windows are longer than the model's positions.
    """
    refuse_too_long(name, spec, positions)
    return PreparedText(name, windows_of(name, spec, documents, tokenizer))


def refuse_too_long(name: str, spec: PerplexityTask, positions: int | None) -> None:
    """Raise `TaskError` where windows, as the suite gives them, exceed the model's positions."""
    read = spec.window - (spec.protocol != "document")
    if positions is not None and read > positions:
        raise TaskError(
            f"perplexity {name!r} has windows of {read} tokens, but the model has {positions}"
            " positions"
        )


class PreparedText:
    """A text in windows; an `Evaluator`."""

    def __init__(self, name: str, laid_out: Windows) -> None:
        self.name = name
        self.metrics = PERPLEXITY_METRICS
        self.scoring = ""
        self.work = None
        self._texts = laid_out.texts
        self._windows = laid_out.windows
        self._rows = laid_out.rows
        self._rows_of: list[list[int]] = [[] for _ in laid_out.windows]
        for number, row in enumerate(laid_out.rows):
            self._rows_of[row.window].append(number)
        self._bos = [] if laid_out.bos is None else [laid_out.bos]
        self._read = [laid_out.read(window) for window in laid_out.windows]
        self.tokens = sum(self._read)
        self._order = sorted(range(len(self._windows)), key=lambda at: -self._read[at])
        self._checked: tuple[weakref.ref[Any], SplitModel | None] | None = None
        self._laid_out = laid_out
        self._whole = self
        """Of what it is a part; itself where it is none."""

    @property
    def item_names(self) -> list[str]:
        """`text:first scored token` of every row."""
        return [f"{row.text}:{row.start}" for row in self._rows]

    @property
    def texts(self) -> tuple[ItemText, ...]:
        """None: its items are parts of documents."""
        return ()

    @property
    def items(self) -> int:
        """Rows of the per-item table: what each window scores of each document."""
        return len(self._rows)

    @property
    def generated(self) -> int:
        """None."""
        return 0

    @property
    def together(self) -> list[int]:
        """The number of each row's window."""
        return [row.window for row in self._rows]

    def part(self, numbers: Sequence[int]) -> PreparedText:
        """The windows of these rows, which score no others; see `Evaluator.part`."""
        chosen = [self._rows[number] for number in numbers]
        places = {window: at for at, window in enumerate(sorted({row.window for row in chosen}))}
        windows = tuple(self._windows[number] for number in places)
        rows = tuple(replace(row, window=places[row.window]) for row in chosen)
        found = PreparedText(self.name, replace(self._laid_out, windows=windows, rows=rows))
        found._whole = self._whole
        return found

    def join(self, tables: Sequence[pd.DataFrame]) -> Evaluation:
        """The outcome of all rows; see `Evaluator.join`."""
        return evaluation(self.name, joined(self.item_names, tables))

    def evaluate(
        self,
        model: PreTrainedModel,
        *,
        batch_tokens: int | BatchLimit = 8192,
        advance: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Score all windows with the model as it is now; see `Evaluator.evaluate`."""
        rows = embedding_rows(model)
        for text in self._texts:
            refuse_unknown(f"perplexity {self.name!r}", text.ids, rows)
        parts = self._split(model)
        meter = Meter(self.tokens, advance)
        losses = np.empty(len(self._rows))
        top: list[np.ndarray] = [np.zeros(0, np.int32)] * len(self._rows)
        done = 0
        alone = parts is None or turned_by_longest(model.config, max(self._read))

        def cut(tokens: int) -> Iterator[list[int]]:
            left = self._order[done:]
            # The whole model's logits of several windows would not fit into bounded memory.
            most = 1 if alone else tokens
            return (left[part] for part in bands([self._read[at] for at in left], most))

        def compute(batch: list[int]) -> None:
            nonlocal done
            scored = [row for window in batch for row in self._rows_of[window]]
            losses[scored], likeliest = self._score(model, parts, batch)
            for row, tokens in zip(scored, likeliest, strict=True):
                top[row] = tokens
            meter.add(sum(self._read[at] for at in batch))
            done += len(batch)

        # The first window is the longest.
        BatchLimit.of(batch_tokens).run(
            cut, lambda batch: len(batch) * self._read[batch[0]], compute
        )
        bad = next(iter(np.flatnonzero(~np.isfinite(losses)).tolist()), None)
        if bad is not None:
            raise TaskError(
                f"perplexity {self.name!r}: the loss of window {self._rows[bad].window} is"
                f" {losses[bad]}: the model's output is not finite"
            )
        self._whole._checked = (weakref.ref(model), parts)
        self.scoring = "reference" if parts is None else "split"
        return evaluation(self.name, self._frame(losses, top))

    def _split(self, model: PreTrainedModel) -> SplitModel | None:
        if self._whole is not self:
            return self._whole._split(model)
        if self._checked is not None and self._checked[0]() is model:
            return self._checked[1]
        ids = self._input(self._order[0])[:COMPARED_TOKENS]
        return split(model, torch.tensor(ids, device=model.device)[None])

    def _input(self, number: int) -> np.ndarray:
        """int64 [read], what the model reads of a window."""
        window = self._windows[number]
        own = self._texts[window.text].ids[window.start : window.stop - 1]
        return np.concatenate([np.array(self._bos, dtype=np.int64), own])

    @torch.no_grad()
    def _score(
        self, model: PreTrainedModel, parts: SplitModel | None, numbers: Sequence[int]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Of the rows of these windows: float64 [rows] natural-log losses, summed over each row's
        tokens; and int32 [tokens of the row] the model's most likely token at each."""
        length = max(self._read[number] for number in numbers)
        # Padding is on the right, where no scored position sees it.
        ids = np.zeros((len(numbers), length), dtype=np.int64)
        places, targets, owners = [], [], []
        count = 0
        for line, number in enumerate(numbers):
            window, read = self._windows[number], self._read[number]
            ids[line, :read] = self._input(number)
            text = self._texts[window.text]
            # The token before the first scored one predicts it.
            first = line * length + read - window.scored - (window.stop - window.scored)
            for row in (self._rows[at] for at in self._rows_of[number]):
                tokens = np.arange(row.start, row.stop)[~text.is_bos[row.start : row.stop]]
                places.append(first + tokens)
                targets.append(text.ids[tokens].astype(np.int64))
                owners.append(np.full(len(tokens), count))
                count += 1
        predicted = Predicted.of(np.concatenate(places), np.concatenate(targets))
        owner = to_device(torch.from_numpy(np.concatenate(owners)), model.device)
        inputs = to_device(torch.from_numpy(ids), model.device)
        if parts is None:
            given = model(input_ids=inputs, use_cache=False).logits
        else:
            given = parts.body(input_ids=inputs, use_cache=False).last_hidden_state
        head = None if parts is None else parts.head
        logs, likeliest = log_probabilities(head, given.flatten(0, 1), predicted)
        sums = torch.zeros(count, dtype=torch.float64, device=model.device)
        losses: np.ndarray = -sums.index_add_(0, owner, logs.double()).cpu().numpy()
        ends = np.cumsum([len(tokens) for tokens in targets])[:-1]
        return losses, np.split(likeliest.to("cpu", torch.int32).numpy(), ends)

    def _frame(self, losses: np.ndarray, top: list[np.ndarray]) -> pd.DataFrame:
        """The per-item table."""
        scored = [(self._texts[row.text], slice(row.start, row.stop)) for row in self._rows]
        return pd.DataFrame(
            {
                "item": self.item_names,
                "document": [row.document for row in self._rows],
                "nll": losses,
                "tokens": [int((~text.is_bos[part]).sum()) for text, part in scored],
                "bytes": [int(text.size[part].sum()) for text, part in scored],
                "top": top,
            }
        )
