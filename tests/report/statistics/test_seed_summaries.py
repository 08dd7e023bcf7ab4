"""Figures over seeds, against scipy."""

import math

import numpy as np
import pytest
import scipy.stats

from mbench.report.statistics.seed_summaries import Summary, seed_error, summarize


def test_summary_uses_the_sample_deviation():
    found = summarize([1.0, 2.0, 4.0])
    assert found == Summary(7 / 3, pytest.approx(math.sqrt(7 / 3)), 1.0, 4.0, 3)
    assert math.isnan(summarize([2.0]).std)
    assert math.isnan(summarize([2.0, math.inf]).std)


def test_the_variance_of_two_seeds_is_not_split():
    two, three = np.array([0.4, 0.5]), np.array([0.4, 0.5, 0.45])
    assert seed_error(two, 1.0) == pytest.approx(scipy.stats.sem(two))
    assert seed_error(three, 1.0) == 0.0
    assert seed_error(three, 0.0) == pytest.approx(scipy.stats.sem(three))
