"""What an item asks, for readers of a report; figures never depend on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LONGEST = 1_200
"""Characters that are kept of the end of a prompt: what is asked stands there."""


@dataclass(frozen=True)
class ItemText:
    """One item of a task."""

    item: str
    """Its name in the per-item table."""
    prompt: str
    """The end of what the model reads before the answer; … stands for what is left out."""
    choices: tuple[str, ...]
    """Empty where the answer is free."""
    truth: int | str
    """The place of the right choice, or the reference answer."""


def end_of(prompt: str) -> str:
    """At most `LONGEST` characters of its end."""
    return prompt if len(prompt) <= LONGEST else "…" + prompt[-LONGEST:]


def to_rows(texts: Iterable[ItemText]) -> list[list[Any]]:
    """As the store keeps them."""
    return [[text.item, text.prompt, list(text.choices), text.truth] for text in texts]


def from_rows(rows: Iterable[Any]) -> tuple[ItemText, ...]:
    """What `to_rows` made."""
    return tuple(
        ItemText(item, prompt, tuple(choices), truth) for item, prompt, choices, truth in rows
    )
