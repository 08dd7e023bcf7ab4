"""The scorer of the README, in a module without hooks."""

from __future__ import annotations

import numpy as np

import mbench


class Frequency(mbench.Scorer):
    """How often the router chooses an expert."""

    name = "frequency"
    needs = (mbench.RoutingSums(),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        return profile.sums(mbench.RoutingSums())["count"]
