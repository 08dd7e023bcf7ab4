"""Which experts each method keeps: pictures, overlaps, and masks that coincide."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np

from mbench.report.statistics.groups import Entry, Group, Setting

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
