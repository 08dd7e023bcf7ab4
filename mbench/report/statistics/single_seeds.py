"""How much a single seed can mislead: where each would rank if it were the only one."""

from __future__ import annotations

from collections.abc import Iterator

from mbench.report.statistics.boards import Board, GroupBoards
from mbench.report.statistics.ranking import Ranked, Reference


def has_seeds(standing: Ranked | Reference) -> bool:
    """Whether a method was run with several seeds."""
    return len(standing.entry.cells) > 1


def places_of_single_seeds(boards: GroupBoards) -> tuple[str, ...]:
    """A sentence for each budget and method with several seeds."""
    return tuple(sentence for board in boards.boards for sentence in _places(board))


def _places(board: Board) -> Iterator[str]:
    if board.score is None or board.ranking is None:
        return
    for standing in filter(has_seeds, board.ranking.placed):
        others = [s.summary.mean for s in board.ranking.placed if s is not standing]
        if not others:
            continue
        sign = 1 if board.score.higher else -1
        seeds_by_place: dict[int, list[str]] = {}
        for cell in standing.entry.cells:
            value = board.score.value(cell)
            if value is not None:
                place = 1 + sum(sign * other > sign * value for other in others)
                seeds_by_place.setdefault(place, []).append(str(cell.seed))
        if not seeds_by_place:
            continue  # all of them are early
        texts = [
            f"{place} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"
            for place, seeds in sorted(seeds_by_place.items())
        ]
        yield (
            f"{board.pruned}: with a single seed, {standing.entry.method} would rank"
            f" {' or '.join(texts)} of {len(others) + 1} by its score alone."
        )
