"""The mask of every method as a picture: a row is a layer, a column an expert."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from mbench.report.statistics.boards import Board
from mbench.report.statistics.groups import Entry

PALETTE = (0, 0, 0, 47, 120, 196, 217, 119, 6)
"""Dropped (transparent); kept, also by the reference; kept, but not by the reference."""


@dataclass(frozen=True)
class Picture:
    """The mask of one method."""

    title: str
    source: str
    text: str
    width: int
    height: int


@dataclass(frozen=True)
class MaskPictures:
    """The masks of one budget, coloured by whether a reference method keeps the expert too."""

    reference: str
    pictures: tuple[Picture, ...]


def mask_pictures(board: Board) -> MaskPictures | None:
    """In the leaderboard's order, with the first method as the reference; None without masks."""
    entries = [(entry, masks[0]) for entry in board.entries if (masks := board.masks_of(entry))]
    if not entries:
        return None
    first, reference = entries[0]
    pictures = tuple(_picture(entry, keep, first, reference) for entry, keep in entries)
    label = first.method + (f" (seed {first.cells[0].seed})" if first.seeded else "")
    return MaskPictures(label, pictures)


def _picture(entry: Entry, keep: np.ndarray, first: Entry, reference: np.ndarray) -> Picture:
    name = entry.method + (f", seed {entry.cells[0].seed}" if entry.seeded else "")
    shared = (keep & reference).sum() / keep.sum()
    layers, experts = keep.shape
    text = (
        f"{name} keeps {keep[0].sum()} of {experts} experts in each of {layers} "
        f"layers; {shared:.0%} of them are also kept by {first.method}"
    )
    return Picture(name, data_uri(keep, reference), text, experts, layers)


def data_uri(keep: np.ndarray, reference: np.ndarray) -> str:
    """One pixel per expert as a PNG data URI; rows are layers. Both masks are bool [layers, N]."""
    from PIL import Image

    image = Image.fromarray(np.where(keep, np.where(reference, 1, 2), 0).astype(np.uint8))
    image.putpalette(PALETTE)
    content = io.BytesIO()
    image.save(content, "PNG", transparency=0, optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
