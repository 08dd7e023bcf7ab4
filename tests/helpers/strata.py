"""Outcomes of simulated methods on the items of several tasks."""

import numpy as np
import scipy.stats

from mbench.report.statistics.resampling import Stratum


def right_or_wrong(rng, chances, items=(80, 50, 120)):
    """Strata of outcomes 0 and 1 of methods that share the difficulty of each item."""
    strata = []
    for count in items:
        difficulty = rng.normal(0, 1, (count, 1))
        ability = rng.normal(0, 0.7, (count, len(chances))) + scipy.stats.norm.ppf(chances) * 1.5
        strata.append(Stratum((ability > difficulty).astype(float), np.ones(count)))
    return strata
