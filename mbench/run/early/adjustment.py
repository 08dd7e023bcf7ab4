"""What a mask's outcomes would be on items that it has not seen, predicted from others' outcomes.

A regression is fitted on some of a mask's items and never judged on them, so that the estimate is
unbiased however poor it is (Särndal, Swensson and Wretman 1992, *Model Assisted Survey Sampling*,
chapter 6; cross-fitting as in Chernozhukov et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOLDS = 5
PENALTIES = np.logspace(-3, 2, 11)
"""Ridge penalties that are tried, in units of the number of items."""


@dataclass(frozen=True)
class Adjusted:
    """Estimates of several masks from one simple random sample of units without replacement."""

    means: np.ndarray
    """float64 [m], of all units."""
    residuals: np.ndarray
    """float64 [n, m], by how much the outcomes differ from what was predicted without them."""


def adjusted(
    values: np.ndarray, sample: np.ndarray, predictors: np.ndarray, rng: np.random.Generator
) -> Adjusted:
    """Estimate means over all units from the outcomes of some.

    Args:
        values: float64 [n, m], of the sample.
        sample: int64 [n], its units.
        predictors: float64 [N, p], of all units.
        rng: puts the sample into folds.

    The sample's own outcomes count as they are; of every other unit the prediction counts, shifted
    by the residuals' mean. Each fold's residuals and the unseen units are exchangeable given the
    other folds that its regression was fitted on, hence no bias. With all units it is their mean.
    """
    count, total = len(values), len(predictors)
    residuals = np.empty(values.shape)
    unseen = np.ones(total, bool)
    unseen[sample] = False
    left = total - count
    unseen_sum = predictors[unseen].sum(0)
    folds = rng.permutation(count) % FOLDS
    predicted = np.zeros(values.shape[1])
    for fold in range(FOLDS):
        inside = folds == fold
        slopes, levels = ridge(predictors[sample[~inside]], values[~inside])
        residuals[inside] = values[inside] - predictors[sample[inside]] @ slopes - levels
        predicted += inside.sum() / count * (unseen_sum @ slopes + left * levels)
    means = (values.sum(0) + predicted + left * residuals.mean(0)) / total
    return Adjusted(means, residuals)


def ridge(predictors: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes [p, m] and levels [m] for values [n, m].

    Each with the penalty of least squared error on items left out singly; without a penalty on the
    level, and on standardised predictors.
    """
    centre, level = predictors.mean(0), values.mean(0)
    spread = predictors.std(0)
    spread[spread <= 1e-12 * (1 + np.abs(centre))] = np.inf  # constant: tells nothing
    left, strengths, right = np.linalg.svd((predictors - centre) / spread, full_matrices=False)
    count = len(values)
    centred = values - level
    along = left.T @ centred
    errors = []
    for penalty in count * PENALTIES:
        shrunk = strengths**2 / (strengths**2 + penalty)
        own = (left**2 @ shrunk + 1 / count)[:, None]
        errors.append((((centred - left @ (shrunk[:, None] * along)) / (1 - own)) ** 2).mean(0))
    penalties = count * PENALTIES[np.argmin(errors, axis=0)]
    factors = strengths[:, None] / (strengths[:, None] ** 2 + penalties)
    slopes = right.T @ (factors * along) / spread[:, None]
    return slopes, level - centre @ slopes
