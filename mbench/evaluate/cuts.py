"""Sequences cut into batches, and what many of them begin with read once, before all of these.

Rows share what their own sequences begin with. Examples before every question would still be read
anew in every row: one that held all questions would be so long that its attention costs more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mbench.evaluate.arrangement import LINE, Arrangement, Line, batches_of
from mbench.evaluate.shared_prompts import PASS, at_most, worth_reading_once

APART = 2 * PASS
"""Tokens that a beginning must spare: it costs a pass of its own, and a batch that is not full."""
SHARE_OF_LINE = 4
"""Lines have at least this part of the tokens that they go on from, whose keys and values are
copied for every line."""


@dataclass(frozen=True)
class Cut:
    """Lines that go through a model at once."""

    lines: list[Line]
    begun: int = 0
    """Tokens that all of their sequences begin with, and that were read before."""
    first: bool = False
    """Whether no lines before these go on from the same tokens."""

    @property
    def tokens(self) -> int:
        """Tokens without padding, and what has to be read before if these are the first."""
        own = sum(row.tokens for line in self.lines for row in line)
        return own + (self.begun if self.first else 0)

    @property
    def padded(self) -> int:
        """The same with padding."""
        longest = max(sum(row.tokens for row in line) for line in self.lines)
        return len(self.lines) * longest + (self.begun if self.first else 0)


def cuts(
    arrangement: Arrangement,
    numbers: Sequence[int],
    tokens: int,
    most_begun: Sequence[int],
) -> Iterator[Cut]:
    """Some sequences in batches of at most so many tokens, padding included; longer are single.

    Where rows would read a beginning again and again, their sequences go on from it instead. Those
    of one beginning follow one another.

    Args:
        arrangement: of all sequences.
        numbers: which of them.
        tokens: of a batch; a beginning, which is read alone, may have more.
        most_begun: of every sequence of the arrangement, the first tokens that may be read before.
    """
    order = arrangement.in_order(numbers)
    rows = arrangement.rows(order, tokens)
    again = [at == 0 for row in rows for at in range(len(row.members))]
    shared = at_most(arrangement.shared(order), [most_begun[at] for at in order])
    apart: set[int] = set()
    for first, stop, begun in worth_reading_once(shared, again, APART):
        members = order[first:stop]
        apart.update(members)
        going_on = arrangement.rows(members, tokens, begun)
        batches = batches_of(going_on, tokens, max(LINE, begun // SHARE_OF_LINE))
        for number, lines in enumerate(batches):
            yield Cut(lines, begun, first=number == 0)
    if apart:
        rows = arrangement.rows([at for at in order if at not in apart], tokens)
    for lines in batches_of(rows, tokens):
        yield Cut(lines)
