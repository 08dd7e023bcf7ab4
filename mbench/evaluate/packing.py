"""Log-likelihoods of many continuations, with everything that they begin with computed once.

Requests that begin alike, such as the choices of a question, or questions after the same examples,
share a row: a tree of their prefixes, branch after branch, several trees in a line (see
`mbench.evaluate.arrangement`). A mask over (query, key) lets a token see what is on its own branch
alone, and positions count along the branch, so every request gets what it would get alone. What
many rows begin with is read once, and they go on from its keys and values (`mbench.evaluate.cuts`).
All of this holds for full attention only; `usable` checks whether a model qualifies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mbench.core.batch_limit import BatchLimit, out_of_memory
from mbench.evaluate.arrangement import Arrangement, Line, Row, batches_of
from mbench.evaluate.cuts import Cut, cuts
from mbench.evaluate.lm_head import (
    SplitModel,
    equal_to_rounding,
    log_probabilities,
    softmax_dtype,
    split,
    to_device,
)
from mbench.evaluate.packed_batch import Batch, Request, attention_mask, batch_of, members_of
from mbench.moe.config import turned_by_longest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mbench.evaluate.begun import Begun

Response = tuple[float, bool]
"""Log-likelihood of a continuation, and whether greedy decoding would produce it."""

COMPARED_LINES, COMPARED = 3, 12
"""Lines, and requests of them, on which packed and plain log-likelihoods are compared before
packing is trusted."""
COMPARED_ROW = 4096
"""Tokens of a row that is compared, at most, unless two of the longest requests have more."""


class Packing:
    """Requests, arranged once and cut into batches for one limit after another."""

    def __init__(self, requests: Sequence[Request]) -> None:
        """Requests that read the same are computed once, and get the very same figures."""
        places: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        contents = [(tuple(each.tokens), tuple(each.targets)) for each in requests]
        self._distinct_of = [places.setdefault(each, len(places)) for each in contents]
        self._distinct = [Request(*each) for each in places]
        self._arrangement = Arrangement([each.tokens for each in self._distinct])
        self.floor = self._arrangement.floor
        """Tokens that would do if every prefix were computed once."""
        self._cut: tuple[tuple[int, bool], list[Batch]] = ((0, False), [])
        whole = self._cuts(range(len(self._distinct)), sys.maxsize, begins=True)
        self.tokens = sum(each.tokens for each in whole)
        """Tokens of one mask, unless batches are so small that rows are cut for them, or the model
        cannot go on from what it has read."""

    def batches(self, tokens: int, *, begins: bool) -> list[Batch]:
        """All requests, in batches of at most `tokens` with padding; longer are single rows.

        `begins`: whether the model goes on from what many of them begin with.
        """
        if self._cut[0] != (tokens, begins):
            every = range(len(self._distinct))
            self._cut = ((tokens, begins), self._batches(every, tokens, begins=begins))
        return self._cut[1]

    def _batches(self, numbers: Sequence[int], tokens: int, *, begins: bool) -> list[Batch]:
        found = self._cuts(numbers, tokens, begins=begins)
        return [batch_of(self._distinct, each.lines, each.begun) for each in found]

    def _cuts(self, numbers: Sequence[int], tokens: int, *, begins: bool) -> list[Cut]:
        most = [each.unscored if begins else 0 for each in self._distinct]
        return list(cuts(self._arrangement, numbers, tokens, most))

    def score(
        self,
        parts: SplitModel,
        limit: BatchLimit,
        device: torch.device,
        advance: Callable[[int], None],
    ) -> list[Response]:
        """Responses in the order of the requests; `advance` is called with each batch's tokens."""
        found: dict[int, Response] = {}
        begun: tuple[tuple[int, ...], Begun | None] = ((), None)

        def cut(tokens: int) -> Iterator[Batch | tuple[int, ...]]:
            if found:
                left = [at for at in range(len(self._distinct)) if at not in found]
                batches = self._batches(left, tokens, begins=parts.goes_on)
            else:
                batches = self.batches(tokens, begins=parts.goes_on)
            for batch in batches:
                if batch.begun and batch.begun != begun[0]:
                    yield batch.begun
                yield batch

        def compute(piece: Batch | tuple[int, ...]) -> None:
            nonlocal begun
            if isinstance(piece, Batch):
                if not piece.begun:
                    begun = (), None
                responses = _score(parts, piece, device, begun[1])
                found.update(zip(piece.members, responses, strict=True))
                advance(piece.tokens)
            else:
                # That before goes first.
                begun = (), None
                begun = piece, _read_once(parts.body, piece, device)
                advance(len(piece))

        limit.run(cut, _size, compute)
        return [found[at] for at in self._distinct_of]

    def usable(self, model: PreTrainedModel, limit: BatchLimit) -> SplitModel | None:
        """Body and head of the model if some lines get the same figures packed and plain, else
        None.

        Lines with the most requests come first: only they reveal a model in which those of a line
        affect one another, or one that ignores the given positions. Among these, long ones come
        first, because attention may be limited to a distance.
        """
        longest = max(len(each.tokens) for each in self._distinct)
        if unsuitable(model) is not None or turned_by_longest(model.config, longest):
            return None
        found: list[SplitModel | None] = []
        # Two of the longest can share a row, so that what shares rows anywhere does it here.
        most = max(COMPARED_ROW, 2 * longest)

        def cut(tokens: int) -> list[list[Line]]:
            nonlocal most
            rows = self._arrangement.rows(range(len(self._distinct)), most)
            lines = [line for lines in batches_of(rows, most) for line in lines]
            lines.sort(key=lambda line: (members_of(line) < 2, -sum(row.tokens for row in line)))
            # Where there is no memory for them, shorter ones.
            most = min(most, tokens) // 2 or 1
            return [] if found else [lines[:COMPARED_LINES]]

        def size(lines: list[Line]) -> int:
            # Lines of full length are compared even where a limit is still to grow.
            return min(limit.tokens, max(sum(row.tokens for row in line) for line in lines))

        limit.run(cut, size, lambda lines: found.append(self._compared(model, lines)))
        return found[0]

    @torch.no_grad()
    def _compared(self, model: PreTrainedModel, lines: Sequence[Line]) -> SplitModel | None:
        """Body and head, if these lines get the same figures packed and plain."""
        first = self._distinct[lines[0][0].members[0]].tokens
        parts = split(model, torch.tensor([first], device=model.device))
        if parts is None or not self._same(model, parts, [(line, 0) for line in lines]):
            return None
        # The same of rows whose beginning was read before, the longest beginnings first.
        rows = sorted((row for line in lines for row in line), key=self._begun, reverse=True)
        begun = [(row, at) for row in rows[:COMPARED_LINES] if (at := self._begun(row))]
        going_on = [((replace(row, tokens=row.tokens - at),), at) for row, at in begun]
        try:
            goes_on = bool(begun) and self._same(model, parts, going_on)
        # What a model makes of keys and values that are not its own is not to be foreseen.
        except Exception as error:
            if out_of_memory(error):
                raise
            goes_on = False
        return replace(parts, goes_on=goes_on)

    def _begun(self, row: Row) -> int:
        """The first tokens that all requests of a row share, and after which none is scored."""
        return min([*row.shared[1:], *(self._distinct[at].unscored for at in row.members)])

    def _same(
        self, model: PreTrainedModel, parts: SplitModel, lines: Sequence[tuple[Line, int]]
    ) -> bool:
        """Whether lines, and tokens read before each, give what the model's forward gives."""
        packed, plain = [], []
        for line, tokens in lines:
            batch = batch_of(self._distinct, [line], tokens)
            begun = _read_once(parts.body, batch.begun, model.device) if tokens else None
            responses = _score(parts, batch, model.device, begun)
            count = min(len(responses), COMPARED // COMPARED_LINES)
            for at in np.linspace(0, len(responses) - 1, count).astype(int).tolist():
                packed.append(responses[at][0])
                plain.append(_plain(model, self._distinct[batch.members[at]]))
        return equal_to_rounding(
            torch.tensor(packed, dtype=torch.float64),
            torch.tensor(plain, dtype=torch.float64),
            model.dtype,
        )


def _size(piece: Batch | tuple[int, ...]) -> int:
    return piece.ids.numel() if isinstance(piece, Batch) else len(piece)


def _read_once(body: torch.nn.Module, tokens: Sequence[int], device: torch.device) -> Begun:
    from mbench.evaluate.begun import read_once

    return read_once(body, tokens, device)


@torch.no_grad()
def _score(
    parts: SplitModel, batch: Batch, device: torch.device, begun: Begun | None
) -> list[Response]:
    """Responses of the batch's members, in order; they go on from what was begun."""
    inputs: dict[str, Any] = {"input_ids": to_device(batch.ids, device)}
    if batch.ends is not None:
        dtype = next(parts.body.parameters()).dtype
        ends = to_device(batch.ends, device)
        inputs["attention_mask"] = attention_mask(ends, len(batch.begun), dtype)
        inputs["position_ids"] = to_device(batch.positions, device)
    if begun is not None:
        inputs["past_key_values"] = begun
    hidden = parts.body(**inputs, use_cache=begun is not None).last_hidden_state
    del inputs
    logs, likeliest = log_probabilities(parts.head, hidden.flatten(0, 1), batch.predicted)
    missed = likeliest != to_device(batch.predicted.targets, device)
    figures = torch.stack([logs.double(), missed.double()], 1)
    owners = to_device(batch.owners, device)
    sums = torch.zeros(len(batch.members), 2, dtype=torch.float64, device=device)
    # One transfer back, and so one wait, a batch.
    return [(value, misses == 0) for value, misses in sums.index_add_(0, owners, figures).tolist()]


def unsuitable(model: PreTrainedModel) -> str | None:
    """Why the model's attention does not allow packing, or None if no reason is known."""
    config = model.config.get_text_config()
    attention = config._attn_implementation
    if attention not in ("eager", "sdpa"):
        return f"attention implementation {attention}"
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    other = sorted({str(kind) for kind in kinds or ()} - {"full_attention", "attention"})
    if other:
        return f"layers of type {', '.join(other)}"
    window = getattr(config, "sliding_window", None)
    # Without a list of layer types, a window applies unless the configuration switches it off.
    if window and not kinds and getattr(config, "use_sliding_window", True):
        return f"sliding window of {window} tokens"
    return None


def _plain(model: PreTrainedModel, request: Request) -> float:
    """Log-likelihood of one request by the model's own forward."""
    ids = torch.tensor([request.tokens], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, -len(request.targets) :]
    logs = torch.log_softmax(logits, -1, dtype=softmax_dtype(logits.dtype)).double()
    targets = torch.tensor(request.targets, device=logs.device)
    return float(logs.gather(1, targets[:, None]).sum())
