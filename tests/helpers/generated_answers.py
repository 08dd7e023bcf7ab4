"""A small run with a task whose answers are generated, of which so many loop or are cut off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from helpers.small_runs import grid, run
from mbench.core.cell_results import CellResult
from mbench.core.evaluation import evaluation
from mbench.core.results import Results

ITEMS = 200
LOOPING = {"none": 4, "alpha": 68, "beta": 4, "random": 7}
"""Of the 200 answers of each method, so many of the first ones loop."""


def generated(cell: CellResult, loops: int, cut: int, *, long: bool = True) -> CellResult:
    """The cell with `quiz` as a task of generated answers; `long` enough for loops, or not."""
    random = np.random.default_rng([loops, cut])
    at = np.arange(ITEMS)
    table = pd.DataFrame(
        {
            "item": [f"{n}:doc:prompt:target" for n in range(ITEMS)],
            "acc": (at % 2).astype(float),
            "answer": "so it is",
            "hit_limit": (at < cut).astype(float),
            "loops": (at < loops).astype(float),
            "rep_4": random.random(ITEMS),
            "answer_tokens": random.integers(1, 99, ITEMS).astype(float),
        }
    )
    if not long:
        table = table.drop(columns="loops")
    found = {**cell.evaluations, "quiz": evaluation("quiz", table)}
    return dataclasses.replace(cell, evaluations=found)


def looping_run() -> Results:
    """34 % of alpha's answers loop, 20 % of beta's are cut off; 2 and 5 % of the unpruned's."""
    whole = run(grid(retains=(0.5,)))
    cells = (generated(c, LOOPING[c.method], 10 + 30 * (c.method == "beta")) for c in whole.cells)
    return dataclasses.replace(whole, cells=tuple(cells))
