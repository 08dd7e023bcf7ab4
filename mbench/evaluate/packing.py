"""Log-likelihoods of many continuations, with everything that they begin with computed once.

Requests that begin alike, such as the choices of a question, or questions after the same examples,
share a row: a tree of their prefixes, branch after branch, several trees in a line (see
`mbench.evaluate.arrangement`). A mask over (query, key) lets a token see what is on its own branch
alone, and positions count along the branch, so every request gets what it would get alone. That
holds for full attention only; `usable` checks whether a model qualifies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mbench.core.batch_limit import BatchLimit
from mbench.evaluate.arrangement import LONGEST_ROW, Arrangement, Line, batches_of
from mbench.evaluate.lm_head import (
    Predicted,
    SplitModel,
    equal_to_rounding,
    log_probabilities,
    softmax_dtype,
    split,
    to_device,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Response = tuple[float, bool]
"""Log-likelihood of a continuation, and whether greedy decoding would produce it."""

COMPARED_LINES, COMPARED = 3, 12
"""Lines, and requests of them, on which packed and plain log-likelihoods are compared before
packing is trusted."""


@dataclass(frozen=True)
class Request:
    """One continuation to score."""

    tokens: Sequence[int]
    """What the model reads: context and continuation without its last token."""
    targets: Sequence[int]
    """The continuation: the tokens after the last `len(targets)` positions of `tokens`."""


@dataclass(frozen=True)
class Batch:
    """Lines as tensors: [B, L] tokens with padding, of which [m] predict a target."""

    ids: torch.Tensor
    """int64 [B, L]"""
    positions: torch.Tensor
    """int64 [B, L] as given to the model; they count along each request."""
    ends: torch.Tensor
    """int64 [B, L] the column before which what follows a token on its branches ends."""
    predicted: Predicted
    """The [m] targets, at indices into the flattened [B * L]."""
    owners: torch.Tensor
    """int64 [m] the place in `members` that each target belongs to."""
    members: tuple[int, ...]
    """Numbers of distinct requests."""
    tokens: int
    """Tokens that are not padding."""


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
        every = range(len(self._distinct))
        self.tokens = sum(row.tokens for row in self._arrangement.rows(every, LONGEST_ROW))
        """Tokens of one mask, unless batches are so small that rows are cut for them."""
        self._cut: tuple[int, list[Batch]] = (0, [])

    def batches(self, tokens: int) -> list[Batch]:
        """All requests, in batches of at most `tokens` with padding; longer are single rows."""
        if self._cut[0] != tokens:
            self._cut = (tokens, self._batches(range(len(self._distinct)), tokens))
        return self._cut[1]

    def _batches(self, numbers: Sequence[int], tokens: int) -> list[Batch]:
        rows = self._arrangement.rows(numbers, tokens)
        return [_batch(self._distinct, lines) for lines in batches_of(rows, tokens)]

    def score(
        self,
        parts: SplitModel,
        limit: BatchLimit,
        device: torch.device,
        advance: Callable[[int], None],
    ) -> list[Response]:
        """Responses in the order of the requests; `advance` is called with each batch's tokens."""
        found: dict[int, Response] = {}

        def cut(tokens: int) -> list[Batch]:
            if not found:
                return self.batches(tokens)
            left = [at for at in range(len(self._distinct)) if at not in found]
            return self._batches(left, tokens)

        def compute(batch: Batch) -> None:
            found.update(zip(batch.members, _score(parts, batch, device), strict=True))
            advance(batch.tokens)

        limit.run(cut, lambda batch: batch.ids.numel(), compute)
        return [found[at] for at in self._distinct_of]

    def usable(self, model: PreTrainedModel, limit: BatchLimit) -> SplitModel | None:
        """Body and head of the model if some lines get the same figures packed and plain, else
        None.

        Lines with the most requests come first: only they reveal a model in which those of a line
        affect one another, or one that ignores the given positions. Among these, long ones come
        first, because attention may be limited to a distance.
        """
        if unsuitable(model) is not None:
            return None
        most, found = LONGEST_ROW, list[SplitModel | None]()

        def cut(tokens: int) -> list[list[Line]]:
            nonlocal most
            rows = self._arrangement.rows(range(len(self._distinct)), most)
            lines = [line for lines in batches_of(rows, most) for line in lines]
            lines.sort(key=lambda line: (_members(line) < 2, -sum(row.tokens for row in line)))
            # Where there is no memory for them, shorter ones.
            most = min(most, tokens) // 2 or 1
            return [] if found else [lines[:COMPARED_LINES]]

        def size(lines: list[Line]) -> int:
            # Lines of full length are compared even where a limit is still to grow.
            return min(limit.tokens, max(sum(row.tokens for row in line) for line in lines))

        limit.run(cut, size, lambda lines: found.append(self._same(model, lines)))
        return found[0]

    @torch.no_grad()
    def _same(self, model: PreTrainedModel, lines: Sequence[Line]) -> SplitModel | None:
        """Body and head, if these lines get the same figures packed and plain."""
        first = self._distinct[lines[0][0].members[0]].tokens
        parts = split(model, torch.tensor([first], device=model.device))
        if parts is None:
            return None
        packed, plain = [], []
        for line in lines:
            batch = _batch(self._distinct, [line])
            responses = _score(parts, batch, model.device)
            count = min(len(responses), COMPARED // COMPARED_LINES)
            for at in np.linspace(0, len(responses) - 1, count).astype(int).tolist():
                packed.append(responses[at][0])
                plain.append(_plain(model, self._distinct[batch.members[at]]))
        same = equal_to_rounding(
            torch.tensor(packed, dtype=torch.float64),
            torch.tensor(plain, dtype=torch.float64),
            model.dtype,
        )
        return parts if same else None


def _members(line: Line) -> int:
    return sum(len(row.members) for row in line)


def _batch(requests: Sequence[Request], lines: Sequence[Line]) -> Batch:
    length = max(sum(row.tokens for row in line) for line in lines)
    ids = np.zeros((len(lines), length), dtype=np.int64)
    positions = np.zeros((len(lines), length), dtype=np.int64)
    # What is padding sees itself alone.
    ends = np.tile(np.arange(1, length + 1), (len(lines), 1))
    scored: list[np.ndarray] = []
    targets: list[Sequence[int]] = []
    members: list[int] = []
    for number, line in enumerate(lines):
        column = 0
        for row in line:
            # The columns of the request that was last laid out.
            path = np.zeros(0, dtype=np.int64)
            for member, shared in zip(row.members, row.shared, strict=True):
                request = requests[member]
                ends[number, path[shared:]] = column
                new = np.arange(column, column + len(request.tokens) - shared)
                ids[number, new] = request.tokens[shared:]
                positions[number, new] = np.arange(shared, len(request.tokens))
                path = np.concatenate([path[:shared], new])
                column += len(new)
                scored.append(number * length + path[len(path) - len(request.targets) :])
                targets.append(request.targets)
                members.append(member)
            ends[number, path] = column
    counts = [len(each) for each in targets]
    return Batch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        ends=torch.from_numpy(ends),
        predicted=Predicted.of(np.concatenate(scored), np.concatenate(targets)),
        owners=torch.from_numpy(np.repeat(np.arange(len(members)), counts)),
        members=tuple(members),
        tokens=sum(row.tokens for line in lines for row in line),
    )


@torch.no_grad()
def _score(parts: SplitModel, batch: Batch, device: torch.device) -> list[Response]:
    """Responses of the batch's members, in order."""
    dtype = next(parts.body.parameters()).dtype
    ends = to_device(batch.ends, device)
    at = torch.arange(ends.shape[1], device=device)
    hidden_from = (at[:, None] < at) | (at[:, None] >= ends[:, None, :])
    mask = torch.zeros(hidden_from.shape, dtype=dtype, device=device)
    mask.masked_fill_(hidden_from, torch.finfo(dtype).min)
    del hidden_from
    hidden = parts.body(
        input_ids=to_device(batch.ids, device),
        attention_mask=mask[:, None],
        position_ids=to_device(batch.positions, device),
        use_cache=False,
    ).last_hidden_state
    del mask
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
