"""Metrics are functions of the per-item table, with the errors that resampling would give."""

import math

import numpy as np
import pandas as pd
import pytest

from mbench.core.evaluation import blocks, evaluation


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


def test_weighted_items_give_the_mean_of_means_with_the_error_that_resampling_gives():
    random = np.random.default_rng(0)
    member = np.repeat([0, 1], [40, 200])
    acc = (random.random(240) < np.where(member == 0, 0.8, 0.4)) * 1.0
    weight = np.where(member == 0, 1.0, 0.2)
    items = [str(number) for number in range(240)]
    found = metrics(pd.DataFrame({"item": items, "acc": acc, "weight": weight}))
    assert list(found) == ["acc"]
    assert found["acc"].value == pytest.approx((acc[:40].mean() + acc[40:].mean()) / 2)
    drawn = random.integers(240, size=(4000, 240))
    resampled = (acc * weight)[drawn].sum(axis=1) / weight[drawn].sum(axis=1)
    assert found["acc"].stderr == pytest.approx(resampled.std(), rel=0.05)


def test_perplexity_and_its_error_over_documents():
    random = np.random.default_rng(0)
    document = np.repeat(np.arange(200), 2)
    tokens = random.integers(20, 60, 400)
    nll = tokens * (random.normal(3.0, 0.5, 400) + random.normal(0.0, 0.5, 200)[document])
    names = [f"{d}:{100 * n}" for n, d in enumerate(document)]
    table = pd.DataFrame({"item": names, "nll": nll, "tokens": tokens, "bytes": 4 * tokens})
    found = metrics(table)
    mean = nll.sum() / tokens.sum()
    assert found["mean_nll"].value == pytest.approx(mean)
    assert found["perplexity"].value == pytest.approx(math.exp(mean))
    assert found["bits_per_byte"].value == pytest.approx(mean / 4 / math.log(2))
    assert found["perplexity"].items == 400
    draws = random.integers(0, 200, (4000, 200))
    sums = [column.reshape(200, 2).sum(1)[draws].sum(1) for column in (nll, tokens)]
    resampled = sums[0] / sums[1]
    assert found["mean_nll"].stderr == pytest.approx(resampled.std(), rel=0.05)
    assert found["perplexity"].stderr == pytest.approx(np.exp(resampled).std(), rel=0.05)
    assert all(isinstance(metric.value, float) for metric in found.values())


def test_blocks_are_neighbours_of_one_document_in_any_order():
    few = [f"{text}:{512 * n}" for text in (7, 2) for n in range(4)]  # 2 = round(8 ** (1 / 3))
    assert list(blocks(few)) == [2, 2, 3, 3, 0, 0, 1, 1]
    many = [f"{text}:{n}" for text in range(9) for n in range(3)]  # 3 = round(27 ** (1 / 3))
    assert list(blocks(many)) == [n // 3 for n in range(27)]
    names = [f"0:{256 * n}" for n in range(28)]  # 3 = round(28 ** (1 / 3))
    assert list(blocks(names)) == [n // 3 for n in range(28)]
    order = np.random.default_rng(0).permutation(28)
    assert list(blocks([names[n] for n in order])) == [n // 3 for n in order]
    assert list(blocks(["0:1", "0:300"])) == [0, 1]
    # Documents of a rolling task of lm-eval are whole.
    assert list(blocks(["0:ab:cd:ef", "1:ab:cd:01", "2:12:34:56"])) == [0, 1, 2]


def test_error_holds_where_neighbouring_windows_are_alike():
    """Windows as a first-order autoregression, as alike as the quickstart's: 0.2 at lag 1."""
    random = np.random.default_rng(1)
    shocks = random.normal(0.0, 1.0, (300, 1000))
    series = np.empty_like(shocks)
    series[0] = shocks[0] / math.sqrt(1 - 0.2**2)
    for n in range(1, 300):
        series[n] = 0.2 * series[n - 1] + shocks[n]
    names = [f"0:{n}" for n in range(300)]
    ones = np.ones(300)
    outside = 0
    for column in series.T:
        table = pd.DataFrame({"item": names, "nll": column, "tokens": ones, "bytes": ones})
        figure = metrics(table)["mean_nll"]
        outside += abs(figure.value) > 1.96 * figure.stderr
    assert outside / 1000 < 0.08  # windows by themselves: 0.118


def test_one_window_has_no_error_and_huge_losses_no_figure():
    found = metrics(pd.DataFrame({"item": ["0:1"], "nll": [9000.0], "tokens": [9], "bytes": [30]}))
    assert found["perplexity"].value == math.inf
    assert math.isnan(found["mean_nll"].stderr)
