"""Metrics are functions of the per-item table, with the errors that resampling would give."""

import math

import numpy as np
import pandas as pd
import pytest

from mbench.evaluate.outcome import evaluation


def metrics(table):
    return {metric.name: metric for metric in evaluation("task", table).metrics}


def test_means_of_numeric_columns_only():
    table = pd.DataFrame(
        {
            "item": ["a", "b", "c", "d"],
            "subtask": ["s", "s", "t", "t"],
            "acc": [1.0, 0.0, 1.0, 1.0],
            "exact_match,strict": [0.0, 0.0, math.nan, math.nan],
            "loglikelihoods": [[-1.0], [-2.0], [-3.0], [-4.0]],
        }
    )
    found = metrics(table)
    assert list(found) == ["acc", "exact_match,strict"]
    assert (found["acc"].value, found["acc"].items) == (0.75, 4)
    assert found["acc"].stderr == pytest.approx(math.sqrt(0.25 / 4))
    # In a group, tasks without the metric take no part in it.
    assert found["exact_match,strict"].items == 2
    assert math.isnan(metrics(table[:1])["acc"].stderr)


def test_perplexity_and_its_error():
    random = np.random.default_rng(0)
    tokens = random.integers(20, 60, 400)
    nll = tokens * random.normal(3.0, 0.5, 400)
    table = pd.DataFrame({"item": range(400), "nll": nll, "tokens": tokens, "bytes": 4 * tokens})
    found = metrics(table)
    mean = nll.sum() / tokens.sum()
    assert found["mean_nll"].value == pytest.approx(mean)
    assert found["perplexity"].value == pytest.approx(math.exp(mean))
    assert found["bits_per_byte"].value == pytest.approx(mean / 4 / math.log(2))
    draws = random.integers(0, 400, (4000, 400))
    resampled = nll[draws].sum(1) / tokens[draws].sum(1)
    assert found["mean_nll"].stderr == pytest.approx(resampled.std(), rel=0.05)
    assert found["perplexity"].stderr == pytest.approx(np.exp(resampled).std(), rel=0.05)
    assert all(isinstance(metric.value, float) for metric in found.values())


def test_one_window_has_no_error_and_huge_losses_no_figure():
    found = metrics(pd.DataFrame({"item": ["w"], "nll": [9000.0], "tokens": [9], "bytes": [30]}))
    assert found["perplexity"].value == math.inf
    assert math.isnan(found["mean_nll"].stderr)
