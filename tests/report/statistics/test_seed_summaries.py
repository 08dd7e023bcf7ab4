"""Figures over seeds, against scipy."""

import math

import pytest

from mbench.report.statistics.seed_summaries import Summary, summarize


def test_summary_uses_the_sample_deviation():
    found = summarize([1.0, 2.0, 4.0])
    assert found == Summary(7 / 3, pytest.approx(math.sqrt(7 / 3)), 1.0, 4.0, 3)
    assert math.isnan(summarize([2.0]).std)
    assert math.isnan(summarize([2.0, math.inf]).std)
