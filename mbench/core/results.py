"""The figures of a run: as one value, and as a table with one figure a row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mbench.core.admission import Finding
from mbench.core.early import EarlyFigure
from mbench.core.evaluation import Evaluation, Metric
from mbench.core.item_texts import ItemText
from mbench.core.provenance import ModelSource, Provenance
from mbench.core.stand_ins import Constants, Merged, StandIn

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "early", "failed", "blocked", "interrupted", "pending", "left out", "absent"]
"""`early`: enough of a task's items were evaluated for what was asked. `blocked`: what it needs
failed. `left out`: the suite does not ask for the task of this method. `absent`: merged from runs
of which not all had the task."""

LACKS: tuple[Status, ...] = ("failed", "blocked", "interrupted", "pending", "absent")
"""Of what was asked for, and is not there."""

UNPRUNED = "none"
"""The method name of the unpruned model, at retain ratio 1."""

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
class TaskStatus:
    """The outcome of evaluating one mask on one task."""

    status: Status
    reason: str = ""


@dataclass(frozen=True)
class CellKey:
    """Identifies a cell within a run."""

    model: str
    method: str
    seed: int | None
    retain: float

    @property
    def label(self) -> str:
        """The cell's name in progress and messages, e.g. `qwen 75 % pruned, random seed 0`."""
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"{budget_label(self.model, self.retain)}, {self.method}{seed}"


def budget_label(model: str, retain: float) -> str:
    """A budget's name in progress and messages, e.g. `qwen 75 % pruned`."""
    return f"{model} {100 * (1 - retain):.4g} % pruned"


@dataclass(frozen=True)
class LeftOut:
    """A method that has no cell at a budget of the suite, which is no failure."""

    model: str
    method: str
    retain: float
    reason: str
    """In words, e.g. that it cannot protect so many experts there."""


@dataclass(frozen=True)
class SearchCost:
    """What a search took before it gave its mask, whatever was remembered of earlier ones."""

    tokens: int
    """Forward tokens."""
    masks: int
    """Distinct masks that were tried."""
    seconds: float
    """Wall-clock, of the run that made the mask; remembered passes took none."""


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A pruned checkpoint that somebody has published, as a row of the results."""

    source: ModelSource
    revision: str | None
    content: str
    """Hash of its files, or the hub's commit."""
    stored_form: str
    """As in `ModelFacts`."""
    same_as_mask: bool
    """Whether the mask on the full model computes what it computes; then it was not run itself."""
    recognised: bool
    """Whether its experts are some of the full model's, so that the results hold its mask."""
    differs: tuple[str, ...]
    """What else is not as in the full model, in words."""
    problems: tuple[str, ...]
    """Why it is no selection of the full model's experts, in words."""

    @property
    def label(self) -> str:
        """Its source and revision: `acme/pruned@v1.0`."""
        return self.source.name + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class CellResult:
    """One method at one budget (and seed) on one model."""

    model: str
    method: str
    """`none` for the unpruned model."""
    seed: int | None
    """None where no seed distinguishes the results."""
    retain: float
    kept: int
    """Experts kept per layer."""
    router: str
    mask: str
    """Content hash of the mask, empty if it could not be made."""
    status: Status
    """Of the mask."""
    reason: str
    notes: tuple[str, ...]
    """What a reader must know, e.g. that a protection budget was clamped."""
    evaluations: Mapping[str, Evaluation] = field(repr=False)
    """By task name, for the tasks whose status is `ok`."""
    tasks: Mapping[str, TaskStatus] = field(repr=False)
    """For every task of the suite."""
    stability: float | None = None
    """Mean share of its experts that stay when the calibration sequences are drawn anew; None
    where there is none to draw, or the method's statistics are no sums over sequences."""
    search_tokens: int = 0
    """Forward tokens that the method's search cost; 0 where it does not search."""
    search_masks: int = 0
    """Masks that it tried."""
    weight_bytes: int | None = None
    """Of all tensors of its checkpoint, in the stored form of the full one; None: not known."""
    published: PublishedCheckpoint | None = None
    """If it is no mask that was made here. Where it differs from the mask on the full model, `mask`
    names its content, so that it joins no other row."""
    early: Mapping[str, EarlyFigure] = field(default_factory=dict)
    """By task name, what is known after some of its items; such a task has no evaluation, and its
    status is `early`."""

    @property
    def key(self) -> CellKey:
        """What identifies it within the run."""
        return CellKey(self.model, self.method, self.seed, self.retain)

    @property
    def label(self) -> str:
        """Its name in progress and messages."""
        return self.key.label

    def task_status(self, task: str) -> TaskStatus:
        """The task's status; without a mask, tasks without a status have the mask's."""
        if self.status != "ok" and task not in self.tasks:
            return TaskStatus(self.status, self.reason)
        return self.tasks[task]

    def metric(self, task: str, name: str) -> Metric | None:
        """The named figure on one task, or None if the task has no result."""
        if self.task_status(task).status != "ok":
            return None
        return next((m for m in self.evaluations[task].metrics if m.name == name), None)

    def value(self, task: str, metric: str) -> float | None:
        """The metric's value alone."""
        figure = self.metric(task, metric)
        return None if figure is None else figure.value


@dataclass(frozen=True)
class Spread:
    """Tokens per second over the repetitions."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Footprint:
    """One model, full or pruned."""

    parameters: int
    """Tied ones counted once; only those that a checkpoint of the family has, as plain numbers."""
    checkpoint_bytes: int
    """Of its tensors as they are stored; of pickled ones as many as plain tensors take."""
    weight_bytes: int
    """Parameters and buffers in memory, in the dtype the suite asks for."""
    peak_bytes: int
    """Weights plus the most that was allocated while one batch was generated."""
    prefill: Spread
    """Tokens of the prompts read per second."""
    decode: Spread
    """Tokens generated per second, after the first one of each sequence."""


@dataclass(frozen=True)
class Saving:
    """A pruned model and the unpruned one, measured alternately in one process."""

    model: str
    retain: float
    kept: int
    """Experts kept per layer."""
    device: str
    status: Status
    reason: str
    allocations: str = ""
    """How the allocated bytes were counted."""
    unpruned: Footprint | None = None
    pruned: Footprint | None = None


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
