"""A mask as JSON, in the store and in exported checkpoints, and the scores that it was made of."""

from __future__ import annotations

import base64
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


def scores_to_json(scores: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Scores [layers, N] by corpus, every bit of them: base64 of little-endian float64."""
    return {
        corpus: base64.b64encode(values.astype("<f8").tobytes()).decode()
        for corpus, values in scores.items()
    }


def scores_from_json(data: Mapping[str, str], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """What `scores_to_json` wrote, as read-only float64 [layers, N] by corpus."""
    return {
        corpus: np.frombuffer(base64.b64decode(text), "<f8").reshape(shape)
        for corpus, text in data.items()
    }
