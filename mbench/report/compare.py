"""Two runs, or two methods, on the same items: paired differences of whatever both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mbench import stats
from mbench.errors import MbenchError
from mbench.evaluate.outcome import LOWER_IS_BETTER
from mbench.protocols import deciding_differences
from mbench.report.arrange import Score, average_score, perplexity_score
from mbench.report.boards import task_score
from mbench.report.ranking import LEVEL
from mbench.report.words import percent
from mbench.results import CellResult, Results


@dataclass(frozen=True)
class Compared:
    """One score of one method at one budget, in the second run against the first."""

    model: str
    retain: float
    methods: tuple[str, str]
    seeds: tuple[int, int]
    """How many each mean is over."""
    score: str
    higher: bool
    """Whether more is better."""
    values: tuple[float, float]
    """On the items that both have."""
    items: int
    difference: stats.Difference
    """Second minus first."""
    p: float
    """Corrected by Holm's method over all comparisons of this score."""
    separated: bool


@dataclass(frozen=True)
class Comparison:
    """All that two runs say about one another."""

    names: tuple[str, str]
    settings: tuple[str, ...]
    """What differs between the runs and decides figures."""
    overall: tuple[str, ...]
    """Scores over several tasks."""
    found: tuple[Compared, ...]
    left: tuple[str, ...]
    """What both have and yet cannot be compared, and why."""


@dataclass(frozen=True)
class _Pair:
    """The cells of one comparison."""

    model: str
    retain: float
    methods: tuple[str, str]
    cells: tuple[tuple[CellResult, ...], tuple[CellResult, ...]]

    @property
    def label(self) -> str:
        names = " and ".join(dict.fromkeys(self.methods))
        return f"{self.model} {percent(self.retain)} {names}"


@dataclass(frozen=True)
class _Drawn:
    """One task's outcomes on the items that both runs have."""

    columns: Mapping[tuple[int, int], int]
    """(run, id of a cell) -> column."""
    values: np.ndarray
    """[columns] what was measured."""
    deviations: np.ndarray
    """[resamples, columns] of the paired bootstrap."""
    null: np.ndarray
    """[resamples, columns] sign flips."""
    items: int


def compare(
    first: tuple[str, Results],
    second: tuple[str, Results],
    methods: tuple[str, str] | None = None,
) -> Comparison:
    """Compare the cells that two named runs both have, each score on the items that both have.

    With `methods`, the first run's first method is compared with the second run's second one. The
    two runs may differ in any setting, which is what one compares them for; it is told which.

    Seeds of one method are compared seed by seed; two methods' seeds have nothing to do with one
    another, so each method's are resampled on their own.

    Raises:
        MbenchError: the runs have no cell in common, or a method is in neither.
    """
    names, runs = (first[0], second[0]), (first[1], second[1])
    pairs = _pairs(names, runs, methods)
    differ = []
    if runs[0] is not runs[1]:
        differ = deciding_differences(dict(zip(names, runs, strict=True)))
    overall = [score for score in (average_score(runs[0]), perplexity_score(runs[0])) if score]
    shared = {t: m for t, m in runs[0].task_metrics.items() if t in runs[1].task_metrics}
    scores = [*overall, *(task_score(task, metric) for task, metric in shared.items())]
    left = [
        f"{task}: only in {names[index]}"
        for index in (0, 1)
        for task in runs[index].task_metrics
        if task not in runs[1 - index].task_metrics
    ]
    found: dict[str, list[Compared]] = {score.name: [] for score in scores}
    rng = np.random.default_rng(0)
    resamples = stats.enough_resamples(len(pairs))
    for model in dict.fromkeys(pair.model for pair in pairs):
        own = [pair for pair in pairs if pair.model == model]
        drawn: dict[str, _Drawn] = {}
        for task, metric in shared.items():
            metric = "mean_nll" if metric in LOWER_IS_BETTER else metric
            problem = _other_text(runs, task)
            result = problem or _draw(own, task, metric, rng, resamples)
            if isinstance(result, str):
                left.append(f"{model}, {task}: {result}")
            else:
                drawn[task] = result
        for score in scores:
            for pair in own:
                one = _compare(pair, score, drawn, rng)
                if one is not None:
                    found[score.name].append(one)
                elif all(task in drawn for task, _ in score.parts):
                    left.append(f"{pair.label}, {score.name}: incomplete")
    return Comparison(
        names=names,
        settings=tuple(map(str, differ)),
        overall=tuple(score.name for score in overall),
        found=tuple(one for of_score in found.values() for one in _corrected(of_score)),
        left=tuple(left),
    )


def _pairs(
    names: tuple[str, str], runs: tuple[Results, Results], methods: tuple[str, str] | None
) -> list[_Pair]:
    by_place: list[dict[tuple[str, float, str], list[CellResult]]] = [{}, {}]
    for index, results in enumerate(runs):
        for cell in results.cells:
            key = (cell.model, cell.retain, cell.method)
            by_place[index].setdefault(key, []).append(cell)
    pairs = []
    if methods is not None:
        for name, method, places in zip(names, methods, by_place, strict=True):
            known = list(dict.fromkeys(key[2] for key in places))
            if method not in known:
                raise MbenchError(f"{name} has no method {method!r} (there: {', '.join(known)})")
    for (model, retain, method), cells in by_place[0].items():
        if methods is not None and method != methods[0]:
            continue
        other = methods[1] if methods else method
        others = by_place[1].get((model, retain, other))
        if others is None:
            continue
        if method == other:
            seeds = {cell.seed for cell in cells} & {cell.seed for cell in others}
            cells, others = ([c for c in own if c.seed in seeds] for own in (cells, others))
            cells, others = (sorted(own, key=_seed) for own in (cells, others))
        if cells:
            both = (tuple(cells), tuple(others))
            pairs.append(_Pair(model, retain, (method, other), both))
    if not pairs:
        raise MbenchError(f"{names[0]} and {names[1]} have no model, budget and method in common")
    return pairs


def _seed(cell: CellResult) -> int:
    return -1 if cell.seed is None else cell.seed


def _other_text(runs: tuple[Results, Results], task: str) -> str:
    """Why windows of a text cannot be compared: their names tell only where they begin."""
    texts = [results.provenance.get("texts", {}).get(task, {}).get("text") for results in runs]
    return "" if texts[0] == texts[1] else "the runs read different texts"


def _draw(
    pairs: Sequence[_Pair], task: str, metric: str, rng: np.random.Generator, resamples: int
) -> _Drawn | str:
    """Bootstrap all cells of a model together, or say why that cannot be."""
    tables, columns = [], {}
    for pair in pairs:
        for run, cells in enumerate(pair.cells):
            for cell in cells:
                if cell.metric(task, metric) is not None and (run, id(cell)) not in columns:
                    columns[run, id(cell)] = len(tables)
                    tables.append(cell.evaluations[task].items.set_index("item"))
    if not tables:
        return "no results in one of the runs"
    common = tables[0].index
    for table in tables[1:]:
        common = common[common.isin(table.index)]
    if not len(common):
        return "the runs have no item in common"
    tables = [table.loc[common] for table in tables]
    if metric == "mean_nll":
        sizes = tables[0]["tokens"].to_numpy(float)
        if any((table["tokens"].to_numpy(float) != sizes).any() for table in tables):
            return "the same windows hold other tokens"
        totals = np.column_stack([table["nll"].to_numpy(float) for table in tables])
    else:
        totals = np.column_stack([table[metric].to_numpy(float) for table in tables])
        # In a group of tasks, not every item has every metric.
        totals = totals[~np.isnan(totals).any(axis=1)]
        sizes = np.ones(len(totals))
    stratum = stats.Stratum(totals, sizes)
    deviations = stats.bootstrap([stratum], rng, resamples)
    null = stats.sign_flips([stratum], rng, resamples)
    return _Drawn(columns, stratum.figures, deviations, null, len(sizes))


def _compare(
    pair: _Pair, score: Score, drawn: Mapping[str, _Drawn], rng: np.random.Generator
) -> Compared | None:
    samples = []
    parts = [drawn[task] for task, _ in score.parts if task in drawn]
    if len(parts) < len(score.parts):
        return None
    for run, cells in enumerate(pair.cells):
        if any((run, id(cell)) not in part.columns for part in parts for cell in cells):
            return None
        columns = [[part.columns[run, id(cell)] for cell in cells] for part in parts]
        samples.append(
            [
                np.mean([array[..., c] for array, c in zip(arrays, columns, strict=True)], axis=0)
                for arrays in zip(*((p.values, p.deviations, p.null) for p in parts), strict=True)
            ]
        )
    values = [float(figures.mean()) for figures, _, _ in samples]
    if pair.methods[0] == pair.methods[1]:
        samples = [[second - first for first, second in zip(*samples, strict=True)]]
    (deviations, null), *others = [_over_seeds(*sample, rng) for sample in reversed(samples)]
    zero = np.zeros_like(null)
    base, base_null = others[0] if others else (zero, zero)
    difference = stats.difference(values[1] - values[0], deviations, base)
    p = stats.p_value(values[1] - values[0], null, base_null)
    counts = [drawn[task].items for task, _ in score.parts]
    return Compared(
        model=pair.model,
        retain=pair.retain,
        methods=pair.methods,
        seeds=(len(pair.cells[0]), len(pair.cells[1])),
        score=score.name,
        higher=score.higher,
        values=(values[0], values[1]),
        items=sum(counts),
        difference=difference,
        p=p,
        separated=False,
    )


def _over_seeds(
    figures: np.ndarray, deviations: np.ndarray, null: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Figures [S] with draws [resamples, S] -> draws [resamples] of their mean, seeds included."""
    errors = stats.seed_errors(figures, null, rng)
    return deviations.mean(axis=1) + errors, null.mean(axis=1) + errors


def _corrected(of_score: Sequence[Compared]) -> Iterator[Compared]:
    for one, p in zip(of_score, stats.holm([one.p for one in of_score]), strict=True):
        yield replace(one, p=float(p), separated=bool(p < LEVEL))
