"""The figures of a run: as one value, and as a table with one figure a row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mbench.core.admission import Finding
from mbench.core.cell_results import CellResult, LeftOut
from mbench.core.evaluation import Metric
from mbench.core.item_texts import ItemText
from mbench.core.provenance import Provenance
from mbench.core.savings import Saving
from mbench.core.stand_ins import Constants, Merged, StandIn

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {
    "model": "str",
    "method": "str",
    "seed": "Int64",
    "retain": "float64",
    "experts_kept": "int64",
    "router": "str",
    "mask": "str",
    "fewest_kept": "Int64",
    "most_kept": "Int64",
    "stand_in": "str",
    "stability": "float64",
    "calibration_tokens": "Int64",
    "search_tokens": "int64",
    "search_masks": "int64",
    "weight_bytes": "Int64",
    "stored_form": "str",
    "checkpoint": "str",
    "task": "str",
    "metric": "str",
    "value": "float64",
    "stderr": "float64",
    "items": "Int64",
    "of": "Int64",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "status": "str",
}
"""The columns of the long form, in order."""


@dataclass(frozen=True)
class ProtocolEntry:
    """One declared setting in words, and the cells it is about."""

    name: str
    text: str
    kind: Literal["setting", "method", "note"] = "setting"
    """`method`: what a method is made of. `note`: what its parts say of a budget."""
    models: tuple[str, ...] = ()
    """Those it is about; empty: all."""
    methods: tuple[str, ...] = ()
    """Those it is about; empty: all."""
    retain: float | None = None
    """The one budget it is about; None: all."""

    def concerns(self, cell: CellResult) -> bool:
        """Whether it is about the cell's model, method and budget."""
        return (
            (not self.models or cell.model in self.models)
            and (not self.methods or cell.method in self.methods)
            and self.retain in (None, cell.retain)
        )


@dataclass(frozen=True)
class Results:
    """A finished or partly finished run."""

    suite: str
    title: str
    description: str
    task_metrics: Mapping[str, str]
    """Task -> the metric the suite declares for it, in the suite's order."""
    average: str
    """Name of the average over `average_tasks`, empty if the suite has none."""
    average_tasks: tuple[str, ...]
    cells: tuple[CellResult, ...]
    masks: Mapping[tuple[str, str], np.ndarray] = field(repr=False, compare=False)
    """(model, mask hash) -> bool [layers, N], True where the expert is kept."""
    provenance: Provenance = field(repr=False)
    """Where the figures come from, and what it took to get them."""
    protocol: tuple[ProtocolEntry, ...]
    """Declared settings in words, shown at the top of the report."""
    left_out: tuple[LeftOut, ...] = ()
    """Methods and budgets of the suite that make no cell."""
    efficiency: tuple[Saving, ...] = ()
    """By model and budget, where the suite asks for it."""
    admission: tuple[Finding, ...] = ()
    """What was found out about the inputs before anything was measured."""
    item_texts: Mapping[str, tuple[ItemText, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Task -> what its items ask, as far as it is at hand; not among the files of results."""
    scores: Mapping[tuple[str, str, str], np.ndarray] = field(
        default_factory=dict, repr=False, compare=False
    )
    """(model, method, corpus) -> float64 [layers, N], what the method's scorer gave at every
    budget; higher is kept. Methods without a scorer have none."""
    stand_ins: Mapping[tuple[str, str], StandIn] = field(
        default_factory=dict, repr=False, compare=False
    )
    """(model, mask hash) -> what stands in for the experts that the mask drops, if anything."""

    def stand_in_of(self, model: str, mask: str) -> str:
        """What stands in for the experts that a mask drops: `constants`, `merged`, or nothing."""
        kinds = {Constants: "constants", Merged: "merged"}
        stand_in = self.stand_ins.get((model, mask))
        return "" if stand_in is None else kinds[type(stand_in)]

    def stored_form_of(self, cell: CellResult) -> str:
        """In which form the weights of a cell's checkpoint are stored; empty for plain numbers."""
        if cell.published is not None:
            return cell.published.stored_form
        record = self.provenance.models.get(cell.model)
        return record.facts.stored_form if record else ""

    def average_of(self, cell: CellResult) -> Metric | None:
        """Unweighted mean of the average's tasks, or None unless all of them have a result.

        The tasks' items are independent, so the standard error is sqrt(sum of squares) / tasks.
        """
        by_task = [cell.metric(task, self.task_metrics[task]) for task in self.average_tasks]
        figures = [figure for figure in by_task if figure is not None]
        if not figures or len(figures) < len(by_task):
            return None
        count = len(figures)
        value = math.fsum(figure.value for figure in figures) / count
        error = math.sqrt(math.fsum(figure.stderr**2 for figure in figures)) / count
        return Metric("mean", value, error, sum(figure.items for figure in figures))


def long_form(results: Results) -> pd.DataFrame:
    """Every figure of a run, one per row.

    Columns: `model`, `method`, `seed` (NA where a method has none), `retain`, `experts_kept` (per
    layer, the mean where layers differ), `router`, `mask` (content hash), `fewest_kept` and
    `most_kept` (in one layer), `stand_in` (`constants`, `merged` or nothing), `stability`,
    `calibration_tokens` (of the method's corpora and those of what it builds upon),
    `search_tokens` and `search_masks` (what a search cost, else 0), `weight_bytes` (of the
    checkpoint as stored), `stored_form` (empty for plain numbers), `checkpoint` (source and
    revision of a published one, else empty), `task`, `metric`, `value`,
    `stderr` (over items), `items`, `of`, `difference`, `low`, `high`, `status`. A task with an
    early figure (status `early`) has the estimate over all items as `value`, no `stderr`, the
    `items` that it rests on and those of the task in `of`, and the estimated difference to the
    unpruned model with its interval, 95 % over all looks; other rows lack the last three and have
    as many items as `of`. A task without a result has one row: its declared
    metric, no value, its status. The suite's average has a row where all its tasks are ok: its name
    as `task`, `mean` as `metric`, and the standard error that follows from the tasks' independent
    ones.
    """
    import pandas as pd

    rows = [row for cell in results.cells for row in _cell_rows(results, cell)]
    return pd.DataFrame(rows, columns=list(DTYPES)).astype(DTYPES)


def _cell_rows(results: Results, cell: CellResult) -> Iterator[dict[str, Any]]:
    keep = results.masks.get((cell.model, cell.mask))
    layers = None if keep is None else keep.sum(axis=1)
    common = {
        "model": cell.model,
        "method": cell.method,
        "seed": cell.seed,
        "retain": cell.retain,
        "experts_kept": cell.kept,
        "router": cell.router,
        "mask": cell.mask,
        "fewest_kept": None if layers is None else int(layers.min()),
        "most_kept": None if layers is None else int(layers.max()),
        "stand_in": results.stand_in_of(cell.model, cell.mask),
        "stability": cell.stability,
        "calibration_tokens": results.provenance.calibration_tokens(cell.model, cell.method),
        "search_tokens": cell.search_tokens,
        "search_masks": cell.search_masks,
        "weight_bytes": cell.weight_bytes,
        "stored_form": results.stored_form_of(cell),
        "checkpoint": cell.published.label if cell.published else "",
    }

    def row(task: str, figure: Metric) -> dict[str, Any]:
        values = {"value": figure.value, "stderr": figure.stderr}
        values |= {"items": figure.items, "of": figure.items}
        return {**common, "task": task, "metric": figure.name, **values, "status": "ok"}

    for task, declared in results.task_metrics.items():
        status = cell.task_status(task).status
        if status == "ok":
            yield from (row(task, figure) for figure in cell.evaluations[task].metrics)
        elif task in cell.early:
            known = cell.early[task]
            names = ("items", "of", "difference", "low", "high")
            values = {name: getattr(known, name) for name in names}
            named = {"task": task, "metric": declared, "value": known.figure}
            yield {**common, **named, **values, "status": status}
        else:
            yield {**common, "task": task, "metric": declared, "status": status}
    average = results.average_of(cell)
    if average is not None:
        yield row(results.average, average)
