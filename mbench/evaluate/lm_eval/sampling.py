"""Draws of tokens that depend on the seed, the item and the repetition, and on nothing else.

torch draws for a whole batch from one global state, so that an answer would change with the batch
it is in, with what was drawn before, and from run to run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195)."""


def stream(*parts: object) -> int:
    """The start of a stream of random numbers, 64 bits, equal for equal parts."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Draws:
    """Stands in for `torch.multinomial` while one batch is generated: a stream for each row."""

    def __init__(self, streams: Sequence[int]) -> None:
        self._streams = streams
        self._steps = 0

    def __call__(self, probabilities: torch.Tensor, num_samples: int, **_: Any) -> torch.Tensor:
        """Draw the next token of every row; int64 [rows, 1] from [rows, vocabulary]."""
        if num_samples != 1 or len(probabilities) != len(self._streams):
            raise RuntimeError("draws are for one token of each row of the batch")
        keys = [_signed(_mixed(start + self._steps * GAMMA)) for start in self._streams]
        self._steps += 1
        uniform = _uniform(torch.tensor(keys, device=probabilities.device), probabilities.shape[1])
        # Of independent exponential times with these rates, each is the first as often as it should
        # be; and a token's time is the same whatever the batch.
        return (probabilities.double() / -uniform.log()).argmax(dim=1, keepdim=True)


def _uniform(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Numbers between 0 and 1, float64 [rows, count], of SplitMix64 started at int64 [rows]."""
    numbers = torch.arange(1, count + 1, device=keys.device)
    bits = keys[:, None] + numbers[None] * _signed(GAMMA)
    bits = (bits ^ _shifted(bits, 30)) * _signed(FIRST)
    bits = (bits ^ _shifted(bits, 27)) * _signed(SECOND)
    bits = bits ^ _shifted(bits, 31)
    return (_shifted(bits, 11).double() + 0.5) * 2.0**-53


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Right by so many bits, filled with zeros: torch's numbers have a sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mixed(number: int) -> int:
    """SplitMix64's function of 64 bits."""
    number %= 1 << 64
    number = ((number ^ (number >> 30)) * FIRST) % (1 << 64)
    number = ((number ^ (number >> 27)) * SECOND) % (1 << 64)
    return number ^ (number >> 31)


def _signed(number: int) -> int:
    """The int64 of the same 64 bits."""
    number %= 1 << 64
    return number - (1 << 64) if number >= 1 << 63 else number
