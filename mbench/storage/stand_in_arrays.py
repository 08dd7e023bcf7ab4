"""What stands in for dropped experts, as a few words and plain arrays, and back again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mbench.core.stand_ins import Constants, Merged, StandIn

DTYPES = {"outputs": "<f4", "into": "<i8", "weights": "<f4", "neurons": "<i8"}
"""Of the arrays, little-endian."""


def described(stand_in: StandIn) -> dict[str, str]:
    """What it is, apart from its arrays: `kind`, and what a merge says in words."""
    if isinstance(stand_in, Constants):
        return {"kind": "constants"}
    matched = {"neurons": stand_in.neurons} if isinstance(stand_in.neurons, str) else {}
    return {"kind": "merged", "router": stand_in.router, **matched}


def arrays_of(stand_in: StandIn) -> dict[str, np.ndarray]:
    """Its arrays by the names of its fields, in `DTYPES`."""
    return {
        name: np.ascontiguousarray(getattr(stand_in, name), dtype)
        for name, dtype in DTYPES.items()
        if isinstance(getattr(stand_in, name, None), np.ndarray)
    }


def stand_in_from(words: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> StandIn:
    """What `described` and `arrays_of` were given.

    Raises `KeyError` where an array is missing, `ValueError` for another kind.
    """
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    if words["kind"] == "constants":
        return Constants(native["outputs"])
    if words["kind"] != "merged":
        raise ValueError(f"unknown kind of stand-in {words['kind']!r}")
    neurons = native.get("neurons")
    matched = words.get("neurons")
    if matched not in (None, "matched"):
        raise ValueError(f"unknown order of neurons {matched!r}")
    router = words["router"]
    if router not in ("mapped", "sliced"):
        raise ValueError(f"unknown router of merged experts {router!r}")
    return Merged(
        native["into"],
        native["weights"],
        "matched" if matched == "matched" else neurons,
        "mapped" if router == "mapped" else "sliced",
    )
