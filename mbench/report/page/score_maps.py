"""What each scorer gave and what was kept, layer by expert: the data of the maps of two methods.

They lie in a file beside the page, which loads it when the maps are looked at: a script, because
that is the only kind of file that a page opened from a disk may load.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mbench.core.cell_results import CellResult
from mbench.core.clean_text import visible
from mbench.core.results import Results
from mbench.core.stand_ins import Constants, Merged
from mbench.report.statistics.boards import Board, GroupBoards, RunBoards
from mbench.report.statistics.mask_facts import mask_facts
from mbench.report.statistics.published import (
    differs_in_words,
    experts_in_words,
    published_marks,
    unrecognised,
)

MAPS = "masks_and_scores.js"
"""The file's name."""


@dataclass(frozen=True)
class ScoreMaps:
    """The place of the maps on the page."""

    source: str
    """The file that has their data."""
    missing: str
    """What they cannot show, and why; empty where they show all."""


def score_maps(run: RunBoards) -> ScoreMaps | None:
    """The maps of a run; None where it has no masks."""
    if not any(_masks(board) for boards in run.groups for board in boards.boards):
        return None
    missing = []
    if not run.results.scores:
        missing.append("These results hold no scores: the maps show masks alone.")
    for cell in unrecognised(run.results):
        if cell.status == "ok":
            words = experts_in_words(run.results, cell)
            missing.append(f"No mask of {cell.method} is shown: it has {words}.")
    return ScoreMaps(MAPS, " ".join(missing))


def maps_script(run: RunBoards) -> str:
    """The file beside the page: a call of `scoreMaps` with masks and scores, each array once.

    `models`: `name`, `layers` (module paths), `experts`, `scores` (method -> corpus -> number of
    an array) and `budgets`: `retain`, `pruned` and `masks`, a list in the leaderboard's order of
    `label`, `method`, `mask` (number of an array), `marks` (see `MaskFacts`), `stability`
    (or null), `constants` (whether
    these stand in for pruned experts) and `into` (number of an array, or null): the expert that a
    merged one is part of. `scores`, `masks` and `into` are those arrays [layers, N] in base64:
    little-endian float64; bits, the first of a byte being its highest; little-endian int16.
    """
    arrays = _AllArrays()
    models = [_model(boards, arrays) for boards in run.groups if boards.boards]
    data = {
        "models": models,
        "scores": arrays.scores.texts,
        "masks": arrays.masks.texts,
        "into": arrays.into.texts,
    }
    return f"scoreMaps({json.dumps(data, separators=(',', ':'))});\n"


class _Arrays:
    """Arrays as text, each distinct one once."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.texts: list[str] = []

    def number(self, content: bytes) -> int:
        """The place of an array with this content in `texts`."""
        if content not in self._numbers:
            self._numbers[content] = len(self.texts)
            self.texts.append(base64.b64encode(content).decode())
        return self._numbers[content]


@dataclass(frozen=True)
class _AllArrays:
    scores: _Arrays = field(default_factory=_Arrays)
    masks: _Arrays = field(default_factory=_Arrays)
    into: _Arrays = field(default_factory=_Arrays)


def _model(boards: GroupBoards, arrays: _AllArrays) -> dict[str, Any]:
    results, name = boards.results, boards.group.model
    facts = results.provenance.models[name].facts
    of_methods: dict[str, dict[str, int]] = {}
    for (model, method, corpus), values in results.scores.items():
        if model == name:
            number = arrays.scores.number(values.astype("<f8").tobytes())
            of_methods.setdefault(visible(method), {})[visible(corpus)] = number
    return {
        "name": visible(name),
        "layers": list(facts.layers),
        "experts": facts.num_experts,
        "scores": of_methods,
        "budgets": [
            {
                "retain": board.retain,
                "pruned": board.pruned,
                "masks": [_mask(results, cell, keep, arrays) for cell, keep in _masks(board)],
            }
            for board in boards.boards
        ],
    }


def _mask(
    results: Results, cell: CellResult, keep: np.ndarray, arrays: _AllArrays
) -> dict[str, Any]:
    facts = mask_facts(results, (cell,))
    told = cell.published
    differs = (differs_in_words(told),) if told and told.differs else ()
    marks = (*published_marks(results, cell), *differs, *(facts.marks if facts else ()))
    stand_in = results.stand_ins.get((cell.model, cell.mask))
    merged = stand_in.into.astype("<i2") if isinstance(stand_in, Merged) else None
    return {
        "label": visible(_label(cell)),
        "method": visible(cell.method),
        "mask": arrays.masks.number(np.packbits(keep).tobytes()),
        "marks": [visible(mark) for mark in marks],
        "stability": cell.stability,
        "constants": isinstance(stand_in, Constants),
        "into": None if merged is None else arrays.into.number(merged.tobytes()),
    }


def _masks(board: Board) -> list[tuple[CellResult, np.ndarray]]:
    """The masks of a budget, bool [layers, N], in the leaderboard's order."""
    results: Results = board.results
    cells = [cell for entry in board.entries for cell in entry.cells if cell.mask]
    places = [(cell, (cell.model, cell.mask)) for cell in cells]
    return [(cell, results.masks[place]) for cell, place in places if place in results.masks]


def _label(cell: CellResult) -> str:
    return cell.method if cell.seed is None else f"{cell.method}, seed {cell.seed}"
