"""Random masks with as many experts in each layer as a router needs, and random stand-ins."""

from __future__ import annotations

import numpy as np

from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import Constants, Merged


def uneven_keep(layers, generator, fewest=2):
    """bool [L, N], another number of experts in every layer, equally many in each group."""
    keep = np.zeros((len(layers), layers[0].num_experts), dtype=bool)
    groups = layers[0].groups
    counts = generator.permutation(np.arange(fewest, layers[0].num_experts // groups))
    for row, count in zip(keep, counts, strict=False):
        for group in np.split(row, groups):
            group[generator.permutation(len(group))[:count]] = True
    return keep


def merged_mask(layers, keep, generator, router="mapped", aligned=True):
    """Kept experts that take up random others; two of each layer have another share than one."""
    into = np.zeros(keep.shape, dtype=np.int64)
    weights = np.zeros(keep.shape, dtype=np.float32)
    for layer, row in enumerate(keep):
        kept = np.flatnonzero(row)
        into[layer] = np.where(row, np.arange(len(row)), generator.choice(kept, len(row)))
        if router == "sliced" and not row.all():
            into[layer, generator.choice(np.flatnonzero(~row))] = -1
        weights[layer] = generator.uniform(0.1, 1, len(row)) * (into[layer] >= 0)
    experts = layers[0].experts
    inner = experts.down_proj.shape[1 if experts.is_transposed else 2]
    neurons = generator.permuted(np.tile(np.arange(inner), (*keep.shape, 1)), axis=2)
    return ExpertMask(keep, (), Merged(into, weights, neurons if aligned else None, router))


def constants_mask(layers, keep, generator):
    """Random constants for the experts that are not kept."""
    experts = layers[0].experts
    width = experts.down_proj.shape[2 if experts.is_transposed else 1]
    outputs = generator.normal(size=(*keep.shape, width)).astype(np.float32)
    return ExpertMask(keep, (), Constants(np.where(keep[..., None], np.float32(0), outputs)))
