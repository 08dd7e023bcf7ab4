"""How many fewer items an early verdict needs, and how often its intervals hold.

mbench run quickstart --output reports && python benchmarks/early.py reports/quickstart [ORDERS]

Takes all outcomes of a finished run as they are, and draws random orders of the items. By task and
budget, over masks, median and least:

- how many times fewer items the difference to the unpruned model needs than the plain mean of the
  mask's own items, and how many the adjusted one, by the unpruned model and by all other masks;
- in how many of the orders the intervals of all looks have the figure of all items;
- of the figures that --hours would leave alone, as hopeless or settled, with every mask of a budget
  looked at before any is again: by how much they lie beside the figure of all items, on average and
  by quantiles, and how many of their intervals have it;
- at the middle budget, with every mask early: in how many of the orders any two masks are told
  apart the wrong way by the mean over tasks, and how many are told apart, beside the ordinary test
  on as many items; and the same with outcomes shuffled among masks, where whatever is told is
  wrong.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mbench.core.cell_results import UNPRUNED, CellResult
from mbench.core.early import EarlyFigure
from mbench.report.statistics.early_pairs import EarlyPairs
from mbench.report.statistics.families import Comparison, adjusted_family
from mbench.report.statistics.groups import BudgetEntries, Entry, Group, arrange
from mbench.report.statistics.pairwise import Pairwise, pairwise
from mbench.report.statistics.scores import Score
from mbench.report.statistics.strata import Stratum, pairs
from mbench.run.early.adjustment import adjusted
from mbench.run.early.interval import half_widths
from mbench.run.early.known import MOST_PREDICTORS
from mbench.run.early.population import Population
from mbench.run.early.verdict import ERROR, Verdict, standing, verdict
from mbench.run.looks import error_share, looks_of
from mbench.storage.results_folder import read

Masks = Mapping[tuple[float, str], pd.DataFrame]
"""By budget and content, outcomes of all items."""

Outcomes = Mapping[str, np.ndarray]
"""Task -> [items, cells]."""


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
            residuals = adjusted(values[sample, None], sample, columns, random).residuals
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
                found = verdict(population, tables, known, error_share(len(looks), made), 1, 1)
                good &= found.own[0] - 1e-12 <= truth <= found.own[1] + 1e-12
                halves.append((made, found.half))
            within += good
        widths = ", ".join(
            f"±{np.median([half for at, half in halves if at == made]):.3f} after"
            f" {sum(map(len, looks[:made]))}"
            for made in range(1, len(looks))
        )
        print(f"  {what}: {within / orders:.1%} of {orders} orders within; median {widths}")


def seeds_of(folder: Path) -> dict[tuple[float, str], set[tuple[float, str]]]:
    """For each mask those of its methods with all seeds, as `standing` takes them."""
    of_method = defaultdict(set)
    for cell in read(folder).cells:
        of_method[cell.method, cell.retain].add((cell.retain, cell.mask))
    found = defaultdict(set)
    for masks in of_method.values():
        for each in masks:
            found[each] |= masks
    return found


@dataclass(frozen=True)
class Left:
    """A figure that was left alone in one order."""

    ended: str
    retain: float
    beside: float
    """Figure minus that of all items."""
    own: bool
    """Whether its own interval has that of all items."""
    among: bool


def left_alone(
    population: Population,
    masks: Masks,
    seeds: Mapping[tuple[float, str], set[tuple[float, str]]],
    order: int,
) -> Iterator[Left]:
    """The figures of one task and order that end before the last look, by the unpruned model."""
    names, known = population.full["item"].tolist(), population.told_by(population.full)
    looks = looks_of(names, range(len(names)), {"order": order})
    parts = {key: population.parts(table)[1] for key, table in masks.items()}
    compared = Counter(retain for retain, _ in masks)
    going_on, latest = set(masks), dict[tuple[float, str], Verdict]()
    for made in range(1, len(looks)):
        sample, error = np.concatenate(looks[:made]), ERROR * error_share(len(looks), made)
        keys = sorted(going_on)
        found = adjusted(
            np.stack([parts[key][sample] for key in keys], 1),
            sample,
            known,
            np.random.default_rng(len(sample)),
        )
        # As `verdict` does of one mask; all at once take a tenth of the time.
        for key, mean, residuals in zip(keys, found.means, found.residuals.T, strict=True):
            least = float(parts[key][sample].sum()) / population.count
            most = least + 1 - len(sample) / population.count
            own, among = (
                (max(mean - below, least), min(mean + above, most))
                for below, above in (
                    half_widths(residuals, population.count, each, 1.0)
                    for each in (error, error / compared[key[0]])
                )
            )
            figure = min(max(mean, least), most)
            latest[key] = Verdict(figure, own, among, among, len(sample))
        for retain in {key[0] for key in masks}:
            intervals = {key: latest[key].among for key in masks if key[0] == retain}
            ends = standing(intervals, lower_is_better=False, seeds=seeds)
            for key in going_on & ends.keys():
                going_on.remove(key)
                told, true = latest[key], float(parts[key].mean())
                own, among = (
                    low - 1e-12 <= true <= high + 1e-12 for low, high in (told.own, told.among)
                )
                yield Left(ends[key], retain, told.mean - true, own, among)


def bias(
    population: Population,
    masks: Masks,
    seeds: Mapping[tuple[float, str], set[tuple[float, str]]],
    orders: int,
) -> list[Left]:
    """Print by budget how far figures that were left alone lie beside those of all items."""
    found = [
        left for order in range(orders) for left in left_alone(population, masks, seeds, order)
    ]
    for retain in sorted({key[0] for key in masks}):
        every = orders * sum(key[0] == retain for key in masks)
        told_bias(f"  {retain:.0%} kept", [own for own in found if own.retain == retain], every)
    return found


def told_bias(name: str, left: Sequence[Left], every: int) -> None:
    """Print one line for each ending; `every`: figures that there are."""
    for ended in ("hopeless", "settled"):
        beside = np.array([each.beside for each in left if each.ended == ended])
        if len(beside) == 0:
            continue
        own, among = (
            np.mean([getattr(each, which) for each in left if each.ended == ended])
            for which in ("own", "among")
        )
        low, high = np.quantile(beside, [0.05, 0.95])
        print(
            f"{name}, {ended}: {len(beside) / every:.1%} of figures, beside all items'"
            f" {beside.mean():+.4f} (90 % from {low:+.3f} to {high:+.3f}); own intervals hold"
            f" {own:.1%}, those of all masks at once {among:.1%}"
        )


def early_cells(
    cells: Sequence[CellResult], looks: Mapping[str, np.ndarray], outcomes: Outcomes, made: int
) -> list[CellResult]:
    """Cells as they are after so many looks, with outcomes of each task [items, cells]."""
    found = []
    for at, cell in enumerate(cells):
        looked, figures = {}, {}
        for task, look in looks.items():
            there = np.flatnonzero(look < made)
            names = cell.evaluations[task].items["item"].iloc[there].to_numpy()
            columns = {"item": names, "unit": there, "look": look[there]}
            looked[task] = pd.DataFrame({**columns, "value": outcomes[task][there, at]})
            count = int(look.max()) + 1
            figures[task] = EarlyFigure(0, 0, made, count, *[0.0] * 8, 0, 1, "precise")
        found.append(replace(cell, evaluations={}, early=figures, looked=looked))
    return found


def told_apart(unpruned: CellResult, cells: Sequence[CellResult], score: Score) -> list[Comparison]:
    """All pairs of early cells, as the page compares them."""
    entries = [Entry(str(at), (cell,)) for at, cell in enumerate(cells)]
    budget = BudgetEntries(cells[0].retain, 0, tuple(entries))
    compared = EarlyPairs(Group("", "", unpruned, (budget,)), budget, score)
    found, shares = [], []
    for a, b in pairs(len(entries)):
        one = compared.difference(entries[a], entries[b])
        assert isinstance(one, Pairwise)
        found.append(one)
        shares.append(compared.share(entries[a], entries[b]))
    return adjusted_family("methods", Pairwise.joined(found), np.array(shares))


def claims(folder: Path, tasks: Mapping[str, str], orders: int, *, shuffled: bool) -> None:
    """Print how often masks are told apart, and how often wrongly."""
    group = arrange(read(folder))[0]
    unpruned, budget = group.unpruned, group.budgets[len(group.budgets) // 2]
    assert unpruned is not None
    whole = (c for e in budget.entries for c in e.cells if tasks.keys() <= c.evaluations.keys())
    masks = {cell.mask: cell for cell in whole}
    cells = [replace(cell, seed=at) for at, cell in enumerate(masks.values())]
    score = Score("mean", tuple(tasks.items()), higher=True)
    random, wrong, ever = np.random.default_rng(1), Counter[int](), 0
    told: dict[str, Counter[int]] = {"early": Counter(), "ordinary": Counter()}
    for order in range(orders):
        outcomes, looks, designs = {}, {}, {}
        for task, metric in tasks.items():
            outcomes[task] = np.stack([c.evaluations[task].items[metric] for c in cells], 1)
            if shuffled:
                outcomes[task] = random.permuted(outcomes[task], axis=1)
            names = unpruned.evaluations[task].items["item"]
            parts = looks_of(names.tolist(), range(len(names)), {"order": order})
            looks[task] = np.zeros(len(names), np.int8)
            for number, part in enumerate(parts):
                looks[task][part] = number
            columns = {"item": names, "unit": range(len(names)), "look": looks[task]}
            designs[task] = pd.DataFrame(columns)
        truth = np.mean([each.mean(0) for each in outcomes.values()], 0)
        signs = [0 if shuffled else truth[a] - truth[b] for a, b in pairs(len(cells))]
        full, bad = replace(unpruned, looked=designs), False
        for made in range(1, 1 + min(int(look.max()) for look in looks.values())):
            found = told_apart(full, early_cells(cells, looks, outcomes, made), score)
            now = any(c.clear and c.value * sign <= 0 for c, sign in zip(found, signs, strict=True))
            strata = [
                Stratum(outcomes[task][looks[task] < made], np.ones((looks[task] < made).sum()))
                for task in tasks
            ]
            differences = pairwise(strata, [[at] for at in range(len(cells))])
            plain = adjusted_family("methods", differences.at(list(pairs(len(cells)))))
            wrong[made] += now
            bad |= now
            told["early"][made] += sum(c.clear for c in found)
            told["ordinary"][made] += sum(c.clear for c in plain)
        ever += bad
    what = "outcomes shuffled among masks" if shuffled else "as they are"
    print(f"all pairs of {len(cells)} masks at {budget.retain:.0%}, {what}, {orders} orders:")
    for made, count in wrong.items():
        mean = {name: each[made] / orders for name, each in told.items()}
        print(
            f"  look {made}: {count / orders:.1%} with a wrong claim;"
            f" {mean['early']:.1f} pairs told apart, {mean['ordinary']:.1f} by the ordinary test"
        )
    print(f"  over all looks {ever / orders:.1%} with a wrong claim")


def main() -> None:
    folder = Path(sys.argv[1])
    orders = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    random, seeds = np.random.default_rng(0), seeds_of(folder)
    left, every = list[Left](), 0
    for task, (metric, full, masks) in outcomes(folder).items():
        print(f"{task}, {metric}, {len(full)} items, {len(masks)} masks")
        population = Population(full, np.arange(len(full)), metric)
        ratios(population, masks, random)
        coverage(population, masks, random, orders)
        left += bias(population, masks, seeds, orders)
        every += orders * len(masks)
    told_bias("all tasks and budgets", left, every)
    found = outcomes(folder)
    tasks = {task: metric for task, (metric, _, _) in found.items()}
    for shuffled in (False, True):
        claims(folder, tasks, orders, shuffled=shuffled)


if __name__ == "__main__":
    main()
