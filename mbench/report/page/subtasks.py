"""The part of the page about the subtasks of a group of tasks."""

from __future__ import annotations

import math

from mbench.report.page.part import Block, Part, Stack, Text
from mbench.report.statistics.boards import Board
from mbench.report.statistics.subtasks import Subtasks, subtasks
from mbench.report.tables.subtasks import full_colour, subtask_differences, subtask_means
from mbench.report.words import score_text


def subtask_parts(board: Board) -> Stack | None:
    """What is folded at first: the tables of each group of tasks at a budget."""
    parts = []
    for number, found in enumerate(subtasks(board), 1):
        id = f"{board.id}-subtasks-{number}"
        means = subtask_means(board, found, f"{id}-means")
        blocks: tuple[Block, ...] = (means,)
        if not math.isnan(found.margin):
            differences = subtask_differences(board, found, id)
            blocks = (differences, Part(f"The {found.metric} itself", (means,), folded=True))
        title = f"{len(found.names)} subtasks of {found.task}"
        parts.append(Part(title, (Text(_uncertainty(found)), *blocks), folded=True))
    return Stack(tuple(parts)) if parts else None


def _uncertainty(found: Subtasks) -> str:
    fewest, most = int(found.items.min()), int(found.items.max())
    items = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    text = f"Nothing is tested here: a subtask has {items} items"
    if math.isnan(found.margin):
        return f"{text}. Without the unpruned model there are no differences to it."
    count = len(found.names) * len(found.methods)
    return (
        f"{text}, so that one difference to the unpruned model is uncertain by about "
        f"± {score_text(found.margin)} (95 %, the median of this table), and of {count:,} some are "
        f"large by chance. Blue is better than unpruned, vermillion worse, full colour at "
        f"± {score_text(full_colour(found))}."
    )
