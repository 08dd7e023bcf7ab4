"""Results with some cells made otherwise."""

import dataclasses

import numpy as np

from helpers.demo_results import synthetic
from mbench.core.evaluation import evaluation


def altered(change, results=None):
    """`change` gets each cell and returns it, another one, several in a tuple, or None."""
    results = results or synthetic(failures=False)
    cells = []
    for cell in results.cells:
        found = change(cell)
        cells += found if isinstance(found, tuple) else [] if found is None else [found]
    return dataclasses.replace(results, cells=tuple(cells))


def on_items(cell, tasks, change):
    """The cell with `change` applied to its items of `tasks`."""
    found = dict(cell.evaluations)
    for task in tasks:
        with np.errstate(invalid="ignore"):  # outcomes that are not finite have no error
            found[task] = evaluation(task, change(found[task].items))
    return dataclasses.replace(cell, evaluations=found)


def without(*methods):
    """A change that leaves out whole methods."""
    return lambda cell: None if cell.method in methods else cell
