"""A mask as JSON, in the store and in exported checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mbench.core.interfaces import ExpertMask


def mask_to_json(mask: ExpertMask, layers: tuple[str, ...]) -> dict[str, Any]:
    """The mask with the kept experts of each layer, ascending, by module path."""
    return {
        "format": "mbench-mask/1",
        "num_experts": int(mask.keep.shape[1]),
        "kept": {
            layer: np.flatnonzero(row).tolist()
            for layer, row in zip(layers, mask.keep, strict=True)
        },
        "notes": list(mask.notes),
        "content_hash": mask.content_hash,
    }


def mask_from_json(data: Mapping[str, Any], layers: tuple[str, ...]) -> ExpertMask:
    """The mask that `mask_to_json` wrote."""
    keep = np.zeros((len(layers), data["num_experts"]), dtype=bool)
    for row, layer in zip(keep, layers, strict=True):
        row[data["kept"][layer]] = True
    return ExpertMask(keep, tuple(data["notes"]))
