"""Figures that papers state, beside ours: those that come with mbench, and a user's own."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mbench.core.errors import MbenchError
from mbench.core.results import CellResult, Results
from mbench.report.statistics.groups import Group
from mbench.report.statistics.seed_summaries import summarize
from mbench.report.tables.table import Cell, Column, Row, Table
from mbench.report.words import number, percent, signed


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedModel(_Strict):
    """What a model must have, beside its name, to be the paper's."""

    experts: int


class Figure(_Strict):
    """One figure, under the names that suites use."""

    where: str
    """Section and table of the paper."""
    model: str
    retain: Annotated[float, Field(gt=0, le=1)]
    method: str
    minus: str = ""
    """The other method, where the paper states a difference."""
    task: str
    """A task's name, whose declared metric is meant, or the average's."""
    seed: int | None = None
    over_seeds: Literal["mean", "std", "minimum", "maximum"] = "mean"
    value: float


class Published(_Strict):
    """The figures of one paper."""

    paper: str
    protocol: str
    """How its protocol differs from ours, in words."""
    models: dict[str, PublishedModel]
    figures: tuple[Figure, ...]


def shipped_figures() -> Path:
    """The folder of the figures that come with mbench."""
    return Path(str(importlib.resources.files("mbench_published")))


def load_published(*directories: Path) -> tuple[Published, ...]:
    """Every YAML file of some directories, by name; of two that share a name, the last one's.

    A directory that does not exist has none. Raises `MbenchError` for a malformed file.
    """
    import yaml

    files = {path.name: path for folder in directories for path in folder.glob("*.yaml")}
    found = []
    for _, path in sorted(files.items()):
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
            found.append(Published.model_validate(data))
        except (OSError, ValueError, yaml.YAMLError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            where = ".".join(map(str, first["loc"])) + ": " + first["msg"] if first else error
            line = " ".join(str(where).split())
            raise MbenchError(f"published figures in {path} are malformed: {line}") from error
    return tuple(found)


def comparison(results: Results, group: Group, published: Published, id: str) -> Table | None:
    """The paper's figures for which this group has the same model, method, budget and task."""
    rows = []
    for figure in published.figures:
        if figure.model != group.model or not _same_model(results, group, published):
            continue
        ours = _ours(results, group, figure, figure.method)
        other = _ours(results, group, figure, figure.minus) if figure.minus else 0.0
        if ours is not None and other is not None:
            rows.append(_row(results, figure, ours - other))
    columns = (
        Column("Method", number=False),
        Column("Kept"),
        Column("Figure", number=False),
        Column("Paper"),
        Column("Here"),
        Column("Here − paper"),
        Column("Stated in", number=False),
    )
    caption = f"{published.paper}: {group.model}, router {group.router}"
    return Table(id, caption, columns, tuple(rows)) if rows else None


def _same_model(results: Results, group: Group, published: Published) -> bool:
    expected = published.models.get(group.model)
    shapes = {keep.shape[1] for (model, _), keep in results.masks.items() if model == group.model}
    return expected is not None and shapes == {expected.experts}


def _ours(results: Results, group: Group, figure: Figure, method: str) -> float | None:
    cells = list(_cells(group, figure, method))
    values = [_value(results, cell, figure.task) for cell in cells]
    if not values or any(value is None for value in values):
        return None
    value = getattr(summarize(values), figure.over_seeds)
    return value if math.isfinite(value) else None


def _cells(group: Group, figure: Figure, method: str) -> Iterator[CellResult]:
    for setting in group.settings:
        for entry in setting.entries:
            if entry.method == method and math.isclose(setting.retain, figure.retain):
                yield from (c for c in entry.cells if figure.seed in (None, c.seed))


def _value(results: Results, cell: CellResult, task: str) -> float | None:
    if results.average and task == results.average:
        found = results.average_of(cell)
    elif task in results.task_metrics:
        found = cell.metric(task, results.task_metrics[task])
    else:
        return None
    return None if found is None else found.value


def _row(results: Results, figure: Figure, ours: float) -> Row:
    metric = results.task_metrics.get(figure.task, "")
    write = signed if figure.minus else lambda value: number(metric, value)
    kind = [f"seed {figure.seed}"] if figure.seed is not None else []
    kind += [figure.over_seeds + " over seeds"] if figure.over_seeds != "mean" else []
    kind += [f"over {figure.minus}"] if figure.minus else []
    gap = ours - figure.value
    difference = f"{gap:+.1f}".replace("-", "−") if metric == "perplexity" else signed(gap)
    return Row(
        Cell(figure.method),
        (
            Cell(percent(figure.retain), sort=figure.retain),
            Cell(figure.task, (", ".join(kind),) if kind else ()),
            Cell(write(figure.value), sort=figure.value),
            Cell(write(ours), sort=ours),
            Cell(difference, sort=gap),
            Cell(figure.where, kind="prose"),
        ),
    )


def comparisons(
    results: Results, group: Group, published: Sequence[Published], id: str
) -> tuple[tuple[str, Table], ...]:
    """(difference in protocol, table) of each paper that has something to compare."""
    tables = [
        (paper.protocol, comparison(results, group, paper, f"{id}-{n}"))
        for n, paper in enumerate(published, 1)
    ]
    return tuple((protocol, table) for protocol, table in tables if table is not None)
