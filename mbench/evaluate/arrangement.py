"""Which sequences of tokens are computed together, so that few tokens are computed twice or wasted.

Sequences that begin alike go into one row, which holds what they share once: it is the tree of
their prefixes, branch after branch. Rows are laid end to end in lines of about the same length, and
lines of one length make a batch. Attention reads whole lines, so a row ends where that costs more
than what its next sequence shares.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

PAIRS = 20_000
"""Pairs of tokens whose attention costs as much as one token elsewhere: 8192 operations a pair and
160 million a token in a layer of Qwen1.5-MoE-A2.7B."""
LONGEST_ROW = 8192
"""Tokens of a row, at most, unless sequences are so long that `LONGEST` are more."""
LONGEST = 3
"""How many times the tokens of its longest sequence a row may have in any case: the attention of
longer rows takes more memory, and gains little where sequences share nearly all that they are."""
LINE = 256
"""Tokens up to which rows are laid end to end; a line of one row may have more."""
FULL = 0.93
"""Of a batch, the share that is no padding, at least."""


@dataclass(frozen=True)
class Row:
    """Sequences that are computed together."""

    members: tuple[int, ...]
    """Their numbers, in lexicographic order."""
    shared: tuple[int, ...]
    """Of each, the first tokens that it has in common with the one before it; 0 of the first."""
    tokens: int
    """What is computed: the nodes of the tree of their prefixes, but those that were begun."""


Line = tuple[Row, ...]


class Arrangement:
    """Sequences in lexicographic order, of which any can be put into rows."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        """Sort them; token ids are at least 0."""
        # Big-endian, so that bytes compare as the numbers do.
        self._written = [np.array(each, dtype=">u4") for each in sequences]
        keys = [each.tobytes() for each in self._written]
        self.order = sorted(range(len(keys)), key=keys.__getitem__)
        """Numbers of the sequences, in lexicographic order."""
        self._place = np.empty(len(keys), dtype=np.int64)
        self._place[self.order] = np.arange(len(keys))
        self.floor = sum(self._new(self.order))
        """Tokens that would do if nothing were computed twice."""

    def _new(self, order: Sequence[int]) -> list[int]:
        shared = self.shared(order)
        return [len(self._written[at]) - same for at, same in zip(order, shared, strict=True)]

    def shared(self, order: Sequence[int]) -> list[int]:
        """Of each sequence, the tokens that it shares with the one before it in `order`."""
        found = [0] * bool(order)
        for before, at in pairwise(order):
            first, second = self._written[before], self._written[at]
            shortest = min(len(first), len(second))
            differs = first[:shortest] != second[:shortest]
            place = int(differs.argmax()) if shortest else 0
            found.append(place if shortest and differs[place] else shortest)
        return found

    def in_order(self, numbers: Sequence[int]) -> list[int]:
        """Some of them, in lexicographic order."""
        return sorted(numbers, key=self._place.__getitem__)

    def rows(self, numbers: Sequence[int], most: int, begun: int = 0) -> list[Row]:
        """Put some of the sequences into rows of at most `most` tokens, where one alone has fewer.

        The cut that costs least, tokens and attention together. Of sequences that all begin with
        the same `begun` tokens, these are left out.
        """
        order = self.in_order(numbers)
        shared = np.maximum(np.array(self.shared(order), dtype=np.int64) - begun, 0)
        lengths = np.array([len(self._written[at]) for at in order], dtype=np.int64) - begun
        most = min(most, max(LONGEST_ROW, LONGEST * int(lengths.max(initial=0))))
        # With a row from `first` to before `stop`, ends[stop] - ends[first] + shared[first] tokens.
        ends = np.concatenate([[0], np.cumsum(lengths - shared)])
        best, starts = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=np.int64)
        low = 0
        for stop in range(1, len(order) + 1):
            while low < stop - 1 and ends[stop] - ends[low] + shared[low] > most:
                low += 1
            sizes = ends[stop] - ends[low:stop] + shared[low:stop]
            costs = best[low:stop] + sizes + sizes * sizes / PAIRS
            # Of equal ones the shortest row.
            at = len(costs) - 1 - int(costs[::-1].argmin())
            best[stop], starts[stop] = costs[at], low + at
        rows, stop = [], len(order)
        while stop:
            first = int(starts[stop])
            inside = (0, *(shared[first + 1 : stop] + begun).tolist())
            tokens = int(ends[stop] - ends[first] + shared[first])
            rows.append(Row(tuple(order[first:stop]), inside, tokens))
            stop = first
        return rows[::-1]


def batches_of(rows: Sequence[Row], tokens: int, least: int = LINE) -> Iterator[list[Line]]:
    """Lay rows into lines and cut these into batches, those with the longest row first.

    A batch has at most `tokens` tokens, padding included, unless a single row has more; and little
    padding. Lines have room for `least` tokens, or the longest row.
    """
    waiting = _Waiting(rows)
    while waiting.rows:
        room = max(waiting.longest, min(least, tokens))
        lines = [waiting.line(room)]
        length = filled = sum(row.tokens for row in lines[0])
        while waiting.rows and (len(lines) + 1) * length <= tokens:
            if length > LONGEST_ROW and waiting.longest < length / 2:
                # Attention over so long lines would cost short rows more than a batch of their own.
                break
            line = waiting.line(length)
            if not line:
                break
            more = sum(row.tokens for row in line)
            if filled + more < FULL * (len(lines) + 1) * length:
                waiting.put_back(line)
                break
            filled += more
            lines.append(line)
        yield lines


class _Waiting:
    """Rows that are in no batch yet, the shortest first."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = sorted(rows, key=lambda row: (row.tokens, row.members))
        self._lengths = [row.tokens for row in self.rows]

    @property
    def longest(self) -> int:
        return self._lengths[-1]

    def line(self, room: int) -> Line:
        """Take the longest row that there is room for, and then the next; none if none fits."""
        taken: list[Row] = []
        while at := bisect_right(self._lengths, room):
            room -= self._lengths.pop(at - 1)
            taken.append(self.rows.pop(at - 1))
        return tuple(taken)

    def put_back(self, line: Line) -> None:
        for row in reversed(line):
            at = bisect_right(self._lengths, row.tokens)
            self._lengths.insert(at, row.tokens)
            self.rows.insert(at, row)
