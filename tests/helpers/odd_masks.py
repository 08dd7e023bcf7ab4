"""Results in which methods keep layers unevenly, merge experts, or put constants in their place."""

from __future__ import annotations

import dataclasses

import numpy as np

from mbench.core.interfaces import ExpertMask
from mbench.core.results import Results
from mbench.core.stand_ins import Constants, Merged, StandIn


def uneven(keep: np.ndarray) -> np.ndarray:
    """One expert more in the first layer, one less in the last."""
    moved = keep.copy()
    moved[0, np.flatnonzero(~keep[0])[0]] = True
    moved[-1, np.flatnonzero(keep[-1])[0]] = False
    return moved


def constants(keep: np.ndarray) -> Constants:
    outputs = np.random.default_rng(0).normal(size=(*keep.shape, 4)).astype(np.float32)
    return Constants(np.where(keep[..., None], np.float32(0), outputs))


def merged(keep: np.ndarray) -> Merged:
    """Every dropped expert goes to the first kept one of its layer."""
    first = keep.argmax(axis=1)[:, None]
    into = np.where(keep, np.arange(keep.shape[1]), first)
    return Merged(into, np.ones(keep.shape, np.float32))


def with_odd_masks(
    results: Results, uneven_method: str, constant_method: str, merged_method: str
) -> Results:
    """The same outcomes by masks of another kind, with a stability."""
    masks, stand_ins, cells = dict(results.masks), {}, []
    for cell in results.cells:
        if cell.method not in (uneven_method, constant_method, merged_method) or not cell.mask:
            cells.append(cell)
            continue
        keep = masks[cell.model, cell.mask]
        stand_in: StandIn | None = None
        if cell.method == uneven_method:
            keep = uneven(keep)
        else:
            stand_in = (constants if cell.method == constant_method else merged)(keep)
        mask = ExpertMask(keep, stand_in=stand_in).content_hash
        masks[cell.model, mask] = keep
        if stand_in is not None:
            stand_ins[cell.model, mask] = stand_in
        cells.append(dataclasses.replace(cell, mask=mask, stability=0.875))
    return dataclasses.replace(results, cells=tuple(cells), masks=masks, stand_ins=stand_ins)
