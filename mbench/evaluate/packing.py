"""Log-likelihoods of many continuations, with the context that they share computed once.

The requests of one item, such as the choices of a question, become one row: their common prefix,
then each one's remaining tokens. A mask over (query, key) keeps the remainders from seeing one
another and their positions restart after the prefix, so every request gets what it would get alone.
That holds for full attention only; `usable` checks whether a model qualifies.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mbench.evaluate.lm_head import (
    SplitModel,
    equal_to_rounding,
    log_probabilities,
    softmax_dtype,
    split,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Response = tuple[float, bool]
"""Log-likelihood of a continuation, and whether greedy decoding would produce it."""

COMPARED_ROWS = 3
"""Rows on which packed and plain log-likelihoods are compared before packing is trusted."""

PADDING, PREFIX = -2, -1


@dataclass(frozen=True)
class Request:
    """One continuation to score."""

    group: Hashable
    """Requests of the same group may share a row."""
    tokens: Sequence[int]
    """What the model reads: context and continuation without its last token."""
    targets: Sequence[int]
    """The continuation: the tokens after the last `len(targets)` positions of `tokens`."""


@dataclass(frozen=True)
class Row:
    """Requests that share a prefix."""

    prefix: int
    """Tokens in common."""
    members: tuple[tuple[int, ...], ...]
    """Request numbers, those of identical requests together: they are computed once."""
    tokens: int


@dataclass(frozen=True)
class Batch:
    """Rows as int64 tensors: [B, L] tokens with padding, of which [m] predict a target."""

    ids: torch.Tensor
    """[B, L]"""
    positions: torch.Tensor
    """[B, L] as given to the model; they restart after the prefix for each member."""
    segments: torch.Tensor
    """[B, L] PADDING, PREFIX, or the number of the member a token belongs to."""
    scored: torch.Tensor
    """[m] indices into the flattened [B * L]."""
    targets: torch.Tensor
    """[m] the token after each scored one."""
    owners: torch.Tensor
    """[m] the number of the member that each belongs to."""
    members: tuple[tuple[int, ...], ...]
    """Request numbers of each member."""
    tokens: int
    """Tokens that are not padding."""


def arrange(requests: Sequence[Request]) -> list[Row]:
    """Group requests into rows, longest first."""
    groups: dict[Hashable, dict[Any, list[int]]] = {}
    for number, request in enumerate(requests):
        content = (tuple(request.tokens), tuple(request.targets))
        groups.setdefault(request.group, {}).setdefault(content, []).append(number)
    rows = []
    for contents in groups.values():
        inputs = [tokens for tokens, _ in contents]
        low, high = min(inputs), max(inputs)
        shortest = min(len(low), len(high))
        prefix = next((at for at in range(shortest) if low[at] != high[at]), shortest)
        length = prefix + sum(len(tokens) - prefix for tokens in inputs)
        rows.append(Row(prefix, tuple(map(tuple, contents.values())), length))
    return sorted(rows, key=lambda row: (-row.tokens, row.members))


def batches(requests: Sequence[Request], rows: Sequence[Row], batch_tokens: int) -> list[Batch]:
    """Cut rows, longest first, into batches of at most `batch_tokens` with padding, if possible."""
    cut, start = [], 0
    while start < len(rows):
        count = max(1, batch_tokens // rows[start].tokens)
        cut.append(_batch(requests, rows[start : start + count]))
        start += count
    return cut


def _batch(requests: Sequence[Request], rows: Sequence[Row]) -> Batch:
    length = max(row.tokens for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    segments = torch.full((len(rows), length), PADDING, dtype=torch.long)
    scored: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    members: list[tuple[int, ...]] = []
    for line, row in enumerate(rows):
        prefix = row.prefix
        shared = requests[row.members[0][0]].tokens[:prefix]
        ids[line, :prefix] = torch.tensor(shared, dtype=torch.long)
        positions[line, :prefix] = torch.arange(prefix)
        segments[line, :prefix] = PREFIX
        start = prefix
        for member in row.members:
            request = requests[member[0]]
            remainder = request.tokens[prefix:]
            stop = start + len(remainder)
            ids[line, start:stop] = torch.tensor(remainder, dtype=torch.long)
            positions[line, start:stop] = torch.arange(prefix, prefix + len(remainder))
            segments[line, start:stop] = len(members)
            first = len(request.tokens) - len(request.targets)
            # Positions inside the prefix stay, the others come after earlier members' remainders.
            scored += [
                line * length + (at if at < prefix else start + at - prefix)
                for at in range(first, len(request.tokens))
            ]
            targets += request.targets
            owners += [len(members)] * len(request.targets)
            members.append(member)
            start = stop
    return Batch(
        ids=ids,
        positions=positions,
        segments=segments,
        scored=torch.tensor(scored),
        targets=torch.tensor(targets),
        owners=torch.tensor(owners),
        members=tuple(members),
        tokens=sum(row.tokens for row in rows),
    )


@torch.no_grad()
def score(parts: SplitModel, batch: Batch, device: torch.device) -> list[Response]:
    """Responses of the batch's members, in order."""
    dtype = next(parts.body.parameters()).dtype
    segments = batch.segments.to(device)
    at = torch.arange(segments.shape[1], device=device)
    keys, queries = segments[:, None, :], segments[:, :, None]
    seen = (at[:, None] >= at) & ((keys == PREFIX) | (keys == queries))
    mask = torch.zeros(seen.shape, dtype=dtype, device=device)
    mask.masked_fill_(~seen, torch.finfo(dtype).min)
    hidden = parts.body(
        input_ids=batch.ids.to(device),
        attention_mask=mask[:, None],
        position_ids=batch.positions.to(device),
        use_cache=False,
    ).last_hidden_state
    targets = batch.targets.to(device)
    logs, likeliest = log_probabilities(
        parts.head, hidden.flatten(0, 1), batch.scored.to(device), targets
    )
    owners = batch.owners.to(device)
    count = len(batch.members)
    sums = torch.zeros(count, dtype=torch.float64, device=device)
    sums.index_add_(0, owners, logs.double())
    misses = torch.zeros(count, dtype=torch.long, device=device)
    misses.index_add_(0, owners, (likeliest != targets).long())
    return list(zip(sums.tolist(), (misses == 0).tolist(), strict=True))


def score_all(
    parts: SplitModel,
    cut: Sequence[Batch],
    device: torch.device,
    advance: Callable[[int], None],
) -> list[Response]:
    """Responses in the order of the requests; `advance` is called with each batch's tokens."""
    responses: dict[int, Response] = {}
    for batch in cut:
        for member, response in zip(batch.members, score(parts, batch, device), strict=True):
            responses.update(dict.fromkeys(member, response))
        advance(batch.tokens)
    return [responses[number] for number in range(len(responses))]


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


@torch.no_grad()
def usable(
    model: PreTrainedModel, requests: Sequence[Request], rows: Sequence[Row]
) -> SplitModel | None:
    """Body and head of the model if a few rows get the same figures packed and plain, else None.

    Rows with several members come first: only they reveal a model in which members of a row affect
    one another, or one that ignores the given positions. Among these, long ones come first, because
    attention may be limited to a distance.
    """
    if unsuitable(model) is not None:
        return None
    few = sorted(rows, key=lambda row: (len(row.members) < 2, -row.tokens))[:COMPARED_ROWS]
    first = torch.tensor([requests[few[0].members[0][0]].tokens], device=model.device)
    parts = split(model, first)
    if parts is None:
        return None
    packed, plain = [], []
    for row in few:
        packed += [value for value, _ in score(parts, _batch(requests, [row]), model.device)]
        plain += [_plain(model, requests[member[0]]) for member in row.members]
    same = equal_to_rounding(
        torch.tensor(packed, dtype=torch.float64),
        torch.tensor(plain, dtype=torch.float64),
        model.dtype,
    )
    return parts if same else None


def _plain(model: PreTrainedModel, request: Request) -> float:
    """Log-likelihood of one request by the model's own forward."""
    ids = torch.tensor([request.tokens], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, -len(request.targets) :]
    logs = torch.log_softmax(logits, -1, dtype=softmax_dtype(logits.dtype)).double()
    targets = torch.tensor(request.targets, device=logs.device)
    return float(logs.gather(1, targets[:, None]).sum())
