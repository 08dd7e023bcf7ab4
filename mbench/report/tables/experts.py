"""Which experts each method keeps: pictures, overlaps, and masks that coincide."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mbench.core.results import Results
from mbench.report.statistics.groups import Entry, Group, Setting
from mbench.report.statistics.ranking import Standing
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table

PALETTE = (0, 0, 0, 47, 120, 196, 217, 119, 6)
"""Dropped (transparent), kept as the reference does, kept where the reference does not."""


def picture(keep: np.ndarray, reference: np.ndarray) -> str:
    """One pixel per expert as a PNG data URI; rows are layers. Both masks are bool [layers, N]."""
    from PIL import Image

    image = Image.fromarray(np.where(keep, np.where(reference, 1, 2), 0).astype(np.uint8))
    image.putpalette(PALETTE)
    content = io.BytesIO()
    image.save(content, "PNG", transparency=0, optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def jaccard_by_layer(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Experts both keep over experts either keeps, float64 [layers]; masks are bool [layers, N]."""
    both = (first & second).sum(axis=1)
    either = (first | second).sum(axis=1)
    return both / either


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over layers of `jaccard_by_layer`."""
    return float(jaccard_by_layer(first, second).mean())


def entry_masks(
    entry: Entry, group: Group, masks: Mapping[tuple[str, str], np.ndarray]
) -> list[np.ndarray]:
    """The masks of a method at one budget, one per seed; those that came about."""
    keys = [(group.model, cell.mask) for cell in entry.cells if cell.mask]
    return [masks[key] for key in keys if key in masks]


def overlap(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float | None:
    """Mean Jaccard over pairs of seeds; a method with itself compares different seeds only."""
    pairs = [
        jaccard(a, b)
        for i, a in enumerate(first)
        for k, b in enumerate(second)
        if first is not second or i != k
    ]
    return float(np.mean(pairs)) if pairs else None


def coinciding(setting: Setting) -> list[list[str]]:
    """Groups of methods whose masks are equal at this budget, under the same router mode."""
    by_mask: dict[tuple[str, str], list[str]] = {}
    for entry in setting.entries:
        for cell in entry.cells:
            if cell.mask:
                name = entry.method if cell.seed is None else f"{entry.method} (seed {cell.seed})"
                by_mask.setdefault((cell.mask, cell.router), []).append(name)
    return [names for names in by_mask.values() if len(names) > 1]


@dataclass(frozen=True)
class Picture:
    """The mask of one method."""

    title: str
    source: str
    text: str
    width: int
    height: int


@dataclass(frozen=True)
class Keeps:
    """One budget's pictures and overlaps."""

    reference: str
    pictures: tuple[Picture, ...]
    overlap: Table


def keeps(
    results: Results, group: Group, ranked: Sequence[Standing], id: str, where: str
) -> Keeps | None:
    """Pictures against the first method's mask, in the leaderboard's order; None without masks."""
    entries = [standing.entry for standing in ranked]
    pairs = [(entry, entry_masks(entry, group, results.masks)) for entry in entries]
    found = [(entry, masks) for entry, masks in pairs if masks]
    if not found:
        return None
    first, (reference, *_) = found[0]
    pictures = []
    for entry, masks in found:
        seed = f", seed {entry.cells[0].seed}" if entry.seeded else ""
        keep = masks[0]
        shared = (keep & reference).sum() / keep.sum()
        layers, count = keep.shape
        text = (
            f"{entry.method}{seed} keeps {keep[0].sum()} of {count} experts in each of {layers} "
            f"layers; {shared:.0%} of them are also kept by {first.method}"
        )
        source = picture(keep, reference)
        pictures.append(Picture(f"{entry.method}{seed}", source, text, count, layers))
    names = [entry.method for entry, _ in found]
    rows = []
    for entry, masks in found:
        cells = []
        for _, other_masks in found:
            share = overlap(masks, other_masks)
            if share is None:
                cells.append(MISSING)
            else:
                fill = round(100 * share)
                cells.append(Cell(f"{share:.2f}", sort=share, kind="heat", fill=fill))
        rows.append(Row(Cell(entry.method), tuple(cells)))
    columns = (Column("Method", number=False), *(Column(name) for name in names))
    caption = f"Mean Jaccard overlap of the kept experts: {where}"
    label = first.method + (f" (seed {first.cells[0].seed})" if first.seeded else "")
    return Keeps(label, tuple(pictures), Table(id, caption, columns, tuple(rows)))
