"""A comparison of two runs as JSON and as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mbench.report import words
from mbench.report.across_runs.compare import IDENTICAL, Compared, Comparison
from mbench.report.page.render import environment
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import bounds, finite, method_name, pruned, score_text
from mbench.storage.atomic import write_text_atomically

Place = tuple[str, float, tuple[str, str]]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values; figures that are not finite are None."""
    return {
        "first": comparison.names[0],
        "second": comparison.names[1],
        "differing_settings": list(comparison.settings),
        "correction": {"method": "Holm", "comparisons": comparison.families},
        "comparisons": [
            _compared_to_json(each, comparison.family(each)) for each in comparison.compared
        ],
        "not_compared": [each.line() for each in comparison.not_compared],
    }


def _compared_to_json(compared: Compared, family: str) -> dict[str, Any]:
    return {
        "model": compared.model,
        "retain": compared.retain,
        "methods": list(compared.methods),
        "seeds": list(compared.seeds),
        "score": compared.score,
        "family": family,
        "higher_is_better": compared.higher,
        "values": [finite(value) for value in compared.values],
        "difference": finite(compared.difference.value),
        "low": finite(compared.difference.low),
        "high": finite(compared.difference.high),
        "p": finite(compared.difference.p),
        "p_adjusted": finite(compared.difference.adjusted),
        "clear": compared.difference.clear,
        "not_tested_because": compared.difference.problem,
        "items": compared.items,
    }


def heading(comparison: Comparison) -> str:
    """What is subtracted from what."""
    first, second = comparison.names
    if comparison.methods is None:
        return f"{second} minus {first}"
    x, y = map(method_name, comparison.methods)
    return (
        f"{y} minus {x} in {first}" if first == second else f"{y} of {second} minus {x} of {first}"
    )


def reading(comparison: Comparison) -> tuple[str, ...]:
    """When differences are told apart, and what is none, a line each."""
    sizes = [f"all {count} of {family}" for family, count in comparison.families.items()]
    lines = ["nothing is tested"] if comparison.compared else []
    if sizes:
        over = ", and separately over ".join(sizes)
        lines = [f"told apart at 5 %, adjusted by Holm's method over {over}"]
    if any(each.difference.problem == IDENTICAL for each in comparison.compared):
        lines.append(
            "identical: the same experts of the same model, with the same outcome of every item"
            " up to rounding; these do not count among the comparisons"
        )
    return tuple(lines)


def by_place(comparison: Comparison) -> dict[Place, dict[str, Compared]]:
    """(model, retain ratio, methods) -> score -> its difference; of every model, from few to many
    pruned experts."""
    places: dict[Place, dict[str, Compared]] = {}
    for each in comparison.compared:
        places.setdefault((each.model, each.retain, each.methods), {})[each.score] = each
    models = list(dict.fromkeys(model for model, _, _ in places))
    ordered = sorted(places, key=lambda place: (models.index(place[0]), -place[1]))
    return {place: places[place] for place in ordered}


def method_label(methods: tuple[str, str]) -> str:
    """Both names, or one if they are equal."""
    return " → ".join(dict.fromkeys(map(method_name, methods)))


def write_page(comparison: Comparison, path: Path) -> None:
    """Write one self-contained HTML file."""
    template = environment().get_template("compare.html.j2")
    content = template.render(
        comparison=comparison,
        heading=heading(comparison),
        table=_table(comparison),
        reading=reading(comparison),
    )
    write_text_atomically(path, content)


def _table(comparison: Comparison) -> Table:
    directions = {each.score: each.higher for each in comparison.compared}
    columns = [Column(text, number=False) for text in ("Method", "Model", "Budget")]
    columns += [
        Column(score, "higher is better" if higher else "lower is better")
        for score, higher in directions.items()
    ]
    rows = []
    for (model, retain, methods), scores in by_place(comparison).items():
        cells = [Cell(model), Cell(pruned(retain), sort=-retain)]
        cells += [_cell(scores[score]) if score in scores else MISSING for score in directions]
        rows.append(Row(Cell(method_label(methods)), tuple(cells)))
    return Table(
        "differences", "Second minus first, on the same items", tuple(columns), tuple(rows)
    )


def _cell(compared: Compared) -> Cell:
    difference = compared.difference
    first, second = compared.values
    details = (
        *([bounds(difference.low, difference.high)] if not difference.problem else []),
        f"{score_text(first)} → {score_text(second)}",
        difference.problem or f"p {difference.adjusted:.2g}, {compared.items} items",
    )
    kind = "significant" if difference.clear else "quiet"
    return Cell(words.difference(difference.value), details, difference.value, kind)
