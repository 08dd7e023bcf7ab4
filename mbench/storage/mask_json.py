"""A mask as JSON, in the store and in exported checkpoints, and the scores that it was made of."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from mbench.core.interfaces import ExpertMask
from mbench.core.stand_ins import StandIn
from mbench.storage.stand_in_arrays import DTYPES, arrays_of, described, stand_in_from

MASK_FILE = "expert_mask.json"
"""The name of a mask's file in exported checkpoints."""


def mask_to_json(mask: ExpertMask, layers: tuple[str, ...]) -> dict[str, Any]:
    """The mask with the kept experts of each layer, ascending, by module path.

    What stands in for the others, if anything does, has every bit of its arrays: base64 of
    little-endian numbers.
    """
    return {
        "format": "mbench-mask/1",
        "num_experts": int(mask.keep.shape[1]),
        "kept": {
            layer: np.flatnonzero(row).tolist()
            for layer, row in zip(layers, mask.keep, strict=True)
        },
        "notes": list(mask.notes),
        "content_hash": mask.content_hash,
        **({} if mask.stand_in is None else {"stand_in": _stand_in_to_json(mask.stand_in)}),
    }


def mask_from_json(data: Mapping[str, Any], layers: tuple[str, ...]) -> ExpertMask:
    """The mask that `mask_to_json` wrote."""
    keep = np.zeros((len(layers), data["num_experts"]), dtype=bool)
    for row, layer in zip(keep, layers, strict=True):
        row[data["kept"][layer]] = True
    stand_in = _stand_in_from_json(data["stand_in"]) if "stand_in" in data else None
    return ExpertMask(keep, tuple(data["notes"]), stand_in)


def _stand_in_to_json(stand_in: StandIn) -> dict[str, Any]:
    arrays = {
        name: {"shape": list(array.shape), "base64": _base64(array)}
        for name, array in arrays_of(stand_in).items()
    }
    return {**described(stand_in), "arrays": arrays}


def _stand_in_from_json(data: Mapping[str, Any]) -> StandIn:
    arrays = {
        name: np.frombuffer(base64.b64decode(stored["base64"]), DTYPES[name]).reshape(
            stored["shape"]
        )
        for name, stored in data["arrays"].items()
    }
    return stand_in_from(data, arrays)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def scores_to_json(scores: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Scores [layers, N] by corpus, every bit of them: base64 of little-endian float64."""
    return {corpus: _base64(values.astype("<f8")) for corpus, values in scores.items()}


def scores_from_json(data: Mapping[str, str], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """What `scores_to_json` wrote, as read-only float64 [layers, N] by corpus."""
    return {
        corpus: np.frombuffer(base64.b64decode(text), "<f8").reshape(shape)
        for corpus, text in data.items()
    }
