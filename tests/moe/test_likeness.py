"""How often an expert is taken for another, over seeds, and what mergers are called."""

from __future__ import annotations

import numpy as np
import pytest

from mbench.moe.recognition.likeness import SAMPLE, LayerSample, places

EXPERTS = 32


def layer(generator, common):
    """Matrices and biases of very different sizes; `common` times their own is in all of them."""
    shared = {"matrix": generator.normal(size=2000), "bias": generator.normal(size=40)}
    sizes = {"matrix": 0.02, "bias": 3.0}
    return [
        {
            name: size * (common * shared[name] + generator.normal(size=len(shared[name])))
            for name, size in sizes.items()
        }
        for _ in range(EXPERTS)
    ]


def mixed(experts, weights, noise, generator):
    made = {}
    for name in experts[0]:
        values = sum(weight * experts[number][name] for number, weight in weights.items())
        spread = noise * np.sqrt(np.mean(values**2))
        made[name] = values + spread * generator.normal(size=len(values))
    return made


@pytest.mark.parametrize(
    ("common", "noise", "known"), [(0, 0.05, 1.0), (0, 0.2, 1.0), (3, 0.05, 1.0), (30, 0.2, 0.0)]
)
def test_no_expert_is_taken_for_another_whatever_the_seed(common, noise, known):
    """Of experts alike beyond what the noise leaves, none is named rather than a wrong one."""
    right = wrong = other = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        experts = layer(generator, common)
        sample = LayerSample(experts)
        for number in range(0, EXPERTS, 4):
            found = sample.likeness(mixed(experts, {number: 1.0}, noise, generator))
            right += found.expert == number
            wrong += found.expert not in (number, None)
            if found.expert == number:
                assert found.change == pytest.approx(noise, rel=0.2)
        strange = layer(np.random.default_rng(1000 + seed), common)[0]
        other += sample.likeness(strange).expert is not None
    assert (wrong, other) == (0, 0)
    assert right == known * 20 * EXPERTS / 4


def test_a_merger_names_its_parts_and_their_weights():
    generator = np.random.default_rng(0)
    experts = layer(generator, 1)
    sample = LayerSample(experts)
    found = sample.likeness(mixed(experts, {4: 0.6, 9: 0.4}, 0.0, generator))
    assert (found.expert, found.problem) == (None, "is a merger: 0.60 x 4 + 0.40 x 9")
    found = sample.likeness(mixed(experts, {4: 0.6, 9: 0.4}, 0.1, generator))
    assert found.problem.startswith("is a merger: 0.6")
    assert found.problem.endswith("(10 % unexplained)")
    every = mixed(experts, dict.fromkeys(range(EXPERTS), 1 / EXPERTS), 0.0, generator)
    assert sample.likeness(every).problem == "is like no single one of the full model's"


def test_weights_are_those_of_least_squares():
    generator = np.random.default_rng(1)
    experts = layer(generator, 0.5)
    weights = {2: 0.5, 3: 0.3, 5: 0.2}
    mine = mixed(experts, weights, 0.02, generator)
    scales = {n: np.sqrt(np.mean([e[n] ** 2 for e in experts])) for n in ("bias", "matrix")}
    matrix = np.stack([np.concatenate([e[n] / scales[n] for n in scales]) for e in experts], 1)
    solved, *_ = np.linalg.lstsq(matrix, np.concatenate([mine[n] / scales[n] for n in scales]))
    terms = " + ".join(f"{solved[number]:.2f} x {number}" for number in weights)
    assert terms in LayerSample(experts).likeness(mine).problem


def test_places_are_the_same_everywhere_and_meet_all_columns_of_a_matrix():
    chosen = places(768 * 2048)
    np.testing.assert_array_equal(chosen, places(768 * 2048))
    assert 0.99 * SAMPLE < len(chosen) <= SAMPLE
    assert len(set((chosen % 2048).tolist())) > 0.95 * 2048
    np.testing.assert_array_equal(places(7), np.arange(7))
