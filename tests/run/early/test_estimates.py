"""Estimates from some of the items: unbiased, and within their intervals as often as they say."""

import math

import numpy as np
import pandas as pd
import pytest

from mbench.core.evaluation import evaluation
from mbench.run.early.adjustment import adjusted, ridge
from mbench.run.early.population import Population
from mbench.run.early.verdict import standing, verdict
from mbench.run.looks import error_share, looks_of

ORDERS = 300


def answers(random, count, lost, won, right=0.6):
    """The unpruned model's right and wrong answers, and a mask's that differ in so many."""
    full = (random.random(count) < right).astype(float)
    mask = full.copy()
    mask[random.choice(np.flatnonzero(full == 1), round(lost * count), replace=False)] = 0
    mask[random.choice(np.flatnonzero(full == 0), round(won * count), replace=False)] = 1
    return [
        pd.DataFrame({"item": [str(n) for n in range(count)], "acc": each}) for each in (full, mask)
    ]


def losses(random, count, tails):
    """Windows of two models, whose losses differ with long or one-sided tails."""
    tokens = random.integers(200, 400, count)
    each = random.normal(3, 0.6, count)
    noise = {
        "normal": random.standard_normal,
        "long": lambda n: random.standard_t(3, n),
        "one-sided": lambda n: random.lognormal(0, 1.2, n),
    }[tails](count)
    shared = {"item": [f"0:{n}" for n in range(count)], "document": range(count)}
    rest = {"tokens": tokens, "bytes": tokens * 4}
    return [
        pd.DataFrame({**shared, "nll": tokens * value, **rest})
        for value in (each, each + 0.2 + 0.1 * noise)
    ]


def value(table, metric):
    return next(each.value for each in evaluation("t", table).metrics if each.name == metric)


def share_within(random, full, mask, metric, others=()):
    """Of random orders, those in which every look's interval has the figure of all items.

    `others`: masks with all items, beside the unpruned model.
    """
    count = len(full)
    population = Population(full, np.arange(count), metric)
    predictors = np.concatenate([population.told_by(each) for each in (full, *others)], 1)
    truth, within = value(mask, metric), 0
    for order in range(ORDERS):
        looks = looks_of(full["item"].tolist(), range(count), {"order": order})
        good = True
        for made in range(1, len(looks)):
            tables = [mask.iloc[look] for look in looks[:made]]
            found = verdict(population, tables, predictors, error_share(len(looks), made), 1, 1)
            low, high = map(population.shown, found.own)
            good &= low - 1e-12 <= truth <= high + 1e-12
        within += good
    assert len(looks) > 1
    return within / ORDERS


def nearly(nominal):
    """One point less, and three errors of the measurement."""
    return nominal - 0.01 - 3 * math.sqrt(nominal * (1 - nominal) / ORDERS)


@pytest.mark.parametrize(
    ("count", "lost", "won"),
    [(400, 0.01, 0), (400, 0.05, 0.01), (400, 0.2, 0.1), (1500, 0.004, 0), (1500, 0.1, 0.1)],
)
def test_right_and_wrong_answers_are_within_over_all_looks(count, lost, won):
    random = np.random.default_rng(count)
    assert share_within(random, *answers(random, count, lost, won), "acc") >= nearly(0.95)


@pytest.mark.parametrize("tails", ["normal", "long", "one-sided"])
def test_losses_are_within_over_all_looks(tails):
    random = np.random.default_rng(7)
    assert share_within(random, *losses(random, 600, tails), "perplexity") >= nearly(0.95)


def test_weighted_items_are_within_over_all_looks():
    random = np.random.default_rng(3)
    tables = answers(random, 500, 0.1, 0.05)
    weight = np.repeat([1.0, 0.2, 0.0], [100, 380, 20])
    weighted = [table.assign(weight=weight) for table in tables]
    assert share_within(random, *weighted, "acc") >= nearly(0.95)


def scores(random, count, shape):
    """Two models' scores up to 100, which many items have none of, or below and above zero."""
    full = random.uniform(0, 60, count)
    mask = np.clip(full - 5 + random.normal(0, 8, count), 0, 100)
    if shape == "mostly 0":
        mask *= random.random(count) < 0.1
    if shape == "signed":
        full, mask = full - 30, mask - 30
    return [
        pd.DataFrame({"item": [str(n) for n in range(count)], "bleu": each})
        for each in (full, mask)
    ]


@pytest.mark.parametrize("shape", ["any", "mostly 0", "signed"])
def test_scores_beyond_1_are_within_over_all_looks(shape):
    random = np.random.default_rng(5)
    assert share_within(random, *scores(random, 400, shape), "bleu") >= nearly(0.95)


def test_scores_of_nothing_but_0_leave_doubt():
    full, mask = scores(np.random.default_rng(0), 400, "any")
    population = Population(full, np.arange(400), "bleu")
    first = mask.iloc[:120].assign(bleu=0.0)
    found = verdict(population, [first], population.told_by(full), 1 / 3, 1, 1)
    assert found.own[0] < found.mean < found.own[1]
    assert found.half > 0.1


def test_equal_and_constant_predictors_and_a_mask_of_equal_outcomes_hide_no_error():
    random = np.random.default_rng(11)
    full, mask = answers(random, 400, 0.03, 0.01)
    constant = full.assign(acc=1.0)
    nearly_equal = mask.copy()
    nearly_equal.loc[[5, 300], "acc"] = 1 - nearly_equal.loc[[5, 300], "acc"]
    others = (full, constant, nearly_equal, nearly_equal)
    assert share_within(random, full, mask, "acc", others) >= nearly(0.95)


def test_the_looks_of_a_task_share_all_of_the_error():
    for looks, first in ((2, 1.0), (3, 0.5), (4, 1 / 6)):
        shares = [error_share(looks, made) for made in range(1, looks)]
        assert sum(shares) == pytest.approx(1)
        assert shares[0] == pytest.approx(first)


def test_an_interval_of_answers_that_never_differ_is_not_empty():
    full, _ = answers(np.random.default_rng(0), 400, 0.1, 0)
    population = Population(full, np.arange(400), "acc")
    found = verdict(population, [full.iloc[:160]], population.told_by(full), 0.5, 1, 1)
    # With 1.5 % lost, none is among 160 of 400 in a twentieth of all orders.
    assert found.own[0] < full["acc"].mean() - 0.012
    assert found.half > 0.006


def test_a_figure_of_which_items_are_missing_is_not_known():
    full, mask = answers(np.random.default_rng(0), 400, 0.1, 0)
    mask.loc[3, "acc"] = np.nan
    population = Population(full, np.arange(400), "acc")
    found = verdict(population, [mask.iloc[:160]], population.told_by(full), 0.5, 1, 1)
    assert math.isinf(found.half)


def test_the_regression_is_that_of_least_error_on_items_left_out():
    random = np.random.default_rng(1)
    known = random.normal(size=(30, 4)) * [1, 10, 0.1, 0]
    values = known @ [1, 0.2, 0, 0] + random.normal(size=30)
    centred = (known - known.mean(0)) / np.where(known.std(0) > 0, known.std(0), 1)

    def fit(x, y, penalty):
        return np.linalg.solve(x.T @ x + penalty * np.eye(4), x.T @ y)

    def left_out(penalty):
        errors = []
        for one in range(30):
            # One weight for all but the item left out, as penalty and scale are those of all.
            others = np.arange(30) != one
            x = np.c_[np.ones(29), centred[others]]
            shrunk = np.linalg.solve(
                x.T @ x + penalty * np.diag([0, 1, 1, 1, 1]), x.T @ values[others]
            )
            errors.append((values[one] - shrunk[0] - centred[one] @ shrunk[1:]) ** 2)
        return np.mean(errors)

    penalties = 30 * np.logspace(-3, 2, 11)
    best = min(penalties, key=left_out)
    slopes, (level,) = ridge(known, values[:, None])
    slope = slopes[:, 0]
    expected = fit(centred, values - values.mean(), best)
    assert slope * np.where(known.std(0) > 0, known.std(0), 0) == pytest.approx(expected)
    assert level + known.mean(0) @ slope == pytest.approx(values.mean())


def test_estimates_have_no_bias_and_end_at_the_mean():
    random = np.random.default_rng(2)
    known = random.lognormal(size=(80, 3))
    values = (known**2).sum(1)  # which no line predicts
    means = []
    for _ in range(2000):
        sample = random.permutation(80)[:30]
        means.append(adjusted(values[sample, None], sample, known, random).means[0])
    error = np.std(means) / math.sqrt(len(means))
    assert abs(np.mean(means) - values.mean()) < 4 * error
    every = random.permutation(80)
    assert adjusted(values[every, None], every, known, random).means[0] == pytest.approx(
        values.mean()
    )


@pytest.mark.parametrize("metric", ["perplexity", "mean_nll", "bits_per_byte"])
def test_parts_of_a_text_make_its_figure(metric):
    full, mask = losses(np.random.default_rng(0), 50, "normal")
    window = np.arange(50) // 2
    population = Population(full, window, metric)
    units, parts = population.parts(mask.sample(frac=1, random_state=1))
    assert units.tolist() == list(range(25))
    assert population.shown(parts.mean()) == pytest.approx(value(mask, metric))


def test_masks_are_told_apart_by_intervals_that_hold_at_once():
    intervals = {"best": (0.6, 0.7), "second": (0.55, 0.65), "out": (0.3, 0.58), "last": (0.1, 0.2)}
    found = standing(intervals, lower_is_better=False)
    assert found == {"out": "hopeless", "last": "settled"}
    found = standing(intervals, lower_is_better=True)
    assert found == {"best": "hopeless", "second": "hopeless", "out": "hopeless", "last": "settled"}
    assert standing({"alone": (0, 1)}, lower_is_better=False) == {}
    seeds = {"out": {"out", "best"}, "second": {"second", "out"}}
    assert standing(intervals, lower_is_better=False, seeds=seeds) == {"last": "settled"}
    assert standing(intervals, lower_is_better=True, seeds=seeds) == found


def test_looks_are_random_and_the_same_for_everybody():
    names = [f"item {n}" for n in range(1000)]
    looks = looks_of(names, range(1000), {"task": "a"})
    assert [len(look) for look in looks] == [100, 200, 300, 400]
    assert sorted(n for look in looks for n in look) == list(range(1000))
    assert looks == looks_of(names, range(1000), {"task": "a"})
    assert looks != looks_of(names, range(1000), {"task": "b"})
    # Neither the first of the items nor every tenth.
    assert 400 < np.mean(looks[0]) < 600
    assert len(looks_of(names[:150], range(150), {})) == 1
    pairs = looks_of(names, [n // 2 for n in range(1000)], {})
    assert all(n + 1 in look for look in pairs for n in look if n % 2 == 0)
