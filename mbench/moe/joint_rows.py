"""Whether rows may go into one matrix product without a trace of each other in the results.

A product may be rounded differently with another number of rows. What is collected for one
statistic must not depend on what else is collected, down to the last bit, and yet products of many
rows are faster than several of few: so it is tried out on the machine.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional

FEWEST = 4
"""Rows from which a product is tried to be the same; libraries treat single rows in other ways."""

_COUNTS = (FEWEST, 5, 7, 8, 12, 17, 31, 32, 33, 64, 70, 100, 128, 200)


def rows_stay_equal(columns: int, rows: int, dtype: torch.dtype) -> bool:
    """Whether [n, columns] times [columns, rows] has the same bits for any n on this CPU.

    Tried for some n with random numbers, once for each number of threads.
    """
    return _tried(columns, rows, dtype, torch.get_num_threads())


@functools.cache
def _tried(columns: int, rows: int, dtype: torch.dtype, threads: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(_COUNTS[-1], columns, generator=generator).to(dtype)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    whole = functional.linear(given, weight)
    return all(
        torch.equal(functional.linear(given[-count:], weight), whole[-count:]) for count in _COUNTS
    )
