"""The view of the experts that stay: a picture per method and their overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbench.core.results import Results
from mbench.report.statistics.groups import Group
from mbench.report.statistics.ranking import Standing
from mbench.report.tables import experts
from mbench.report.tables.table import MISSING, Cell, Column, Row, Table


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
    pairs = [(entry, experts.entry_masks(entry, group, results.masks)) for entry in entries]
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
        source = experts.picture(keep, reference)
        pictures.append(Picture(f"{entry.method}{seed}", source, text, count, layers))
    names = [entry.method for entry, _ in found]
    rows = []
    for entry, masks in found:
        cells = []
        for _, other_masks in found:
            share = experts.overlap(masks, other_masks)
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
