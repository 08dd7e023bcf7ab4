"""A page of one method's scores: heat maps of layers by experts, and a table per layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbench.report.page.render import environment
from mbench.report.tables.table import Cell, Column, Row, Table
from mbench.storage.atomic import write_text_atomically

SHOWN = 4
"""Experts named at each end of a layer."""


@dataclass(frozen=True)
class LayerScores:
    """The scores of a layer in short."""

    layer: int
    minimum: float
    median: float
    maximum: float
    best: tuple[int, ...]
    """Experts with the highest scores, the highest first; equal ones by lower index."""
    worst: tuple[int, ...]
    """Experts with the lowest scores, the lowest first; of equal ones the higher index, which is
    dropped first."""
    distinct: int
    """Different values: fewer than the experts where a ranking rests on ties."""


@dataclass(frozen=True)
class ScoreMap:
    """The scores of one method on one corpus."""

    title: str
    values: np.ndarray
    """float64 [layers, N]."""


def by_layer(values: np.ndarray) -> tuple[LayerScores, ...]:
    """A summary of every layer of scores, float64 [layers, N]."""
    order = np.argsort(-values, axis=1, kind="stable")
    return tuple(
        LayerScores(
            layer=layer,
            minimum=float(row.min()),
            median=float(np.median(row)),
            maximum=float(row.max()),
            best=tuple(map(int, ranked[:SHOWN])),
            worst=tuple(map(int, ranked[::-1][:SHOWN])),
            distinct=len(np.unique(row)),
        )
        for layer, (row, ranked) in enumerate(zip(values, order, strict=True))
    )


def score_text(value: float) -> str:
    """A score of any size in few characters."""
    return f"{value:.4g}"


def numbers(experts: Sequence[int]) -> str:
    """Experts as `3 17 5 0`."""
    return " ".join(map(str, experts))


def write_scores_page(title: str, maps: Sequence[ScoreMap], path: Path) -> None:
    """Write one self-contained HTML file."""
    content = (
        environment()
        .get_template("scores.html.j2")
        .render(
            title=title,
            maps=[(each, _table(number, each)) for number, each in enumerate(maps)],
            data=json.dumps([each.values.tolist() for each in maps], separators=(",", ":")),
        )
    )
    write_text_atomically(path, content)


def _table(number: int, scores: ScoreMap) -> Table:
    columns = [Column("Layer", number=False)]
    columns += [Column(text) for text in ("Least", "Median", "Most")]
    columns += [Column(text, number=False) for text in ("Best experts", "Worst experts")]
    columns.append(Column("Different", f"of {scores.values.shape[1]}"))
    rows = tuple(
        Row(
            Cell(str(each.layer), sort=each.layer),
            (
                *(
                    Cell(score_text(value), sort=value)
                    for value in (each.minimum, each.median, each.maximum)
                ),
                Cell(numbers(each.best)),
                Cell(numbers(each.worst)),
                Cell(str(each.distinct), sort=each.distinct),
            ),
        )
        for each in by_layer(scores.values)
    )
    return Table(f"scores-{number}", scores.title, tuple(columns), rows)
