"""How stable a mask is: how many of its experts stay when the calibration text is drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from mbench.core.interfaces import Profile

SEED = 20
"""Of the draws: the figure is the same whenever it is computed."""


def stability(
    keep: np.ndarray,
    profiles: Mapping[str, Profile],
    remake: Callable[[Mapping[str, Profile]], np.ndarray | None],
    times: int,
) -> float | None:
    """Mean share of the kept experts that stay kept, from 0 to 1.

    Each time the shards of calibration sequences are drawn with replacement, as many as there are,
    for each corpus by itself; so it tells what other sequences of the same corpora would change.
    A candidate that the method starts from stays as it is.

    Args:
        keep: bool [layers, N], the mask.
        profiles: by corpus, what it was made of.
        remake: gives the mask of other profiles, or None where that fails.
        times: how often; 0 gives None, as do a failure and corpora of a single shard.
    """
    drawing = np.random.default_rng(SEED)
    shards = {corpus: _shards(profile) for corpus, profile in profiles.items()}
    if not times or max(shards.values(), default=0) < 2:
        return None
    stayed = []
    for _ in range(times):
        drawn = {
            corpus: _drawn(profile, shards[corpus], drawing) for corpus, profile in profiles.items()
        }
        again = remake(drawn)
        if again is None:
            return None
        stayed.append((keep & again).sum() / keep.sum())
    return float(np.mean(stayed))


def _shards(profile: Profile) -> int:
    """What was read from weights has one."""
    arrays = (array for named in profile.shard_sums.values() for array in named.values())
    return max((len(array) for array in arrays), default=0)


def _drawn(profile: Profile, shards: int, drawing: np.random.Generator) -> Profile:
    draw = drawing.integers(0, shards, shards)

    def redrawn(array: np.ndarray) -> np.ndarray:
        if len(array) == 1:
            return array
        again: np.ndarray = array[draw]
        again.flags.writeable = False
        return again

    sums = {
        identity: {name: redrawn(array) for name, array in named.items()}
        for identity, named in profile.shard_sums.items()
    }
    return replace(profile, shard_sums=sums)
