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
    """An estimate from a simple random sample of units without replacement."""

    mean: float
    """Of all units."""
    residuals: np.ndarray
    """float64 [n], by how much the outcomes differ from what was predicted without them."""


def adjusted(
    values: np.ndarray, sample: np.ndarray, predictors: np.ndarray, rng: np.random.Generator
) -> Adjusted:
    """Estimate the mean over all units from the outcomes of some.

    Args:
        values: float64 [n], of the sample.
        sample: int64 [n], its units.
        predictors: float64 [N, p], of all units.
        rng: puts the sample into folds.

    The sample's own outcomes count as they are; of every other unit the prediction counts, shifted
    by the residuals' mean. Each fold's residuals and the unseen units are exchangeable given the
    other folds that its regression was fitted on, hence no bias. With all units it is their mean.
    """
    count, total = len(values), len(predictors)
    residuals = np.empty(count)
    unseen = np.ones(total, bool)
    unseen[sample] = False
    folds = rng.permutation(count) % FOLDS
    predicted = 0.0
    for fold in range(FOLDS):
        inside = folds == fold
        slope, level = ridge(predictors[sample[~inside]], values[~inside])
        residuals[inside] = values[inside] - predictors[sample[inside]] @ slope - level
        share = inside.sum() / count
        predicted += share * (predictors[unseen] @ slope + level).sum()
    left = total - count
    mean = (values.sum() + predicted + left * residuals.mean()) / total
    return Adjusted(float(mean), residuals)


def ridge(predictors: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Slopes [p] and level; the penalty is that of least squared error on items left out singly.

    Without a penalty on the level, and on standardised predictors.
    """
    centre, level = predictors.mean(0), float(values.mean())
    spread = predictors.std(0)
    spread[spread <= 1e-12 * (1 + np.abs(centre))] = np.inf  # constant: tells nothing
    left, strengths, right = np.linalg.svd((predictors - centre) / spread, full_matrices=False)
    count = len(values)
    along = left.T @ (values - level)
    errors = []
    for penalty in count * PENALTIES:
        shrunk = strengths**2 / (strengths**2 + penalty)
        own = left**2 @ shrunk + 1 / count
        errors.append(np.mean(((values - level - left @ (shrunk * along)) / (1 - own)) ** 2))
    penalty = count * PENALTIES[int(np.argmin(errors))]
    slope = right.T @ (strengths / (strengths**2 + penalty) * along) / spread
    return slope, level - float(centre @ slope)
