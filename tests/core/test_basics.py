"""The selector and the mask builder that most methods share."""

from __future__ import annotations

import numpy as np
import pytest

import mbench
from helpers.synthetic import budget, scores


def test_top_k_takes_the_lower_index_of_equals():
    values = np.array([[1.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, -0.0]])
    chosen = mbench.TopK().select({"c": scores(values)}, budget(2, 4, 2), None).chosen
    assert chosen.tolist() == [[False, True, True, False], [True, True, False, False]]


def test_top_k_takes_one_corpus():
    given = scores(np.ones((1, 2)))
    with pytest.raises(mbench.PluginError, match="takes scores of one corpus, got 2"):
        mbench.TopK().select({"a": given, "b": given}, budget(1, 2, 1), None)


def test_parameters_are_strict_and_frozen():
    class Mine(mbench.Scorer):
        """One parameter."""

        name = "mine"

        class Params(mbench.Parameters):
            power: int = 2

        def score(self, profile):
            return np.zeros((1, 1))

    assert Mine(power=3).identity != Mine().identity
    assert Mine().identity == Mine(power=2).identity
    with pytest.raises(ValueError, match="powr"):
        Mine(powr=3)
    with pytest.raises(ValueError, match="frozen"):
        Mine().params.power = 4


def test_public_names_all_exist():
    for name in mbench.__all__:
        assert getattr(mbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mbench.nothing  # noqa: B018
