"""EvoESAP: how many experts each layer keeps is evolved, which ones a ranking decides.

    fitness(counts) = mean over tokens of sum over the vocabulary of min(p, q)

p are the full model's probabilities and q those of the model that keeps the `counts[l]` best
experts of layer l: the expected acceptance of speculative decoding (ESAP). The population begins
with equal counts and random ones of the same sum; the best `survivors` stay, and each other place
goes to a survivor in which a few experts were moved from one layer to another. The best counts
that were ever tried are kept.

Source: arXiv 2603.06003 and ZongfangLiu/EvoESAP (src/reap/search_utils.py: `evolutionary_search`,
`mutate_plan`, fitness `esp-dataset`). Defaults are those of its README's example, but for the
generations, of which it has 50. Its initial patterns beside equal and random counts are left out,
and its random counts share out what is dropped, these what is kept beyond the fewest; it tries
random plans until `mutation_max_attempts` for a switch that is possible, here only
possible ones are drawn. Fitness is the mean over the method's calibration corpora.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

import mbench

from .aggregation import AggregateParams, Normalize, aggregate
from .uneven_layers import best_by_count, check_uneven, fewest_per_group

Counts = tuple[int, ...]
"""Experts that each layer keeps, in units of the groups that its router is limited to."""


class EvolutionParams(mbench.SearchParameters):
    """The evolution, and how scores on several corpora become one ranking."""

    population: int = Field(default=32, ge=2)
    generations: int = Field(default=10, ge=1)
    survivors: int = Field(default=4, ge=1)
    switches: int = Field(default=3, ge=1)
    """Most moves of experts from one layer to another in a child; how many is the lesser of two
    draws, so that few are likelier."""
    moved: int = Field(default=4, ge=1)
    """Most experts in one move."""
    normalize: Normalize = "none"
    """Of the scores on each corpus, before their mean ranks the experts of a layer."""


class Evolution(mbench.MaskSearch):
    """Layer counts by evolution on the agreement with the full model."""

    name = "evolution"
    layers = "any"
    stochastic = True
    Params = EvolutionParams
    params: EvolutionParams

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where no counts add up to the budget's total."""
        check_uneven(budget)

    def search(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
        probe: mbench.Probe,
        rng: np.random.Generator,
    ) -> mbench.ExpertMask:
        """Return the fittest mask; the tokens may end the evolution before its last generation."""
        values = aggregate(scores, AggregateParams(normalize=self.params.normalize))
        fitness: dict[Counts, float] = {}

        def mask_of(counts: Counts) -> mbench.ExpertMask:
            kept = np.array(counts) * budget.groups
            return mbench.ExpertMask(best_by_count(values, kept, budget.groups))

        def measure(population: Sequence[Counts]) -> bool:
            """Measure who is new; False where the tokens are not enough for all of them."""
            new = [counts for counts in dict.fromkeys(population) if counts not in fitness]
            able = new[: max(probe.masks_left, not fitness)]
            if able:
                found = probe.agreements([mask_of(counts) for counts in able]).mean(axis=1)
                fitness.update(zip(able, found.tolist(), strict=True))
            return len(able) == len(new)

        lowest, highest = fewest_per_group(budget), budget.num_experts // budget.groups
        equal: Counts = (budget.kept // budget.groups,) * budget.num_layers
        population = [equal]
        for _ in range(self.params.population - 1):
            population.append(random_counts(sum(equal), budget.num_layers, lowest, highest, rng))
        for _ in range(self.params.generations):
            if not measure(population):
                break
            best = sorted(dict.fromkeys(population), key=lambda counts: -fitness[counts])
            population = best[: self.params.survivors]
            parents = list(population)
            while len(population) < self.params.population:
                parent = parents[rng.integers(len(parents))]
                population.append(self._child(parent, lowest, highest, rng))
        fittest = max(fitness, key=lambda counts: fitness[counts])
        kept = np.array(fittest) * budget.groups
        spread = f"layers keep {kept.min()} to {kept.max()} of {budget.num_experts} experts"
        gain = f"agreement with the full model {fitness[fittest]:.4f}, {fitness[equal]:.4f} with"
        notes = (spread, f"{gain} equal counts; {len(fitness)} counts tried")
        return mbench.ExpertMask(mask_of(fittest).keep, notes)

    def _child(self, parent: Counts, lowest: int, highest: int, rng: np.random.Generator) -> Counts:
        counts = list(parent)
        switches = int(rng.integers(1, self.params.switches + 1, 2).min())
        for _ in range(switches):
            switch(counts, lowest, highest, self.params.moved, rng)
        return tuple(counts)


def switch(
    counts: list[int], lowest: int, highest: int, most: int, rng: np.random.Generator
) -> None:
    """Move up to `most` from one entry to another one, so that none leaves lowest .. highest.

    Nothing changes where no move is possible.
    """
    givers = [at for at, count in enumerate(counts) if count > lowest]
    takers = [at for at, count in enumerate(counts) if count < highest]
    pairs = [(giver, taker) for giver in givers for taker in takers if giver != taker]
    if not pairs:
        return
    giver, taker = pairs[rng.integers(len(pairs))]
    possible = min(most, counts[giver] - lowest, highest - counts[taker])
    moved = int(rng.integers(1, possible + 1))
    counts[giver] -= moved
    counts[taker] += moved


def random_counts(
    total: int, layers: int, lowest: int, highest: int, rng: np.random.Generator
) -> Counts:
    """Counts of a sum, each from lowest to highest, in proportion to uniformly random weights.

    What a full entry cannot take goes to the others, and so do the remainders, largest first.
    """
    weights = rng.random(layers) + 1e-4
    counts = np.full(layers, lowest)
    while (left := total - int(counts.sum())) > 0:
        open_ = counts < highest
        share = np.where(open_, weights, 0.0)
        exact = left * share / share.sum()
        more = np.minimum(exact.astype(int), highest - counts)
        if not more.any():
            first = np.argsort(-np.where(open_, exact, -1.0), kind="stable")[:left]
            more[first[open_[first]]] = 1
        counts = counts + more
    return tuple(counts.tolist())


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The search above."""
    return [Evolution]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """With REAP's ranking, as in the paper's main experiments."""
    return [
        mbench.Method(
            "evoesap",
            scorer="reap",
            selector="all",
            builder="evolution",
            description="layer counts evolved by agreement with the full model, experts by REAP",
        )
    ]
