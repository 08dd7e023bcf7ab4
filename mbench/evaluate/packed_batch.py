"""Lines of requests as the tensors that a model reads: tokens, positions, and who sees whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mbench.evaluate.arrangement import Line
from mbench.evaluate.lm_head import Predicted


@dataclass(frozen=True)
class Request:
    """One continuation to score."""

    tokens: Sequence[int]
    """What the model reads: context and continuation without its last token."""
    targets: Sequence[int]
    """The continuation: the tokens after the last `len(targets)` positions of `tokens`."""

    @property
    def unscored(self) -> int:
        """The first tokens, after which nothing is predicted that counts."""
        return len(self.tokens) - len(self.targets)


@dataclass(frozen=True)
class Batch:
    """Lines as tensors: [B, L] tokens with padding, of which [m] predict a target."""

    begun: tuple[int, ...]
    """What all requests begin with, if the model is to have read it before; [P] tokens."""
    ids: torch.Tensor
    """int64 [B, L]"""
    positions: torch.Tensor
    """int64 [B, L] as given to the model; they count along each request."""
    ends: torch.Tensor | None
    """int64 [B, L] the column before which what follows a token on its branches ends; None: every
    line holds one request from its first token on, of which a token sees what is before it."""
    predicted: Predicted
    """The [m] targets, at indices into the flattened [B * L]."""
    owners: torch.Tensor
    """int64 [m] the place in `members` that each target belongs to."""
    members: tuple[int, ...]
    """Numbers of distinct requests."""
    tokens: int
    """Tokens that are not padding."""


def members_of(line: Line) -> int:
    """How many requests a line has."""
    return sum(len(row.members) for row in line)


def batch_of(requests: Sequence[Request], lines: Sequence[Line], begun: int = 0) -> Batch:
    """Lines as tensors; their requests all begin with the same `begun` tokens, which are left out.

    None of these may be one that a target follows.
    """
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
            # The columns of the request that was last laid out, after what was begun.
            path = np.zeros(0, dtype=np.int64)
            for member, shared in zip(row.members, row.shared, strict=True):
                request = requests[member]
                known = max(shared, begun)
                kept = path[: known - begun]
                ends[number, path[len(kept) :]] = column
                new = np.arange(column, column + len(request.tokens) - known)
                ids[number, new] = request.tokens[known:]
                positions[number, new] = np.arange(known, len(request.tokens))
                path = np.concatenate([kept, new])
                column += len(new)
                scored.append(number * length + path[len(path) - len(request.targets) :])
                targets.append(request.targets)
                members.append(member)
            ends[number, path] = column
    counts = [len(each) for each in targets]
    branches = begun or any(members_of(line) > 1 for line in lines)
    return Batch(
        begun=tuple(requests[members[0]].tokens[:begun]),
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        ends=torch.from_numpy(ends) if branches else None,
        predicted=Predicted.of(np.concatenate(scored), np.concatenate(targets)),
        owners=torch.from_numpy(np.repeat(np.arange(len(members)), counts)),
        members=tuple(members),
        tokens=sum(row.tokens for line in lines for row in line),
    )


def attention_mask(ends: torch.Tensor, begun: int, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, L, P + L] what is added to the attention of a query (third) to a key (last).

    Everything sees the P = `begun` tokens that were read before.
    """
    at = torch.arange(ends.shape[1], device=ends.device)
    hidden_from = (at[:, None] < at) | (at[:, None] >= ends[:, None, :])
    lines, length = ends.shape
    mask = torch.zeros(lines, length, begun + length, dtype=dtype, device=ends.device)
    mask[..., begun:].masked_fill_(hidden_from, torch.finfo(dtype).min)
    return mask[:, None]
