"""A task's items as a finite set, of which a mask's figure is a mean that can be estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mbench.core.evaluation import PERPLEXITY_METRICS, WEIGHT


@dataclass(frozen=True)
class Population:
    """Units of a task, each of which adds its part to the figure.

    A unit is what is evaluated in one piece: an item, or a window of a text. Its part is scaled so
    that the figure over all items is the plain mean of all parts, whatever items weigh and however
    long windows are: weights and lengths are known of all before any mask is evaluated.
    """

    full: pd.DataFrame
    """The unpruned model's outcomes, of all items."""
    unit: np.ndarray
    """int64 [items], from 0."""
    metric: str

    @cached_property
    def count(self) -> int:
        """Units."""
        return int(self.unit.max()) + 1

    @cached_property
    def place(self) -> dict[str, int]:
        """Item -> its row."""
        return {name: row for row, name in enumerate(self.full["item"])}

    @cached_property
    def _share(self) -> np.ndarray:
        """float64 [items], what one unit of an item's column adds to the mean of all parts."""
        if self.metric not in PERPLEXITY_METRICS:
            there = self.full[self.metric].notna().to_numpy()
            weight = np.ones(len(self.full))
            if WEIGHT in self.full:
                weight = self.full[WEIGHT].to_numpy(float)
            each = self.count / float(weight[there].sum())
            return np.where(there, each * weight, 0.0)
        size = "bytes" if self.metric == "bits_per_byte" else "tokens"
        scale = math.log(2) if size == "bytes" else 1.0
        return np.full(len(self.full), self.count / float(self.full[size].sum()) / scale)

    @property
    def of_text(self) -> bool:
        """Whether items are pieces of texts, which have losses."""
        return self.metric in PERPLEXITY_METRICS

    @property
    def column(self) -> str:
        """Of a table of items, the one that figures follow from."""
        return "nll" if self.of_text else self.metric

    @cached_property
    def size(self) -> np.ndarray:
        """float64 [units]: what a unit of right answers adds, or of texts its length; mean 1."""
        every = np.arange(len(self.full))
        if not self.of_text:
            return self._sum(self._share, every)
        size = self.full["bytes" if self.metric == "bits_per_byte" else "tokens"].to_numpy(float)
        return self._sum(size * self.count / size.sum(), every)

    def bounded(self, units: np.ndarray, parts: np.ndarray) -> bool:
        """Whether outcomes lie in [0, 1], so that no unit adds more than its size.

        By those of the unpruned model, and parts of masks [n] or [n, m] on some units, NaN left
        out: a task's code may give scores of any size, e.g. percentages.
        """
        if self.of_text:
            return False
        seen = (self._full_parts, self.size), (parts, self.size[units])
        return not any(
            (own < 0).any() or (own.transpose() > most * (1 + 1e-9)).any() for own, most in seen
        )

    def most(self, units: np.ndarray, parts: np.ndarray) -> float | None:
        """The most that a unit can differ by, of scores without bounds by as much as any outcome
        seen from another; None of texts, of whose losses nothing is known."""
        if self.of_text:
            return None
        if self.bounded(units, parts):
            return float(self.size.max())
        seen = np.concatenate([self._full_parts, parts.ravel()])
        return float(np.ptp(seen[np.isfinite(seen)]))

    @cached_property
    def _full_parts(self) -> np.ndarray:
        return self.parts(self.full)[1]

    @cached_property
    def full_mean(self) -> float:
        """The unpruned model's mean of all parts."""
        return float(self._full_parts.mean())

    @cached_property
    def documents(self) -> np.ndarray:
        """int64 [units]: the document of each, from 0, of texts; of a window with several, the
        first."""
        _, document = np.unique(self.full["document"].to_numpy(), return_inverse=True)
        first = np.unique(self.unit, return_index=True)[1]
        found: np.ndarray = document[first]
        return found

    def rows(self, items: pd.DataFrame) -> np.ndarray:
        """int64, the places of a table's items among all."""
        return np.array([self.place[name] for name in items["item"]], np.int64)

    def parts(self, items: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Units that a table has, int64 [n] ascending, and the part of each, float64 [n].

        A part is NaN where the metric lacks an item's value that the unpruned model has.
        """
        rows = self.rows(items)
        values = items[self.column].to_numpy(float)
        share = self._share[rows]
        found = self._sum(np.where(share == 0, 0.0, share * values), rows)
        units = np.unique(self.unit[rows])
        return units, found[units]

    def told_by(self, items: pd.DataFrame) -> np.ndarray:
        """float64 [units, p]: what a mask with all outcomes tells of another's.

        Its part of each unit, and of choices between answers also by how much the likeliest leads,
        with its sign turned where it is wrong.
        """
        rows = self.rows(items)
        values = items[self.column].to_numpy(float)
        share = self._share[rows]
        columns = [self._sum(share * np.nan_to_num(values, posinf=0.0, neginf=0.0), rows)]
        if "loglikelihoods" in items:
            lead = np.array([_lead(each) for each in items["loglikelihoods"]])
            for scale in LEADS:
                signed = np.tanh(lead / scale) * np.where(values > 0.5, 1, -1)
                columns.append(self._sum(share * signed, rows))
        return np.stack(columns, 1)

    def _sum(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.bincount(self.unit[rows], values, minlength=self.count)
        return found

    def shown(self, mean: float) -> float:
        """The figure that a mean of parts is."""
        if self.metric != "perplexity":
            return mean
        return math.exp(mean) if mean < 700 else math.inf


LEADS = (1.0, 4.0)
"""Natural-log units in which a lead is felt: beyond a few, more of it tells no more."""


def _lead(logs: Sequence[float]) -> float:
    """By how much the likeliest answer leads the next."""
    if len(logs) < 2:
        return 0.0
    second, first = np.sort(np.asarray(logs, float))[-2:]
    return float(first - second)
