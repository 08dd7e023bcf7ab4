"""What is known of one model's masks while they are looked at: of some items, or of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.early import EarlyFigure
from mbench.core.evaluation import PERPLEXITY_METRICS
from mbench.core.interfaces import RouterMode
from mbench.plan.tasks import PlannedTask
from mbench.run.early.population import Population
from mbench.run.early.verdict import Interval, Verdict, verdict
from mbench.run.looks import TaskLooks, error_share
from mbench.run.masked_models import asked, made, retained, unpruned

if TYPE_CHECKING:
    import pandas as pd

    from mbench.core.evaluation import Evaluation
    from mbench.run.evaluation_stage import EvaluationStage
    from mbench.run.masked_models import MaskedModel
    from mbench.run.session import ModelSession

MOST_PREDICTORS = 24
"""Masks that an estimate is adjusted by, beside the unpruned model: those of the next budgets."""

Mask = tuple[str, str]
"""A `MaskedModel.identity`."""


@dataclass
class Cell:
    """One mask on one task, as far as it was looked at."""

    masked: MaskedModel
    task: PlannedTask
    looks: TaskLooks
    tables: list[pd.DataFrame] = field(default_factory=list)
    """Outcomes of the looks that were made."""
    found: Verdict | None = None
    ended: bool = False

    def looked(self) -> pd.DataFrame:
        """Its items as `CellResult.looked` has them."""
        return looked(self.looks, self.task.metric, self.tables)

    @property
    def left(self) -> int:
        """Forward tokens of the looks that were not made."""
        parts = self.looks.parts[len(self.tables) :]
        return 0 if self.ended else sum(part.tokens for part in parts)


class Known:
    """Estimates, and what they are compared with."""

    def __init__(self, stage: EvaluationStage, cells: Sequence[Cell]) -> None:
        """The masks that were made by now; the unpruned model has been evaluated."""
        self._session = stage.session
        self._stage = stage
        self._cells = {(cell.masked.identity, cell.task.name): cell for cell in cells}
        self._populations: dict[str, Population] = {}
        self._columns: dict[tuple[str, Mask], np.ndarray] = {}
        found = list(retained(stage.session))
        self._masks = {masked.identity: masked for masked, _ in found}
        self._retain = {masked.identity: retain for masked, retain in found}
        self.seeds = _seeds(stage.session)
        """For each mask, those of its methods at its budget with all seeds."""

    def judge(self, cell: Cell) -> EarlyFigure | None:
        """Estimate from a cell's looks; None where the unpruned model has no outcome."""
        population = self.population(cell.task)
        if population is None:
            return None
        finished = list(self._finished(cell))
        columns = [self._told(cell.task, None), *(self._told(cell.task, each) for each in finished)]
        if np.ptp(population.size) > 0:
            columns.append(population.size[:, None])
        masks = len(self._asked(self.retain(cell), cell.task))
        cell.found = verdict(
            population,
            cell.tables,
            np.concatenate(columns, 1),
            error_share(cell.looks.count, len(cell.tables)),
            masks,
            len(self._session.plan.tasks),
        )
        full = population.shown(population.full_mean)
        figure = population.shown(cell.found.mean)
        bounds = (cell.found.own, cell.found.among, cell.found.overall)
        own, among, overall = (
            [population.shown(end) - full for end in interval] for interval in bounds
        )
        return EarlyFigure(
            items=cell.found.items,
            of=cell.looks.whole.items,
            look=len(cell.tables),
            looks=cell.looks.count,
            figure=figure,
            difference=figure - full,
            low=own[0],
            high=own[1],
            among_low=among[0],
            among_high=among[1],
            overall_low=overall[0],
            overall_high=overall[1],
            masks=masks,
            predictors=1 + len(finished),
            ended="out of time",
        )

    def retain(self, cell: Cell) -> float:
        """The budget of a cell's mask."""
        return self._retain[cell.masked.identity]

    def population(self, task: PlannedTask) -> Population | None:
        """A task's items; None where the unpruned model has no outcome."""
        if task.name not in self._populations:
            full = self._whole(unpruned(self._session), task)
            if full is None or task not in self._stage.tasks:
                return None
            looks = self._stage.tasks.looks(task)
            self._populations[task.name] = Population(full.items, looks.unit, task.metric)
            places = {name: at for at, name in enumerate(full.items["item"])}
            tables = [full.items.iloc[[places[n] for n in names]] for names in looks.names]
            key = self._stage.key(unpruned(self._session), task)
            self._session.outcome.looked[key] = looked(looks, task.metric, tables)
        return self._populations[task.name]

    def at_budget(self, cell: Cell) -> dict[Mask, Interval]:
        """On the cell's task, where the figure of each mask of its budget lies, all at once.

        Without those that failed.
        """
        same = self._asked(self.retain(cell), cell.task)
        intervals = ((each, self._interval(self._masks[each], cell.task)) for each in same)
        return {each: interval for each, interval in intervals if interval is not None}

    def _asked(self, retain: float, task: PlannedTask) -> Sequence[tuple[str, RouterMode]]:
        """Masks of a budget that are evaluated on a task."""
        same = [each for each in self._masks if self._retain[each] == retain]
        return [each for each in same if task in asked(self._session, self._masks[each])]

    def _interval(self, masked: MaskedModel, task: PlannedTask) -> Interval | None:
        if self._stage.key(masked, task) in self._session.outcome.evaluation_problems:
            return None
        whole, population = self._whole(masked, task), self.population(task)
        if whole is not None and population is not None:
            mean = float(population.parts(whole.items)[1].mean())
            return mean, mean
        cell = self._cells.get((masked.identity, task.name))
        return cell.found.among if cell and cell.found else (-np.inf, np.inf)

    def _finished(self, cell: Cell) -> Iterator[MaskedModel]:
        """Masks with all outcomes of the cell's task, those of its budget first."""
        own = self.retain(cell)
        nearest = sorted(self._retain, key=lambda each: abs(self._retain[each] - own))
        masks = [self._masks[each] for each in nearest if each != cell.masked.identity]
        yield from [each for each in masks if self._whole(each, cell.task)][:MOST_PREDICTORS]

    def _told(self, task: PlannedTask, masked: MaskedModel | None) -> np.ndarray:
        masked = masked or unpruned(self._session)
        place = (task.name, masked.identity)
        if place not in self._columns:
            whole, population = self._whole(masked, task), self.population(task)
            assert whole is not None
            assert population is not None
            self._columns[place] = population.told_by(whole.items)
        return self._columns[place]

    def _whole(self, masked: MaskedModel, task: PlannedTask) -> Evaluation | None:
        return self._session.outcome.evaluations.get(self._stage.key(masked, task))


def looked(looks: TaskLooks, metric: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A mask's outcomes of a task's first looks, as `CellResult.looked` has them."""
    import pandas as pd

    units = dict(zip(looks.whole.item_names, looks.unit.tolist(), strict=True))
    value = "nll" if metric in PERPLEXITY_METRICS else metric
    joined = pd.concat(tables, ignore_index=True)
    return pd.DataFrame(
        {
            "item": joined["item"],
            "unit": joined["item"].map(units).astype("int32"),
            "look": np.repeat(np.arange(len(tables), dtype="int8"), [len(own) for own in tables]),
            "value": joined[value].astype(float),
        }
    )


def _seeds(session: ModelSession) -> dict[Mask, set[Mask]]:
    of_method: dict[tuple[str, float], set[Mask]] = defaultdict(set)
    for cell, masked in made(session):
        of_method[cell.method.name, cell.budget.retain].add(masked.identity)
    found: dict[Mask, set[Mask]] = defaultdict(set)
    for masks in of_method.values():
        for each in masks:
            found[each] |= masks
    return found
