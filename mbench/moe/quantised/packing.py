"""Numbers of a few bits, taken out of the bytes and words that hold several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""What the 16 patterns of FP4 mean (OCP Microscaling Formats 1.0, table 5): its top bit is the
sign, two are the exponent, one the mantissa."""


def halves(
    packed: torch.Tensor, table: tuple[float, ...], high_first: bool = False
) -> torch.Tensor:
    """Look up the two halves of every byte in a table of 16 numbers.

    Of uint8 [..., n] it returns float32 [..., 2n], the lower half of each byte first unless
    `high_first`.
    """
    pairs = [(table[byte % 16], table[byte // 16]) for byte in range(256)]
    return _looked_up(packed, [pair[::-1] for pair in pairs] if high_first else pairs)


def integers(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Take the unsigned numbers of 2, 4 or 8 bits out of int32 words, lowest bits first.

    Of int32 [..., n] it returns float32 [..., n * 32 / bits].
    """
    import torch

    shifts = range(0, 8, bits)
    in_byte = [[byte >> shift & 2**bits - 1 for shift in shifts] for byte in range(256)]
    # A dimension of 1 may have any stride in what counts as contiguous, but not in a view as bytes.
    in_order = packed.clone(memory_format=torch.contiguous_format)
    return _looked_up(in_order.view(torch.uint8), in_byte)


def _looked_up(packed: torch.Tensor, table: Sequence[Sequence[float]]) -> torch.Tensor:
    """The numbers that a table has for each byte, one after the other."""
    import torch

    of_byte = torch.tensor(table, dtype=torch.float32, device=packed.device)
    found = of_byte.index_select(0, packed.flatten().int())
    return found.reshape(*packed.shape[:-1], -1)


def for_blocks(
    numbers: torch.Tensor, values: torch.Tensor, block: tuple[int, int], zero: bool = False
) -> torch.Tensor:
    """Multiply every block of a matrix in place by its value; or subtract it (`zero`).

    `numbers` are [rows, columns], `values` [rows / block[0], columns / block[1]], both rounded up:
    the last block of either dimension may be cut off.
    """
    rows, columns = numbers.shape
    whole = columns // block[1]
    values = values.repeat_interleave(block[0], 0)[:rows] if block[0] > 1 else values
    within = numbers[:, : whole * block[1]].unflatten(1, (whole, block[1]))
    rest = numbers[:, whole * block[1] :]
    for part, of_it in ((within, values[:, :whole, None]), (rest, values[:, whole:])):
        if part.numel():
            part.sub_(of_it) if zero else part.mul_(of_it)
    return numbers


def blocks_of(shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """How many blocks, the last ones perhaps cut off, a matrix has."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])
