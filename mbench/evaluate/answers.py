"""Answers that are being generated, and the order in which their prompts are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mbench.evaluate.shared_prompts import beginnings


@dataclass
class Answer:
    """A prompt, and what has been generated for it so far."""

    prompt: Sequence[int]
    limit: int
    """Most tokens."""
    ended: Callable[[Sequence[int]], bool]
    """Whether the tokens are a whole answer, asked after each one."""
    shared: int = 0
    """Tokens at the start of the prompt that are computed once for all that begin with them."""
    new: int = 0
    """Tokens of the prompt that no answer before it is counted with."""
    tokens: list[int] = field(default_factory=list)
    over: bool = False
    """Whether nothing is left to generate."""

    def add(self, token: int) -> None:
        """One token more."""
        self.tokens.append(token)
        self.over = len(self.tokens) >= self.limit or self.ended(self.tokens)

    @property
    def read(self) -> list[int]:
        """What is read where it is in no cache."""
        return [*self.prompt, *self.tokens]

    @property
    def beginning(self) -> Sequence[int]:
        """What it has in common with others."""
        return self.prompt[: self.shared]


def in_order(answers: Sequence[Answer]) -> list[Answer]:
    """Those that share a beginning together, the longest first."""
    for answer in answers:
        answer.shared, answer.new = 0, len(answer.prompt)
    groups = []
    for group in beginnings([answer.prompt for answer in answers]):
        members = [answers[member] for member in group.members]
        for answer in members:
            answer.shared = group.tokens
            answer.new = len(answer.prompt) - group.tokens
        members[0].new = len(members[0].prompt)
        groups.append(members)
    alone = [answer for answer in answers if not answer.shared]
    groups += [alone] if alone else []
    for each in groups:
        each.sort(key=lambda answer: -len(answer.prompt))
    groups.sort(key=lambda each: -len(each[0].prompt))
    return [answer for each in groups for answer in each]
