"""Flips and divergences against loops over items."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from helpers.small_runs import cell
from mbench.core.evaluation import evaluation
from mbench.report.statistics.disagreements import choice_divergence, items_won
from mbench.report.statistics.strata import Stratum


def with_choices(seed, right, lengths):
    random = np.random.default_rng(seed)
    made = cell("m", "alpha", None, 0.5)
    table = pd.DataFrame(
        {
            "item": [f"quiz/{n}" for n in range(len(lengths))],
            "acc": right,
            "loglikelihoods": [tuple(random.normal(-20, 5, length)) for length in lengths],
        }
    )
    made.evaluations["quiz"] = evaluation("quiz", table)
    return made


def test_items_won():
    right = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 0], [1, 1, 0]], float)
    won = items_won([Stratum(right, np.ones(5)), Stratum(right * 0.5, np.full(5, 0.5))], [[0], [1]])
    assert won.tolist() == [[0, 2], [4, 0]]
    several = items_won([Stratum(right, np.ones(5))], [[0], [1, 2]])
    assert np.isnan(several).tolist() == [[False, True], [True, True]]
    assert items_won([Stratum(right * 0.3, np.ones(5))], [[0], [1]]) is None


def test_divergence_of_choices_by_scipy():
    lengths = [2, 4, 5, 4]
    full, pruned = (with_choices(seed, [1.0] * 4, lengths) for seed in (0, 1))
    tables = [own.evaluations["quiz"].items["loglikelihoods"] for own in (full, pruned)]
    naive = []
    for before, after in zip(*tables, strict=True):
        p, q = (np.exp(np.array(logs) - max(logs)) for logs in (before, after))
        naive.append(scipy.stats.entropy(p / p.sum(), q / q.sum()))
    assert choice_divergence(full, pruned, "quiz") == pytest.approx(math.fsum(naive) / 4)
    assert choice_divergence(full, full, "quiz") == 0.0
    # With acc_mutual_info every choice is scored once more, without its question.
    for own in (full, pruned):
        table = own.evaluations["quiz"].items
        twice = [(*logs, *np.linspace(-9, -1, len(logs))) for logs in table["loglikelihoods"]]
        table = table.assign(loglikelihoods=twice, acc_mutual_info=1.0)
        own.evaluations["quiz"] = evaluation("quiz", table)
    assert choice_divergence(full, pruned, "quiz") == pytest.approx(math.fsum(naive) / 4)
    assert choice_divergence(full, pruned, "ppl") is None
