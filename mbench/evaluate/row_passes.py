"""Passes of a model over rows of a `RowCache`, and whether a model allows them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from mbench.core.batch_limit import out_of_memory
from mbench.evaluate.lm_head import equal_to_rounding
from mbench.evaluate.row_cache import RowCache
from mbench.moe.config import turned_by_longest

NOISE = 0.2
"""Of the logits' spread, what the rounding of 16 bits is taken for: 0.016 was found with 24 layers,
and from 1 on where a row sees tokens that it should not."""

CHECKED = 48
"""Tokens of a prompt on which a model is checked."""


def read(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], begun: RowCache | None = None
) -> tuple[torch.Tensor, RowCache]:
    """Logits [rows, vocabulary] after the tokens of every row, and a cache of them.

    `begun` has what all rows begin with, each of which has more.
    """
    held = int(begun.get_seq_length()) if begun else 0
    new = max(map(len, rows)) - held
    cache = RowCache()
    if begun:
        # Shorter rows read the end of what they share anew, where others would have padding.
        lengths = [max(0, len(row) - new) for row in rows]
        cache = begun.beginnings(torch.tensor(lengths, device=model.device))
    ids, mask, positions = _left_padded(rows, held + new, model.device)
    return _forward(model, cache, ids[:, held:], mask, positions[:, held:]), cache


def one_more(
    model: PreTrainedModel,
    cache: RowCache,
    tokens: Sequence[int],
    lengths: Sequence[int],
    positions: Sequence[int],
) -> torch.Tensor:
    """Logits after one token more of every row, at this position; the cache has so many of it."""
    held, at = torch.tensor([lengths, positions], device=model.device)
    length = int(cache.get_seq_length())
    places = torch.arange(length + 1, device=model.device)
    mask = places >= (length - held)[:, None]
    ids = torch.tensor(tokens, device=model.device)[:, None]
    return _forward(model, cache, ids, mask.long(), at[:, None])


def _left_padded(
    rows: Sequence[Sequence[int]], length: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions, int64 [rows, length]."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    positions = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        start = length - len(row)
        ids[line, start:] = torch.tensor(row)
        mask[line, start:] = 1
        positions[line, start:] = torch.arange(len(row))
    return ids.to(device), mask.to(device), positions.to(device)


def _forward(
    model: PreTrainedModel,
    cache: RowCache,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Logits [rows, vocabulary] of the next token of every row."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = output.logits[:, -1]
    return logits


@torch.no_grad()
def decodes_in_rows(model: PreTrainedModel, prompts: Sequence[Sequence[int]], longest: int) -> bool:
    """Whether rows of differing lengths that join and leave get the logits that each gets alone.

    Not so for models whose caches hold something else than the keys and values of all tokens.

    Args:
        model: in the state in which it will be used.
        prompts: some, of which the shortest and the longest are tried.
        longest: tokens that a prompt and its answer may have.
    """
    if turned_by_longest(model.config, longest):
        return False
    by_length = sorted(prompts, key=len)
    last, first = list(by_length[-1])[-CHECKED:], list(by_length[0])[-2 * CHECKED // 3 :]
    # Also of prompts of one length, so that there is padding, and some of it goes again.
    rows = [last, last[:-1] or last, last[: max(1, len(last) // 3)], first or last]
    shared = last[: len(last) // 6]
    device = model.device
    more = rows[0][-1]

    def alone(row: list[int]) -> torch.Tensor:
        ids = torch.tensor([row], device=device)
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, -1]
        return logits

    try:
        begun = read(model, [shared])[1] if shared else None
        first_logits, cache = read(model, rows[:-1], begun)
        last_logits, other = read(model, rows[-1:])
        pairs = zip([*first_logits, *last_logits], rows, strict=True)
        same = all(_same(logits, alone(row)) for logits, row in pairs)
        cache.join(other)
        left = rows[2:]
        skip = int(cache.get_seq_length()) - max(map(len, left))
        cache.take(torch.arange(2, len(rows), device=device), skip)
        for _ in range(2):
            lengths = list(map(len, left))
            found = list(one_more(model, cache, [more] * len(left), lengths, lengths))
            left = [[*row, more] for row in left]
            same = same and all(
                _same(logits, alone(row)) for logits, row in zip(found, left, strict=True)
            )
    # What a model makes of a cache that is not its own is not to be foreseen.
    except Exception as error:
        if out_of_memory(error):
            raise
        return False
    return same


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits [vocabulary] differ by no more than rounding makes them differ.

    That of 16 bits adds up over the layers and chooses other experts now and then, so that of a
    large vocabulary some logit is always off: all of them are judged together.
    """
    if expected.dtype.itemsize != 2:
        return equal_to_rounding(found, expected, expected.dtype, equal_nan=True)
    difference, spread = (found.double() - expected.double()).norm(), expected.double().std()
    bound = NOISE * spread * len(expected) ** 0.5
    # Logits that are not finite are told by whoever generates.
    return not bool(difference > bound)
