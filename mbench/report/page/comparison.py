"""A comparison in JSON and as one small page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mbench.core.results import UNPRUNED
from mbench.report.across_runs.compare import Compared, Comparison
from mbench.report.page.render import environment
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import interval, listing, percent, signed
from mbench.storage.store import write_text_atomically

Place = tuple[str, float, tuple[str, str]]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """All of it in plain values; what is not finite is None."""
    return {
        "first": comparison.names[0],
        "second": comparison.names[1],
        "differing_settings": list(comparison.settings),
        "correction": {"method": "Holm", "comparisons": comparison.families},
        "comparisons": [_one_to_json(one, comparison.family(one)) for one in comparison.found],
        "not_compared": list(comparison.left),
    }


def _one_to_json(one: Compared, family: str) -> dict[str, Any]:
    return {
        "model": one.model,
        "retain": one.retain,
        "methods": list(one.methods),
        "seeds": list(one.seeds),
        "score": one.score,
        "family": family,
        "higher_is_better": one.higher,
        "values": [_finite(value) for value in one.values],
        "difference": _finite(one.difference.value),
        "low": _finite(one.difference.low),
        "high": _finite(one.difference.high),
        "p": one.p,
        "separated": one.separated,
        "at_floor": one.at_floor,
        "items": one.items,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def heading(comparison: Comparison) -> str:
    """What is subtracted from what."""
    first, second = comparison.names
    if comparison.methods is None:
        return f"{second} minus {first}"
    one, other = comparison.methods
    if first == second:
        return f"{other} minus {one} in {first}"
    return f"{other} of {second} minus {one} of {first}"


def correction(comparison: Comparison) -> str:
    """What the p-values are corrected over, in words."""
    sizes = (f"all {count} of {family}" for family, count in comparison.families.items() if count)
    return f"corrected by Holm's method over {listing(sizes)}"


def by_place(comparison: Comparison) -> dict[Place, dict[str, Compared]]:
    """(model, retain ratio, methods) -> score -> what was found."""
    found: dict[Place, dict[str, Compared]] = {}
    for one in comparison.found:
        found.setdefault((one.model, one.retain, one.methods), {})[one.score] = one
    return found


def method_label(methods: tuple[str, str]) -> str:
    """One name where it is the same in both."""
    names = ["unpruned" if name == UNPRUNED else name for name in methods]
    return " → ".join(dict.fromkeys(names))


def write_page(comparison: Comparison, path: Path) -> None:
    """Write one self-contained HTML file."""
    template = environment().get_template("compare.html.j2")
    content = template.render(
        comparison=comparison,
        heading=heading(comparison),
        table=_table(comparison),
        correction=correction(comparison),
    )
    write_text_atomically(path, content)


def _table(comparison: Comparison) -> Table:
    directions = {one.score: one.higher for one in comparison.found}
    columns = [Column(text, number=False) for text in ("Method", "Model", "Kept")]
    columns += [
        Column(score, "more is better" if higher else "less is better")
        for score, higher in directions.items()
    ]
    rows = []
    for (model, retain, methods), scores in by_place(comparison).items():
        cells = [Cell(model), Cell(percent(retain), sort=retain)]
        cells += [_cell(scores[score]) if score in scores else MISSING for score in directions]
        rows.append(Row(Cell(method_label(methods)), tuple(cells)))
    return Table(
        "differences", "Second minus first, on the same items", tuple(columns), tuple(rows)
    )


def _cell(one: Compared) -> Cell:
    found = one.difference
    first, second = one.values
    details = (
        interval(found.low, found.high),
        f"{first:.3f} → {second:.3f}",
        "at floor" if one.at_floor else f"p {one.p:.2g}, {one.items} items",
    )
    return Cell(signed(found.value), details, found.value, "real" if one.separated else "quiet")
