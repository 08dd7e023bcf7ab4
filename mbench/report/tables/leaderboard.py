"""The tables of figures: leaderboard, seeds and failures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mbench.core.evaluation import LOWER_IS_BETTER
from mbench.core.results import UNPRUNED, CellResult, Results, TaskStatus
from mbench.report.statistics.floors import Floor, at_floor
from mbench.report.statistics.groups import RANDOM, Entry, Group, Score, Setting
from mbench.report.statistics.ranking import Standing
from mbench.report.statistics.seed_summaries import Summary, summarize
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import interval, number, percent, shorten, signed


def leaderboard(
    results: Results,
    group: Group,
    score: Score | None,
    ranked: Sequence[Standing],
    uninformative: Mapping[str, Floor],
    id: str,
    where: str,
) -> Table:
    """Every declared figure of every method: the unpruned model, then by rank, then the rest."""
    columns = [Column("Method", number=False)]
    if score:
        columns += [
            Column("Rank", "range"),
            Column(score.name, "more is better" if score.higher else "less is better"),
            Column("Over random" if score.higher else "Against random", "95 % interval"),
            Column("Beaten", "of random"),
            Column("Recovered", "of the gap"),
            Column("From the best", "95 % interval"),
        ]
    for task, metric in results.task_metrics.items():
        unit = metric + (" ↓" if metric in LOWER_IS_BETTER else "")
        columns.append(Column(task, unit + at_floor(task, uninformative)))
    rows = []
    if group.unpruned:
        entry = Entry("unpruned", (group.unpruned,))
        own = _unpruned_cells(score, group.unpruned, ranked) if score else ()
        rows.append(Row(Cell("unpruned"), (*own, *_task_cells(results, entry)), "pinned"))
    bounds = [s.summary.mean for s in ranked if s.rank is not None]
    for standing in ranked:
        entry = standing.entry
        own = _standing_cells(score, standing, bounds) if score else ()
        incomplete = score is not None and standing.rank is None
        kind = "incomplete" if incomplete else "random" if entry.method == RANDOM else ""
        head = Cell(entry.method, (*_own_router(group, entry), *_seed_count(entry)))
        if all(cell.status != "ok" for cell in entry.cells):
            cells = [MISSING] * (len(columns) - 1)
            first = entry.cells[0]
            reason = (shorten(first.reason),) if first.reason else ()
            # Under the score, or the first task where there is none.
            cells[1 if score else 0] = Cell(first.status, reason, kind="failed")
            rows.append(Row(head, tuple(cells), kind))
            continue
        rows.append(Row(head, (*own, *_task_cells(results, entry)), kind))
    return Table(id, f"Leaderboard: {where}", tuple(columns), tuple(rows))


def _own_router(group: Group, entry: Entry) -> tuple[str, ...]:
    """A method's router mode where it is not the suite's."""
    router = entry.cells[0].router
    return () if router == group.router else (f"router {router}",)


def _seed_count(entry: Entry) -> tuple[str, ...]:
    count = len(entry.cells)
    return (f"mean ± std of {count} seeds", "and range") if entry.seeded and count > 1 else ()


def _unpruned_cells(
    score: Score, unpruned: CellResult, ranked: Sequence[Standing]
) -> tuple[Cell, ...]:
    value = score.value(unpruned)
    if value is None:
        return (MISSING,) * 6
    own = Cell(f"{value:.3f}", (f"± {number(score.name, score.stderr(unpruned))}",), value)
    comparable = any(s.recovered is not None for s in ranked)
    random = [s.summary.mean for s in ranked if s.entry.method == RANDOM and comparable]
    gap = Cell(signed(value - random[0]), sort=value - random[0]) if random else MISSING
    whole = Cell(percent(1.0), sort=1.0) if random else MISSING
    return (MISSING, own, gap, MISSING, whole, MISSING)


def _standing_cells(score: Score, standing: Standing, bounds: Sequence[float]) -> tuple[Cell, ...]:
    if standing.rank is None:
        text = "not comparable" if standing.problem else "incomplete"
        details = (shorten(standing.problem),) if standing.problem else ()
        return (MISSING, Cell(text, details, kind="failed"), *(MISSING,) * 4)
    summary, entry = standing.summary, standing.entry
    details = _spread(score.name, summary) or (
        f"± {number(score.name, score.stderr(entry.cells[0]))}",
    )
    worst, best = sorted((bounds[-1], bounds[0]), key=lambda v: v if score.higher else -v)
    share = (summary.mean - worst) / (best - worst) if best != worst else 1.0
    kind = "bar best" if standing.rank == 1 else "bar"
    own = Cell(f"{summary.mean:.3f}", details, summary.mean, kind, 8 + round(92 * share))
    return (
        Cell(_rank(standing), sort=standing.rank),
        own,
        _random_cell(standing),
        _beaten_cell(standing),
        _recovered_cell(standing),
        _best_cell(standing),
    )


def _random_cell(standing: Standing) -> Cell:
    found = standing.from_random
    if found is None:
        return Cell("reference" if standing.entry.method == RANDOM else "–", kind="quiet")
    kind = "real" if standing.differs_from_random else "quiet"
    return Cell(signed(found.value), (interval(found.low, found.high),), found.value, kind)


def _rank(standing: Standing) -> str:
    first, last = standing.rank, standing.last_rank
    return str(first) if first == last else f"{first}–{last}"


def _beaten_cell(standing: Standing) -> Cell:
    beaten = standing.random_beaten
    if beaten is None:
        return MISSING
    return Cell(f"{beaten}/{standing.random_masks}", sort=beaten)


def _recovered_cell(standing: Standing) -> Cell:
    share = standing.recovered
    if share is None or math.isnan(share):
        return MISSING
    return Cell(f"{percent(round(share, 2))}", sort=share)


def _best_cell(standing: Standing) -> Cell:
    found = standing.from_leader
    if found is None:
        return Cell("best", sort=0.0, kind="quiet")
    bounds = interval(found.low, found.high)
    if standing.tied:
        return Cell(signed(found.value), (bounds, "not separated"), found.value, "quiet")
    return Cell(signed(found.value), (bounds,), found.value, "real")


def _task_cells(results: Results, entry: Entry) -> Iterator[Cell]:
    for task, metric in results.task_metrics.items():
        figures = [cell.metric(task, metric) for cell in entry.cells]
        present = [figure for figure in figures if figure is not None]
        if len(present) < len(figures):
            yield _failed_cell(entry, task, len(present))
            continue
        summary = summarize(figure.value for figure in present)
        error = present[0].stderr
        details = _spread(metric, summary)
        if not details and math.isfinite(error):
            details = (f"± {number(metric, error, scale=summary.mean)}",)
        yield Cell(number(metric, summary.mean), details, summary.mean)


def _spread(metric: str, summary: Summary) -> tuple[str, ...]:
    """Standard deviation and range over seeds, if there are several."""
    if summary.count < 2:
        return ()
    low, high = (number(metric, value) for value in (summary.minimum, summary.maximum))
    return (f"± {number(metric, summary.std, scale=summary.mean)}", f"{low}–{high}")


def _failed_cell(entry: Entry, task: str, present: int) -> Cell:
    statuses = (cell.task_status(task) for cell in entry.cells)
    missing = TaskStatus("failed", "its items lack the metric")
    status = next((status for status in statuses if status.status != "ok"), missing)
    total = len(entry.cells)
    seeds = (f"{total - present} of {total} seeds",) if total > 1 else ()
    reason = (shorten(status.reason),) if status.reason else ()
    return Cell(status.status, (*seeds, *reason), kind="failed")


def seeds(
    results: Results, setting: Setting, score: Score | None, id: str, where: str
) -> Table | None:
    """Each seed's figures and their summary; None where nothing was run with several seeds."""
    entries = [entry for entry in setting.entries if len(entry.cells) > 1]
    if not entries:
        return None
    columns = [Column("Method and seed", number=False)]
    getters: list[tuple[str, Callable[[CellResult], float | None]]] = []
    if score:
        columns.append(Column(score.name))
        getters.append((score.name, score.value))
    for task, metric in results.task_metrics.items():
        columns.append(Column(task, metric))
        getters.append((metric, _getter(task, metric)))
    rows = []
    for entry in entries:
        for cell in entry.cells:
            values = [(name, get(cell)) for name, get in getters]
            figures = (
                Cell("–") if value is None else Cell(number(name, value), sort=value)
                for name, value in values
            )
            rows.append(Row(Cell(f"{entry.method}, seed {cell.seed}"), tuple(figures)))
        rows += _summary_rows(entry, getters)
    return Table(id, f"Every seed: {where}", tuple(columns), tuple(rows))


def _getter(task: str, metric: str) -> Callable[[CellResult], float | None]:
    def get(cell: CellResult) -> float | None:
        figure = cell.metric(task, metric)
        return None if figure is None else figure.value

    return get


def _summary_rows(
    entry: Entry, getters: Sequence[tuple[str, Callable[[CellResult], float | None]]]
) -> Iterator[Row]:
    summaries = []
    for name, get in getters:
        values = [value for value in map(get, entry.cells) if value is not None]
        summaries.append((name, summarize(values) if values else None))
    labels = {"mean": "mean", "std": "standard deviation", "minimum": "min", "maximum": "max"}
    for attribute, label in labels.items():
        cells = []
        for name, summary in summaries:
            if summary is None:
                cells.append(MISSING)
            else:
                cells.append(Cell(number(name, getattr(summary, attribute), scale=summary.mean)))
        yield Row(Cell(f"{entry.method}, {label}"), tuple(cells), "summary")


def failures(results: Results, incomparable: Iterable[tuple[CellResult, str]] = ()) -> Table | None:
    """Everything without a result or beside the others, with its whole reason; None if nothing."""
    rows = []
    for cell in results.cells:
        if cell.status != "ok":
            rows.append(_failure(cell, "mask", cell.status, cell.reason))
            continue
        for task in results.task_metrics:
            status = cell.task_status(task)
            if status.status != "ok":
                rows.append(_failure(cell, task, status.status, status.reason))
    rows += [_failure(cell, "figures", "not comparable", text) for cell, text in incomparable]
    names = ("Method", "Model", "Kept", "Seed", "What", "Status", "Reason")
    columns = tuple(Column(name, number=False) for name in names)
    return Table("failures-table", "Without a result", columns, tuple(rows)) if rows else None


def _failure(cell: CellResult, what: str, status: str, reason: str) -> Row:
    return Row(
        Cell("unpruned" if cell.method == UNPRUNED else cell.method),
        (
            Cell(cell.model),
            Cell(percent(cell.retain), sort=cell.retain),
            Cell("" if cell.seed is None else str(cell.seed), sort=cell.seed),
            Cell(what),
            Cell(status, kind="failed"),
            Cell(reason or "–", kind="prose"),
        ),
    )
