"""A key-value cache whose rows come and go while others are generated.

Rows end together, padding is on the left: the last token of every row is in the last place, and the
attention mask hides what stands before its first. Buffers have room to grow, so that a step writes
its own tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Tokens that a buffer has room for beyond those that need it."""


class RowLayer(DynamicLayer):
    """One layer's keys and values, [rows, heads, length, head size], as views of larger buffers."""

    keys: torch.Tensor
    values: torch.Tensor
    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None
    _stop: int = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append tokens to every row."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        more = key_states.shape[-2]
        if self._buffers is None or self._stop + more > self._buffers[0].shape[-2]:
            self._move(key_states, value_states, more)
        assert self._buffers is not None
        start = self._stop - self._length
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., self._stop : self._stop + more, :] = states
        self._stop += more
        self.keys, self.values = (buffer[..., start : self._stop, :] for buffer in self._buffers)
        return self.keys, self.values

    @property
    def _length(self) -> int:
        return int(self.get_seq_length())

    def _move(self, keys: torch.Tensor, values: torch.Tensor, more: int) -> None:
        """Into buffers with room for so many tokens more, and then some."""
        length = self._length
        moved = []
        for held, states in ((self.keys, keys), (self.values, values)):
            rows, heads, _, size = states.shape
            room = length + more + max(ROOM, (length + more) // 4)
            buffer = states.new_zeros(rows, heads, room, size)
            if length:
                buffer[..., :length, :] = held
            moved.append(buffer)
        self._buffers = (moved[0], moved[1])
        self._stop = length

    def take(self, rows: torch.Tensor, skip: int) -> None:
        """Keep these rows, int64, in this order, without their first `skip` tokens."""
        keys, values = self.keys[rows, :, skip:], self.values[rows, :, skip:]
        self._set(keys, values)

    def beginnings(self, lengths: torch.Tensor) -> RowLayer:
        """Rows that are the first tokens of the only one here, so many of each, int64."""
        places = torch.arange(self._length, device=self.keys.device)
        # Before a row's first token stands anything: it is hidden.
        places = (places - self._length + lengths[:, None]).clamp(min=0)
        layer = type(self)()
        layer.lazy_initialization(self.keys, self.values)
        keys, values = (states[0][:, places].transpose(0, 1) for states in (self.keys, self.values))
        layer._set(keys, values)
        return layer

    def join(self, other: RowLayer) -> None:
        """Append the rows of another, those that are shorter with zeros before them."""
        length = max(self._length, other._length)
        keys, values = (
            torch.cat([_padded(own, length), _padded(others, length)])
            for own, others in ((self.keys, other.keys), (self.values, other.values))
        )
        self._set(keys, values)

    def _set(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._buffers, self._stop = None, 0
        self.keys, self.values = keys, values


def _padded(states: torch.Tensor, length: int) -> torch.Tensor:
    missing = length - states.shape[-2]
    return torch.nn.functional.pad(states, (0, 0, missing, 0)) if missing else states


class RowCache(DynamicCache):
    """The cache of all layers, every one a `RowLayer`, those with a window too: they are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_class_to_replicate = RowLayer

    @property
    def _each(self) -> Sequence[RowLayer]:
        return cast(Sequence[RowLayer], self.layers)

    def take(self, rows: torch.Tensor, skip: int) -> None:
        """Keep these rows, int64, in this order, without their first `skip` tokens."""
        for layer in self._each:
            layer.take(rows.to(layer.keys.device), skip)

    def beginnings(self, lengths: torch.Tensor) -> RowCache:
        """Rows that are the first tokens of the only one here, so many of each, int64."""
        found = RowCache()
        found.layers = [layer.beginnings(lengths.to(layer.keys.device)) for layer in self._each]
        return found

    def join(self, other: RowCache) -> None:
        """Append the rows of another."""
        for own, others in zip(self._each, other._each, strict=True):
            own.join(others)

    @property
    def bytes_per_token(self) -> dict[torch.device, int]:
        """Of one row, in all layers, by the device that they lie on."""
        found: dict[torch.device, int] = {}
        for layer in self._each:
            for states in (layer.keys, layer.values):
                each = states.numel() // (states.shape[0] * states.shape[2])
                held = found.get(states.device, 0)
                found[states.device] = held + each * states.element_size()
        return found
