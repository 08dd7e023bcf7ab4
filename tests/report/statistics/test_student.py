"""Student's distribution against `scipy.stats`, which is not loaded for a report."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from scipy import stats

from mbench.report.statistics.student import quantile, upper_tail

FREEDOM = np.array([0.0, -1.0, np.nan, 0.3, 1.0, 2.5, 5.0, 38.2, 299.0, 1e6, np.inf])


def test_tails_are_those_of_scipy_to_the_last_bit():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_cauchy(500), [0.0, -0.0, np.inf, -np.inf, np.nan]])
    grid = np.meshgrid(values, FREEDOM)
    np.testing.assert_array_equal(upper_tail(*grid), stats.t.sf(*grid))


def test_quantiles_are_those_of_scipy_to_the_last_bit():
    rng = np.random.default_rng(0)
    tails = np.concatenate([rng.random(300), 10.0 ** -np.arange(1, 18), [0.0, 0.5, 1.0, np.nan]])
    grid = np.meshgrid(tails, FREEDOM)
    np.testing.assert_array_equal(quantile(*grid), stats.t.isf(*grid))
    np.testing.assert_array_equal(quantile(0.025, FREEDOM), stats.t.isf(0.025, FREEDOM))


def test_a_report_loads_no_distributions():
    code = (
        "import sys; from mbench.report.publish import publish; import mbench.report.statistics.gap"
        "; from mbench.report.statistics.student import quantile; quantile(0.1, 5.0)"
        "; assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
