"""What prompts and requests begin with in common, which is read once: examples, a preamble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from mbench.evaluate.arrangement import Arrangement

PASS = 512
"""Tokens that one forward pass more is taken to cost, beside those that it reads."""


@dataclass(frozen=True)
class Beginning:
    """Prompts that begin alike."""

    members: tuple[int, ...]
    """Their numbers."""
    tokens: int
    """How many they share; each has at least one more."""

    @property
    def spared(self) -> int:
        """Tokens that are not read again."""
        return (len(self.members) - 1) * self.tokens


def beginnings(prompts: Sequence[Sequence[int]]) -> list[Beginning]:
    """Groups of prompts whose common beginning is worth a pass of its own, none in two of them.

    A group are all prompts with one beginning, and the best choice of such groups is taken: the
    preamble of a whole task, or the examples of each of its subjects.
    """
    arrangement = Arrangement(prompts)
    order = arrangement.order
    # Something is left of each, so that it has logits.
    most = [len(prompts[at]) - 1 for at in order]
    shared = at_most(arrangement.shared(order), most)
    groups = worth_reading_once(shared, [True] * len(order), PASS)
    return [Beginning(tuple(order[first:stop]), tokens) for first, stop, tokens in groups]


def at_most(shared: Sequence[int], most: Sequence[int]) -> list[int]:
    """What neighbours share, where of each no more than `most` is asked for."""
    return [
        min(same, own, before) for same, own, before in zip(shared, most, [0, *most], strict=False)
    ]


@dataclass
class _Node:
    """Neighbours that share so many tokens, from the first on."""

    tokens: int
    first: int
    worth: int = 0
    """Tokens spared by the best groups of what is inside, less what their passes cost."""
    groups: list[tuple[int, int, int]] = field(default_factory=list)
    """First, stop, tokens."""


def worth_reading_once(
    shared: Sequence[int], again: Sequence[bool], cost: int
) -> list[tuple[int, int, int]]:
    """The groups of neighbours that spare most where what they begin with is read once.

    Args:
        shared: of each sequence in lexicographic order, the tokens that it shares with the one
            before it; 0 of the first.
        again: whether it would read them again.
        cost: tokens that one more pass is taken for.

    Returns:
        Of each group the place of its first sequence, that after its last, and the tokens.
    """
    read_again = [0, *accumulate(map(int, again))]
    open_nodes = [_Node(0, 0)]
    for at, same in enumerate([*shared[1:], 0], 1):
        first = at - 1
        while open_nodes[-1].tokens > same:
            node = open_nodes.pop()
            first = node.first
            worth = (read_again[at] - read_again[first + 1]) * node.tokens - cost
            if worth > 0 and worth >= node.worth:
                node.worth, node.groups = worth, [(first, at, node.tokens)]
            if open_nodes[-1].tokens < same:
                open_nodes.append(_Node(same, first))
            open_nodes[-1].worth += node.worth
            open_nodes[-1].groups += node.groups
        if open_nodes[-1].tokens < same:
            open_nodes.append(_Node(same, first))
    return open_nodes[0].groups
