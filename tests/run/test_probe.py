"""What a search is told of masks, against slow loops; what it costs, against a count of passes."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.body_tokens import BodyTokens
from helpers.slow_routing import slow_routing
from helpers.tiny_suite import Watcher, go, plan_of, results_of
from mbench.core.basics import RoutingSums
from mbench.core.errors import PluginError, SearchLimit
from mbench.core.interfaces import ExpertMask
from mbench.moe.mask import masked
from mbench.plan.cost import estimate
from mbench.plan.needed import needed
from mbench.run.probe import Probes
from mbench.run.session import ModelSession, Outcome
from mbench.storage.housekeeping import contents
from mbench.storage.results_folder import load_results, read, write
from mbench.storage.store import Store

SEARCH = '''
import numpy as np
import mbench


class Params(mbench.SearchParameters):
    masks: int = 6
    fails: bool = False


class Walk(mbench.MaskSearch):
    """Random masks one after another; the one of the least loss."""

    name = "walk"
    Params = Params
    needs = (mbench.RoutingSums(),)

    def search(self, selection, scores, budget, candidate, probe, rng):
        drawn = np.random.default_rng(5)
        if not probe.masks_left:
            first = np.arange(budget.num_experts) < budget.kept
            return mbench.ExpertMask(np.tile(first, (budget.num_layers, 1)))
        best, least = None, float("inf")
        for _ in range(self.params.masks):
            keep = np.zeros((budget.num_layers, budget.num_experts), bool)
            for row in keep:
                row[drawn.permutation(budget.num_experts)[: budget.kept]] = True
            mask = mbench.ExpertMask(keep)
            loss = probe.losses([mask]).mean()
            if loss < least:
                best, least = mask, loss
        probe.profile(best, probe.corpora[0])
        if self.params.fails:
            raise ValueError("nothing found")
        return best


@mbench.hookimpl
def mbench_components():
    return [Walk]


@mbench.hookimpl
def mbench_methods():
    return [mbench.Method("walk", selector="all", builder="walk")]
'''
SEQUENCES, LENGTH = 4, 32
PER_MASK = 2 * SEQUENCES * LENGTH
"""Tokens of one mask on the two corpora of the suite."""


def search_plan(tmp_path, store, router="sliced", **params):
    plugin = tmp_path / "walk.py"
    plugin.write_text(SEARCH)
    builder = ", ".join(f"{name}: {value}" for name, value in params.items())
    walk = f"{{router: {router}, builder: {{sequences: {SEQUENCES}, {builder}}}}}"
    narrowing = {
        "retain": [0.5],
        "methods": ["reap", "walk"],
        "set_values": [f"methods.walk={walk}"],
    }
    return plan_of(tmp_path, store, plugins=(plugin,), **narrowing)


def session_of(plan, store, progress=None):
    return ModelSession(plan, plan.models[0], store, progress or Watcher(), Outcome())


def probe_of(session):
    (cell,) = (cell for cell in session.cells if cell.method.name == "walk")
    return Probes(session).probe(cell)


def masks_of(session, count=5, seed=0):
    """Masks that drop experts everywhere but in the first layer."""
    facts = session.model.facts
    generator = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        keep = np.ones((len(facts.layers), facts.num_experts), dtype=bool)
        for row in keep[1:]:
            row[generator.permutation(facts.num_experts)[:9]] = False
        masks.append(ExpertMask(keep))
    return masks


def texts_of(session):
    plan, loaded = session.plan, session.load()
    return {name: corpus.cut(loaded.tokenizer)[:SEQUENCES] for name, corpus in plan.corpora.items()}


def distributions(session, ids, mask, router):
    """float64 [tokens, vocabulary], log-probabilities under a mask, or of the full model."""
    loaded = session.load()
    applied = contextlib.nullcontext()
    if mask is not None:
        applied = masked(loaded.layers, mask, router)
    with applied, torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor(ids)[None]).logits[0]
    return logits.double().log_softmax(-1).numpy()


def naive(session, text, mask, router):
    """Loss and agreement, token by token."""
    losses, agreements = [], []
    for row, length in zip(text.ids, text.lengths, strict=True):
        ids = row[:length]
        p = distributions(session, ids, None, router)
        q = distributions(session, ids, mask, router)
        for at in range(len(ids) - 1):
            losses.append(-q[at, ids[at + 1]])
            agreements.append(np.minimum(np.exp(p[at]), np.exp(q[at])).sum())
    return np.mean(losses), np.mean(agreements)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("router", ["sliced", "preserved"])
def test_losses_and_agreements_are_those_of_a_slow_loop(
    tmp_path, store, router, split, monkeypatch
):
    if not split:  # as for a family that scales its logits
        monkeypatch.setattr("mbench.evaluate.lm_head.split", lambda model, ids: None)
    session = session_of(search_plan(tmp_path, store, router), store)
    texts = texts_of(session)
    for text, lengths in zip(texts.values(), ([32, 9, 1, 20], [32, 32, 32, 32]), strict=True):
        text.lengths[:] = lengths  # as where documents end
    monkeypatch.setattr("mbench.moe.profile.cut_corpus", lambda loaded, corpus: texts[corpus.name])
    probe, masks = probe_of(session), masks_of(session, 3)
    losses, agreements = probe.losses(masks), probe.agreements(masks)
    assert probe.corpora == ("bible", "wiki")
    assert probe.tokens_per_mask == 62 + 128
    for number, mask in enumerate(masks):
        for corpus, text in enumerate(texts.values()):
            loss, agreement = naive(session, text, mask, router)
            np.testing.assert_allclose(losses[number, corpus], loss, rtol=1e-5)
            np.testing.assert_allclose(agreements[number, corpus], agreement, rtol=1e-5)
    np.testing.assert_allclose(probe.agreements([session.model.unpruned_mask]), 1, rtol=1e-6)


def test_the_cost_is_what_goes_through_the_model_and_does_not_depend_on_what_is_known(
    tmp_path, store
):
    plan = search_plan(tmp_path, store)
    costs = []
    for known in (False, True):
        session = session_of(plan, store)
        counter, probe, masks = BodyTokens(session), probe_of(session), masks_of(session)
        assert (probe.spent, probe.tokens_per_mask) == (0, PER_MASK)
        probe.losses([*masks, *masks])
        probe.agreements(masks[:2])
        assert probe.spent == 5 * PER_MASK
        assert probe.masks_left == (probe.limit - probe.spent) // PER_MASK
        probe.profile(masks[0], "wiki")
        probe.profile(masks[0], "wiki")
        assert probe.spent == 5 * PER_MASK + PER_MASK // 2
        # The full model's own pass is part of the cost.
        assert (probe.cost.tokens, probe.cost.masks) == (6 * PER_MASK + PER_MASK // 2, 5)
        assert counter.tokens == (0 if known else probe.cost.tokens)
        assert session.outcome.forward_tokens == counter.tokens
        costs.append(probe.cost.tokens)
    assert costs[0] == costs[1]


def test_halving_the_batch_changes_nothing_but_the_rounding(tmp_path, store, monkeypatch):
    session = session_of(search_plan(tmp_path, store), store)
    expected = probe_of(session).losses(masks_of(session))
    small = session_of(search_plan(tmp_path, store), Store(tmp_path / "other"))
    body, calls = small.load().model.base_model, []

    def forward(*args, **kwargs):
        calls.append(kwargs["input_ids"].numel())
        if calls[-1] > 2 * LENGTH:
            raise torch.OutOfMemoryError("no")
        return type(body).forward(body, *args, **kwargs)

    monkeypatch.setattr(body, "forward", forward)
    losses = probe_of(small).losses(masks_of(small))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert any("out of memory" in text for text in small.progress.warnings)
    assert small.outcome.forward_tokens == 6 * PER_MASK


def test_a_profile_under_a_mask_counts_the_routing_of_the_masked_model(tmp_path, store):
    session = session_of(search_plan(tmp_path, store), store)
    (mask,) = masks_of(session, 1)
    profile = probe_of(session).profile(mask, "wiki")
    counts, norms = slow_routing(session.load(), texts_of(session)["wiki"], mask)
    sums = profile.sums(RoutingSums())
    assert profile.tokens == SEQUENCES * LENGTH
    assert (sums["count"] == counts).all()
    assert not counts[~mask.keep].any()
    np.testing.assert_allclose(sums["gate_norm"], norms, rtol=1e-5)


def test_what_is_too_much_is_refused_before_it_is_computed(tmp_path, store):
    session = session_of(search_plan(tmp_path, store, tokens=4 * PER_MASK), store)
    probe, masks = probe_of(session), masks_of(session)
    assert probe.masks_left == 3
    with pytest.raises(SearchLimit, match=r"4 more masks would cost"):
        probe.losses(masks[:4])
    assert probe.spent == session.outcome.forward_tokens == 0
    probe.losses(masks[:3])
    with pytest.raises(SearchLimit):
        probe.profile(masks[0], "wiki")
    assert probe.cost.tokens == 4 * PER_MASK
    with pytest.raises(PluginError, match="none of its corpora"):
        probe.profile(masks[0], "code")
    with pytest.raises(PluginError, match=r"ExpertMasks of bool \[4, 24\]"):
        probe.losses([masks[0].keep])


def test_a_search_without_tokens_for_one_mask_is_told_of(tmp_path, store):
    told = Watcher()
    outcome, _ = go(search_plan(tmp_path, store, tokens=2 * PER_MASK - 1), store, told)
    notes = [note for mask in outcome.masks.values() for note in mask.notes]
    expected = f"511 tokens were allowed, and one mask takes {2 * PER_MASK}, with"
    assert [note for note in notes if expected in note] == notes
    assert [text for text in told.warnings if expected in text and "walk" in text]
    told = Watcher()
    outcome, _ = go(search_plan(tmp_path, store, masks=1, tokens=3 * PER_MASK), store, told)
    assert not any(mask.notes for mask in outcome.masks.values())
    assert not any("could try no mask" in text for text in told.warnings)


def test_a_killed_search_goes_on_where_it_was_and_ends_with_the_same_mask(tmp_path, store):
    plan = search_plan(tmp_path, store, masks=8)
    other = Store(tmp_path / "other")
    whole, expected = go(search_plan(tmp_path, other, masks=8), other)
    searched = sum(cost.tokens for cost in whole.searches.values())
    start = whole.forward_tokens
    killed, seen = go(plan, store, Watcher(interrupt_after=1500))
    assert killed.interrupted
    assert (seen.loc[seen["method"] == "walk", "status"] == "interrupted").all()
    remembered = {stored.key for stored in contents(store, ["probes"])}
    assert remembered
    opened = Store(store.root)
    assert remembered <= needed(search_plan(tmp_path, opened, masks=8), opened)
    outcome, table = go(search_plan(tmp_path, store, masks=8), store)
    opened = Store(store.root)
    assert not remembered & needed(search_plan(tmp_path, opened, masks=8), opened)
    pd.testing.assert_frame_equal(table, expected)
    cost = outcome.searches[next(iter(outcome.searches))]
    assert (cost.tokens, cost.masks) == (9 * PER_MASK + PER_MASK // 2, 8)
    assert searched == cost.tokens
    # At most the pass in which it was killed, on one corpus, and the full model's are repeated.
    assert killed.forward_tokens + outcome.forward_tokens <= start + 2 * PER_MASK


def test_a_search_that_fails_costs_its_cell_and_its_price_reaches_the_results(tmp_path, store):
    plan = search_plan(tmp_path, store, fails="true")
    outcome, table = go(plan, store)
    walk = table[table["method"] == "walk"]
    assert (walk["status"] == "failed").all()
    assert (table[table["method"] != "walk"]["status"] == "ok").all()
    (key,) = (key for key in outcome.mask_problems if key.method == "walk")
    assert "raised ValueError: nothing found" in outcome.mask_problems[key].reason
    dear, _ = go(search_plan(tmp_path, store, masks=60, tokens=9 * PER_MASK), store)
    assert "the search may spend" in dear.mask_problems[key].reason

    plan = search_plan(tmp_path, store)
    cost = estimate(plan, store).models[0]
    assert cost.search_tokens == 1_000_000
    outcome, table = go(plan, store)
    assert estimate(plan, store).models[0].search_tokens == 0
    results = results_of(plan, outcome)
    write(results, tmp_path / "out")
    read_back = {cell.method: cell for cell in read(tmp_path / "out").cells}
    price = 7 * PER_MASK + PER_MASK // 2
    assert (read_back["walk"].search_tokens, read_back["walk"].search_masks) == (price, 6)
    assert read_back["reap"].search_tokens == read_back["none"].search_tokens == 0
    rows = load_results(tmp_path / "out").groupby("method")["search_tokens"].first()
    assert (rows["walk"], rows["reap"]) == (price, 0)
    again, _ = go(search_plan(tmp_path, store), store)
    assert again.forward_tokens == 0
    assert again.searches == outcome.searches
