"""Searches against brute force, on games whose every mask is known and on the embedded model."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest

import mbench
from helpers.body_tokens import BodyTokens
from helpers.slow_routing import slow_routing
from helpers.tiny_suite import Watcher, go, plan_of
from mbench.core.interfaces import ExpertMask
from mbench.run.mask_stage import make_masks
from mbench.run.profile_stage import missing_jobs, profile
from mbench.run.session import ModelSession, Outcome
from mbench_plugins.evolution import Evolution, random_counts, switch
from mbench_plugins.sampled_shapley import SampledShapley
from mbench_plugins.shape import QualityCoverage, RoutedSets, Shape


class Game(mbench.Probe):
    """Answers from a function of the mask, and keeps what it was asked."""

    def __init__(self, value, masks=10**9):
        self.corpora, self.tokens_per_mask, self.limit = ("all",), 10, 10 * masks
        self.value, self.asked = value, {}

    @property
    def spent(self):
        return 10 * len(self.asked)

    def losses(self, masks):
        for mask in masks:
            self.asked[mask.content_hash] = mask
        if self.spent > self.limit:
            raise mbench.SearchLimit("too many")
        return np.array([[self.value(mask.keep)] for mask in masks])

    agreements = losses

    def profile(self, mask, corpus):
        raise NotImplementedError


def budget_of(layers, experts, kept, groups=1, fewest=1):
    return mbench.Budget(
        kept / experts, kept, layers, experts, top_k=2, groups=groups, fewest=fewest
    )


def scores_of(values):
    return {"all": mbench.Scores(np.asarray(values, dtype=float), None)}


def searched(search, game, budget, values=None, seed=0):
    values = np.zeros((budget.num_layers, budget.num_experts)) if values is None else values
    rng = np.random.default_rng(seed)
    return search.search(None, scores_of(values), budget, None, game, rng)


@pytest.mark.parametrize(("groups", "fewest"), [(1, 1), (1, 2), (2, 2)])
def test_evolution_finds_the_best_counts_of_all(groups, fewest):
    generator = np.random.default_rng(1)
    budget = budget_of(3, 8, 4, groups, fewest)
    for _ in range(5):
        worth = generator.random((3, 8)).cumsum(axis=1)
        values = generator.random((3, 8))
        game = Game(lambda keep, worth=worth: worth[range(3), keep.sum(axis=1) - 1].sum())
        possible = [
            counts
            for counts in itertools.product(range(fewest, 9), repeat=3)
            if sum(counts) == 12 and not any(count % groups for count in counts)
        ]
        best = max(possible, key=lambda counts: worth[range(3), np.array(counts) - 1].sum())
        mask = searched(Evolution(generations=40), game, budget, values)
        assert tuple(mask.keep.sum(axis=1)) == best
        assert "counts tried" in mask.notes[1]
        for asked in game.asked.values():
            assert tuple(asked.keep.sum(axis=1)) in possible
            for row, of_layer in zip(asked.keep, values, strict=True):
                for part, ranked in zip(
                    np.split(row, groups), np.split(of_layer, groups), strict=True
                ):
                    assert ranked[part].min() > ranked[~part].max(initial=-1)


def test_evolution_ends_with_its_tokens_and_keeps_the_best_that_it_saw():
    generator = np.random.default_rng(2)
    worth = generator.random((4, 8))
    game = Game(lambda keep: worth[range(4), keep.sum(axis=1) - 1].sum(), masks=11)
    mask = searched(Evolution(population=6), game, budget_of(4, 8, 4))
    assert len(game.asked) == 11
    assert game.value(mask.keep) == max(game.value(each.keep) for each in game.asked.values())
    with pytest.raises(mbench.SearchLimit):
        searched(Evolution(), Game(game.value, masks=0), budget_of(4, 8, 4))


def test_counts_keep_their_sum_and_their_bounds():
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(300):
        counts = list(random_counts(12, 3, 1, 8, rng))
        for _ in range(4):
            assert sum(counts) == 12
            assert all(1 <= count <= 8 for count in counts)
            seen.add(tuple(counts))
            switch(counts, 1, 8, 3, rng)
    assert len(seen) == sum(sum(c) == 12 for c in itertools.product(range(1, 9), repeat=3))
    full = [8, 8]
    switch(full, 1, 8, 3, rng)
    assert full == [8, 8]


def test_shapley_values_of_a_game_without_interaction_are_its_weights():
    generator = np.random.default_rng(4)
    weights = generator.normal(size=(3, 8))
    game = Game(lambda keep: 5 + weights[~keep].sum())
    budget = budget_of(3, 8, 5)
    mask = searched(SampledShapley(block=1), game, budget)
    assert (mask.keep == (weights > np.sort(weights)[:, [2]])).all()
    assert mask.notes[0] == "orders sampled: 8"


def brute_force_values(value, experts, kept):
    """The mean cost of dropping each expert, over all orders that end at `kept`."""
    costs = defaultdict(list)
    for order in itertools.permutations(range(experts)):
        keep = np.ones((1, experts), dtype=bool)
        for expert in order[: experts - kept]:
            before = value(keep)
            keep[0, expert] = False
            costs[expert].append(value(keep) - before)
    return np.array([np.mean(costs[expert]) for expert in range(experts)])


def test_sampled_orders_come_to_what_all_orders_say():
    generator = np.random.default_rng(5)
    tried = 0
    while tried < 8:
        table = generator.random(2**5)
        game = Game(lambda keep, table=table: table[int(keep[0] @ 2 ** np.arange(5))])
        values = np.sort(brute_force_values(game.value, 5, 2))
        if values[-2] - values[-3] < 0.1:
            continue  # too near to be told apart by samples
        tried += 1
        best = np.argsort(-brute_force_values(game.value, 5, 2))[:2]
        mask = searched(SampledShapley(block=1, orders=1500), game, budget_of(1, 5, 2), seed=tried)
        assert set(np.flatnonzero(mask.keep[0])) == set(best)


@pytest.mark.parametrize("groups", [1, 2])
def test_orders_drop_every_expert_as_often_and_end_with_the_tokens(groups):
    budget = budget_of(2, 8, 2, groups, groups)
    game = Game(lambda keep: 0.0)
    searched(SampledShapley(orders=4, block=3), game, budget)
    last = [mask.keep for mask in game.asked.values() if mask.keep.sum() == 4]
    assert len(last) == 4
    assert (sum(~keep for keep in last) == 3).all()
    assert all((keep.reshape(2, groups, -1).sum(axis=2) == 2 // groups).all() for keep in last)
    few = Game(lambda keep: 0.0, masks=len(game.asked) // 2)
    mask = searched(SampledShapley(orders=4, block=3), few, budget)
    assert mask.notes[0] == "orders sampled: 1"
    assert few.spent <= few.limit


def naive_coalition_values(chosen, experts):
    worth, of_rest = defaultdict(int), defaultdict(int)
    for row in chosen:
        worth[frozenset(row.tolist())] += 1
    for coalition, count in worth.items():
        for member in coalition:
            of_rest[coalition - {member}] += count
    values = np.zeros(experts)
    for expert in range(experts):
        mine = {each: count for each, count in worth.items() if expert in each}
        if mine:
            least = min(count / of_rest[each - {expert}] for each, count in mine.items())
            values[expert] = sum(
                count - least * of_rest[each - {expert}] for each, count in mine.items()
            )
    return values


@pytest.mark.parametrize("top_k", [2, 3])
def test_shape_values_are_those_of_dictionaries_of_sets(top_k):
    generator = np.random.default_rng(6)
    skew = 1 / np.arange(1, 9)
    layers = [
        np.sort([generator.choice(8, top_k, False, skew / skew.sum()) for _ in range(400)])
        for _ in range(3)
    ]
    seen = mbench.Profile(
        corpus="all",
        layers=("a", "b", "c"),
        num_experts=8,
        top_k=top_k,
        tokens=400,
        router="sliced",
        shard_sums={},
        load_samples=lambda identity, layer: {"experts": layers[layer].astype(np.int16)},
    )
    values = Shape().score(seen)
    for of_layer, chosen in zip(values, layers, strict=True):
        np.testing.assert_allclose(of_layer, naive_coalition_values(chosen, 8), atol=1e-9)


def test_quality_coverage_is_the_largest_share_that_the_budget_allows():
    generator = np.random.default_rng(7)
    for _ in range(20):
        values = generator.exponential(size=(4, 10)) ** 2
        budget = budget_of(4, 10, 5)
        rng = np.random.default_rng(0)
        chosen = QualityCoverage().select(scores_of(values), budget, rng).chosen
        assert chosen.sum() == 20

        def kept_at(share, values=values):
            counts = []
            for row in values:
                held, count = 0.0, 0
                for value in np.sort(row)[::-1]:
                    held, count = held + value, count + 1
                    if held >= share * row.sum():
                        break
                counts.append(count)
            return counts

        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(kept_at(middle)) <= 20 else (low, middle)
        assert chosen.sum(axis=1).tolist() == kept_at(low)
        for row, kept in zip(values, chosen, strict=True):
            assert row[kept].min() > row[~kept].max()


SETTINGS = {
    "evoesap": "{builder: {sequences: 2, population: 4, generations: 3}}",
    "iterative-reap": "{builder: {sequences: 3, rounds: 3}}",
    "sampled-shapley": "{builder: {sequences: 2, orders: 2, block: 6}}",
    "shape": "{corpora: [wiki]}",
}


def test_on_the_embedded_model_all_keep_the_budget_and_cost_what_they_say(tmp_path, store):
    changes = [f"methods.{name}={settings}" for name, settings in SETTINGS.items()]
    plan = plan_of(
        tmp_path, store, retain=[0.5], set_values=[*changes, "seeds=[0]"], methods=list(SETTINGS)
    )
    session = ModelSession(plan, plan.models[0], store, Watcher(), Outcome())
    assert not profile(session, missing_jobs(session, session.cells))
    recount = BodyTokens(session)
    for cell in session.cells:
        before = recount.tokens
        make_masks(session, [cell], {})
        assert not session.outcome.mask_problems
        cost = session.outcome.searches.get(cell.key)
        assert recount.tokens - before == (cost.tokens if cost else 0)
        assert (cost is None) == (cell.method.name == "shape")
        mask = session.outcome.masks[cell.mask_key]
        assert mask.keep.sum() == 12 * 4
    masks = {cell.method.name: session.outcome.masks[cell.mask_key] for cell in session.cells}
    assert (masks["iterative-reap"].keep == naive_rounds(session, [20, 16, 12])).all()
    _, table = go(plan, store)
    assert (table["status"] == "ok").all()
    by_method = table.groupby("method")["search_masks"].first()
    assert by_method["evoesap"] >= 4
    assert by_method["iterative-reap"] == 2


def naive_rounds(session, steps):
    """REAP counted token by token under every round's mask, the first on all sequences."""
    loaded, facts = session.load(), session.model.facts
    keep = np.ones((len(facts.layers), facts.num_experts), dtype=bool)
    for number, kept in enumerate(steps):
        scores = []
        for corpus in session.plan.corpora.values():
            text = corpus.cut(loaded.tokenizer)
            counts, sums = slow_routing(loaded, text[:3] if number else text, ExpertMask(keep))
            scores.append(sums / np.maximum(counts, 1))
        values = np.where(keep, np.mean(scores, axis=0), -1)
        keep = np.zeros_like(keep)
        for row, of_layer in zip(keep, values, strict=True):
            row[np.argsort(-of_layer, kind="stable")[:kept]] = True
    return keep


def test_routed_sets_are_those_of_every_nth_token(tmp_path, store):
    plan = plan_of(
        tmp_path,
        store,
        retain=[0.5],
        methods=["shape"],
        set_values=["methods.shape={corpora: [wiki], scorer: {tokens: 50}}"],
    )
    go(plan, store)
    (cell,) = plan.cells
    (job,) = cell.statistics["wiki"]
    assert isinstance(job.statistic, RoutedSets)
    for layer in range(4):
        experts = store.read_samples(job.key, layer)["experts"]
        # 6 x 32 tokens: every fourth one.
        assert experts.shape == (48, 2)
        assert (np.diff(experts, axis=1) > 0).all()
