"""Figures beside those of random seeds, by hand."""

import pytest

from mbench.report.statistics.against_random import reversing_seeds, worse_seeds


def test_a_single_seed_as_the_baseline_can_turn_the_conclusion():
    """The published case (arXiv 2607.01710, Qwen 75 %): mean 0.645, method 0.662, seed 42 0.669."""
    seeds = [0.604, 0.62, 0.61, 0.69, 0.677, 0.669]
    assert sum(seeds) / 6 == pytest.approx(0.645)
    assert worse_seeds(0.662, seeds) == 3
    assert reversing_seeds(0.662, seeds) == [3, 4, 5]
    assert reversing_seeds(0.64, seeds) == [0, 1, 2]
    assert reversing_seeds(0.7, seeds) == []
    assert worse_seeds(0.669, seeds) == 3  # an equal one is not beaten, and turns nothing
    assert reversing_seeds(0.669, seeds) == [3, 4]
    third = (0.1 + 0.2) / 3  # not exactly 0.1, but equal
    assert worse_seeds(third, [0.1, 0.05]) == 1
    assert reversing_seeds(0.1, [third, 0.2, 0.2]) == []
    assert worse_seeds(3.0, [2.0, 3.0, 4.0, 5.0], higher=False) == 2
