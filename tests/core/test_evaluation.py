"""Metrics are functions of the per-item table, with the errors that resampling would give."""

import math

import numpy as np
import pandas as pd
import pytest

from mbench.core.evaluation import changed_predictions, evaluation, with_changes


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
    table = pd.DataFrame(
        {"item": names, "document": document, "nll": nll, "tokens": tokens, "bytes": 4 * tokens}
    )
    found = metrics(table)
    mean = nll.sum() / tokens.sum()
    assert found["mean_nll"].value == pytest.approx(mean)
    assert found["perplexity"].value == pytest.approx(math.exp(mean))
    assert found["bits_per_byte"].value == pytest.approx(mean / 4 / math.log(2))
    assert found["perplexity"].items == 200
    draws = random.integers(0, 200, (4000, 200))
    sums = [column.reshape(200, 2).sum(1)[draws].sum(1) for column in (nll, tokens)]
    resampled = sums[0] / sums[1]
    assert found["mean_nll"].stderr == pytest.approx(resampled.std(), rel=0.05)
    assert found["perplexity"].stderr == pytest.approx(np.exp(resampled).std(), rel=0.05)
    assert all(isinstance(metric.value, float) for metric in found.values())


def test_one_window_has_no_error_and_huge_losses_no_figure():
    found = metrics(
        pd.DataFrame(
            {"item": ["0:1"], "document": [0], "nll": [9000.0], "tokens": [9], "bytes": [30]}
        )
    )
    assert found["perplexity"].value == math.inf
    assert math.isnan(found["mean_nll"].stderr)


def test_changed_predictions_are_counted_over_tokens_and_only_of_the_same_items():
    random = np.random.default_rng(0)
    lengths = [3, 40, 1]
    table = pd.DataFrame({"item": ["0:1", "0:4", "1:1"], "document": [0, 1, 2]})
    table = table.assign(nll=[9.0, 99.0, 2.0], tokens=lengths, bytes=lengths)
    tops = [[random.integers(0, 3, n).astype(np.int32) for n in lengths] for _ in range(2)]
    first, second = (evaluation("text", table.assign(top=top)) for top in tops)
    changed = [
        a != b for one, other in zip(*tops, strict=True) for a, b in zip(one, other, strict=True)
    ]
    counted = with_changes(first, second)
    assert changed_predictions(counted) == pytest.approx(sum(changed) / 44)
    assert counted.metrics == first.metrics
    assert "top" not in counted.items
    assert changed_predictions(with_changes(first, first)) == 0
    assert changed_predictions(with_changes(evaluation("text", table), first)) is None
    others = evaluation("text", first.items.assign(item=["0:1", "0:4", "1:2"]))
    for full in (others, evaluation("text", table), None):
        assert changed_predictions(with_changes(first, full)) is None
