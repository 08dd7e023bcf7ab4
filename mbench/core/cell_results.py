"""What became of one cell of a suite: one method at one budget, and one seed where it draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mbench.core.early import EarlyFigure
from mbench.core.evaluation import Evaluation, Metric
from mbench.core.provenance import ModelSource

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
        if self.method == UNPRUNED:
            return f"{self.model} unpruned"
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
    looked: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    """By task name, of early figures the items that were evaluated and of the unpruned model all,
    where tasks were evaluated in looks; look after look, in the order of the task's items within
    each. Columns: `item`; `unit`, int32, the same for items that were drawn together; `look`, int8,
    from 0; `value`, of the task's metric or the item's loss."""

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
