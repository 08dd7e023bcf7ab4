"""How many fewer items an early verdict needs, and how often its intervals hold.

mbench run quickstart --output reports && python benchmarks/early.py reports/quickstart [ORDERS]

Takes all outcomes of a finished run as they are, and draws random orders of the items. By task and
budget, over masks, median and least:

- how many times fewer items the difference to the unpruned model needs than the plain mean of the
  mask's own items, and how many the adjusted one, by the unpruned model and by all other masks;
- in how many of the orders the intervals of all looks have the figure of all items.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mbench.core.results import UNPRUNED
from mbench.run.early.adjustment import adjusted
from mbench.run.early.known import MOST_PREDICTORS
from mbench.run.early.population import Population
from mbench.run.early.verdict import verdict
from mbench.run.looks import looks_of
from mbench.storage.results_folder import read

Masks = Mapping[tuple[float, str], pd.DataFrame]
"""By budget and content, outcomes of all items."""


def outcomes(folder: Path) -> dict[str, tuple[str, pd.DataFrame, Masks]]:
    """By task with looks: its metric, the unpruned model's outcomes, and those of the masks."""
    results = read(folder)
    found = {}
    for task, metric in results.task_metrics.items():
        tables = {
            (cell.retain, cell.mask): cell.evaluations[task].items
            for cell in results.cells
            if task in cell.evaluations
        }
        full = next(
            cell.evaluations[task].items for cell in results.cells if cell.method == UNPRUNED
        )
        masks = {key: table for key, table in tables.items() if key[0] < 1}
        if len(looks_of(full["item"].tolist(), range(len(full)), {})) > 1:
            found[task] = (metric, full, masks)
    return found


def predictors(population: Population, masks: Masks, own: tuple[float, str]) -> np.ndarray:
    """Of all other masks, those of the nearest budgets."""
    others = [key for key in masks if key != own]
    nearest = sorted(others, key=lambda key: abs(key[0] - own[0]))[:MOST_PREDICTORS]
    tables = [population.full, *(masks[key] for key in nearest)]
    return np.concatenate([population.told_by(table) for table in tables], 1)


def ratios(population: Population, masks: Masks, random: np.random.Generator) -> None:
    """Print how many times fewer items are needed."""
    found = defaultdict(list)
    full = population.parts(population.full)[1]
    alone = population.told_by(population.full)
    for key, table in masks.items():
        values = population.parts(table)[1]
        sample = random.permutation(population.count)[: round(0.6 * population.count)]
        known = {"unpruned": alone, "all": predictors(population, masks, key)}
        row = [values.var() / (values - full).var()]
        for columns in known.values():
            residuals = adjusted(values[sample], sample, columns, random).residuals
            row.append(values[sample].var() / (residuals**2).mean())
        found[key[0]].append(row)
    for retain, rows in sorted(found.items()):
        middle, least = np.median(rows, 0), np.min(rows, 0)
        names = ("difference", "by the unpruned model", "by all other masks")
        told = (
            f"{n} {m:.1f} (least {low:.1f})" for n, m, low in zip(names, middle, least, strict=True)
        )
        print(f"  {retain:.0%} kept, times fewer items: {', '.join(told)}")


def coverage(
    population: Population, masks: Masks, random: np.random.Generator, orders: int
) -> None:
    """Print in how many orders, each of a mask drawn at random, all intervals hold."""
    keys = list(masks)
    columns = {key: predictors(population, masks, key) for key in keys}
    alone = population.told_by(population.full)
    names = population.full["item"].tolist()
    for what in ("by the unpruned model", "by all other masks"):
        within, halves = 0, []
        for order in range(orders):
            key = keys[random.integers(len(keys))]
            known = alone if what == "by the unpruned model" else columns[key]
            looks = looks_of(names, range(len(names)), {"order": order})
            truth, good = population.parts(masks[key])[1].mean(), True
            for made in range(1, len(looks)):
                tables = [masks[key].iloc[look] for look in looks[:made]]
                found = verdict(population, tables, known, len(looks) - 1, 1, 1)
                good &= found.own[0] - 1e-12 <= truth <= found.own[1] + 1e-12
                halves.append((made, found.half))
            within += good
        widths = ", ".join(
            f"±{np.median([half for at, half in halves if at == made]):.3f} after"
            f" {sum(map(len, looks[:made]))}"
            for made in range(1, len(looks))
        )
        print(f"  {what}: {within / orders:.1%} of {orders} orders within; median {widths}")


def main() -> None:
    folder = Path(sys.argv[1])
    orders = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    random = np.random.default_rng(0)
    for task, (metric, full, masks) in outcomes(folder).items():
        print(f"{task}, {metric}, {len(full)} items, {len(masks)} masks")
        population = Population(full, np.arange(len(full)), metric)
        ratios(population, masks, random)
        coverage(population, masks, random, orders)


if __name__ == "__main__":
    main()
