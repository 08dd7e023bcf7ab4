"""Do calibration texts agree on which experts matter? The masks of methods that differ in their
one corpus alone are the corpora's own choices of K experts per layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from mbench.core.provenance import MethodSettings
from mbench.report.charts import style as charts
from mbench.report.charts.drawing import draw, note
from mbench.report.statistics.groups import Group
from mbench.report.tables.experts import jaccard_by_layer
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table
from mbench.report.words import listing, percent


@dataclass(frozen=True)
class Agreement:
    """One family of methods: the same parts, each on another corpus."""

    heading: str
    sentences: tuple[str, ...]
    table: Table
    charts: tuple[charts.Chart, ...]


def chance(experts: int, kept: int) -> float:
    """Expected Jaccard overlap of two independent random sets of `kept` of `experts` experts.

    The overlap's size is hypergeometric, and sizes o give Jaccard o / (2 * kept - o).
    """
    total = math.comb(experts, kept)
    return math.fsum(
        math.comb(kept, o) * math.comb(experts - kept, kept - o) / total * o / (2 * kept - o)
        for o in range(max(0, 2 * kept - experts), kept + 1)
    )


def families(methods: Mapping[str, MethodSettings]) -> list[dict[str, str]]:
    """Corpus -> method, for methods with one corpus that share the rest; two corpora at least."""
    found: list[tuple[MethodSettings, dict[str, str]]] = []
    for name, method in methods.items():
        if len(method.corpora) != 1 or method.candidate is not None:
            continue
        rest, (corpus,) = replace(method, corpora=()), method.corpora
        family = next((family for shared, family in found if shared == rest), None)
        if family is None:
            family = {}
            found.append((rest, family))
        family.setdefault(corpus, name)
    return [family for _, family in found if len(family) > 1]


def agreements(
    group: Group,
    masks: Mapping[tuple[str, str], np.ndarray],
    methods: Mapping[str, MethodSettings],
    id: str,
) -> tuple[Agreement, ...]:
    """How much the corpora's choices have in common, for every family with masks."""
    made = []
    for number, family in enumerate(families(methods), 1):
        chosen = {
            setting.retain: _choices(group, masks, family, setting) for setting in group.settings
        }
        chosen = {retain: choices for retain, choices in chosen.items() if len(choices) > 1}
        if chosen:
            made.append(_agreement(group, family, chosen, f"{id}-{number}"))
    return tuple(made)


def _choices(group: Group, masks: Mapping, family: Mapping[str, str], setting: Any) -> dict:
    by_method = {entry.method: entry for entry in setting.entries}
    keys = {
        corpus: (group.model, by_method[method].cells[0].mask)
        for corpus, method in family.items()
        if method in by_method
    }
    return {corpus: masks[key] for corpus, key in keys.items() if key in masks}


def _agreement(
    group: Group, family: Mapping[str, str], chosen: dict[float, dict[str, np.ndarray]], id: str
) -> Agreement:
    pairs = list(combinations(family, 2))
    columns = [Column("Corpora", number=False)]
    columns += [Column(f"{percent(r)} kept", "mean Jaccard") for r in chosen]
    rows = [
        Row(Cell(" and ".join(pair)), tuple(_overlap_cell(chosen[r], pair) for r in chosen))
        for pair in pairs
    ]
    levels = {r: chance(_experts(c), _kept(c)) for r, c in chosen.items()}
    cells = tuple(Cell(f"{level:.2f}", sort=level) for level in levels.values())
    rows.append(Row(Cell("two random choices"), cells, "summary"))
    methods = listing(list(family.values()))
    caption = f"Overlap of the texts' choices: {methods}, {group.model}, router {group.router}"
    looks = charts.looks([" and ".join(pair) for pair in pairs], reserved="")
    return Agreement(
        heading=methods,
        sentences=tuple(_union(retain, choices) for retain, choices in chosen.items()),
        table=Table(f"{id}-table", caption, tuple(columns), tuple(rows)),
        charts=tuple(
            _by_layer(retain, choices, pairs, looks, levels[retain], f"{id}-{index}", group)
            for index, (retain, choices) in enumerate(chosen.items(), 1)
        ),
    )


def _experts(choices: Mapping[str, np.ndarray]) -> int:
    return next(iter(choices.values())).shape[1]


def _kept(choices: Mapping[str, np.ndarray]) -> int:
    return int(next(iter(choices.values()))[0].sum())


def _overlap_cell(choices: Mapping[str, np.ndarray], pair: tuple[str, str]) -> Cell:
    if not choices.keys() >= set(pair):
        return MISSING
    share = float(jaccard_by_layer(*(choices[corpus] for corpus in pair)).mean())
    return Cell(f"{share:.2f}", sort=share, kind="heat", fill=round(100 * share))


def union_size(choices: Sequence[np.ndarray]) -> float:
    """Experts per layer that at least one mask keeps, averaged over layers; bool [layers, N]."""
    return float(np.logical_or.reduce(choices).sum(axis=1).mean())


def _union(retain: float, choices: Mapping[str, np.ndarray]) -> str:
    size, shared = union_size(list(choices.values())), np.logical_and.reduce(list(choices.values()))
    common = float(shared.sum(axis=1).mean())
    return (
        f"{percent(retain)} kept: {listing(list(choices))} together want {size:.1f} experts per"
        f" layer where {_kept(choices)} can stay, and agree on {common:.1f}."
    )


def _by_layer(
    retain: float,
    choices: Mapping[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    looks: Mapping[str, charts.Look],
    level: float,
    id: str,
    group: Group,
) -> charts.Chart:
    rows, texts = [], []
    for pair in pairs:
        if not choices.keys() >= set(pair):
            continue
        name = " and ".join(pair)
        shares = jaccard_by_layer(*(choices[corpus] for corpus in pair))
        for layer, share in enumerate(shares.tolist(), 1):
            text = f"{name}, layer {layer}: {share:.2f}"
            rows.append({"layer": layer, "method": name, "value": share, "note": note(name, text)})
        texts.append(f"{name}: mean {shares.mean():.2f}, {shares.min():.2f} to {shares.max():.2f}.")
    layers = len(next(iter(choices.values())))
    x = charts.figures([1, layers], ticks=8)
    x |= {"field": "layer", "title": "MoE layer"}
    x["axis"] |= {"tickMinStep": 1, "format": "d"}
    y = charts.figures([0.0, 1.0])
    value, colour = {**y, "field": "value"}, charts.by_method(looks, "colour")
    line, label = charts.level(level, f"chance {level:.2f}", y)
    shape = charts.by_method(looks, "shape")
    return charts.Chart(
        caption=f"Overlap by layer, {percent(retain)} kept",
        drawing=draw(
            charts.specification(
                [
                    line,
                    charts.lines(rows, x=x, y=value, color=colour),
                    charts.layer("point", "point", rows, x=x, y=value, color=colour, shape=shape),
                    label,
                ]
            ),
            id,
            f"Jaccard overlap of the texts' choices, {group.model}, {percent(retain)} kept",
            " ".join(texts) + f" Chance {level:.2f}.",
        ),
        looks=looks,
    )
