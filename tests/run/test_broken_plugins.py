"""What a plugin that misbehaves costs: its own cells, named, and nothing else."""

from __future__ import annotations

from helpers.tiny_suite import SUITE, go, plan_of, results_of
from mbench.plan.cells import Plan

BROKEN = '''
import numpy as np, mbench

BAD = ("raises", "nan", "shape", "needs", "exits")

class Raises(mbench.Scorer):
    """Raises."""
    name = "raises"
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        raise RuntimeError("no good\\nsecond line")

class Nan(Raises):
    """Not finite."""
    name = "nan"
    def score(self, profile):
        scores = np.ones((len(profile.layers), profile.num_experts))
        scores[1, 2] = np.nan
        return scores

class Shape(Raises):
    """Wrong shape."""
    name = "shape"
    def score(self, profile):
        return np.ones(3)

class Meddles(mbench.MaskBuilder):
    """Changes another method's mask."""
    name = "meddles"
    takes_candidate = True
    def build(self, selection, scores, budget, candidate):
        candidate.keep[:] = selection.chosen
        return candidate

class Exits(Raises):
    """Leaves the program."""
    name = "exits"
    def score(self, profile):
        raise SystemExit(5)

class TooMany(mbench.MaskBuilder):
    """Not exactly K."""
    name = "too-many"
    def build(self, selection, scores, budget, candidate):
        return mbench.ExpertMask(np.ones_like(selection.chosen))

class Gambles(mbench.Selector):
    """Random, and does not say so."""
    name = "gambles"
    def select(self, scores, budget, rng):
        chosen = np.zeros((budget.num_layers, budget.num_experts), bool)
        chosen[:, rng.permutation(budget.num_experts)[: budget.kept]] = True
        return mbench.Selection(chosen)

class Count(mbench.Scorer):
    """Fine."""
    name = "count"
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        return profile.sums(mbench.RoutingSums())["count"]

class Needs(Count):
    """Raises where the plan asks for its statistics."""
    name = "needs"
    @property
    def needs(self):
        raise KeyError("statistic")

@mbench.hookimpl
def mbench_components():
    return [Raises, Nan, Shape, TooMany, Count, Needs, Meddles, Exits, Gambles]

@mbench.hookimpl
def mbench_methods():
    bad = [mbench.Method(n, scorer=n, corpora=1) for n in BAD]
    return [
        *bad,
        mbench.Method("too-many", scorer="count", builder="too-many", corpora=1),
        mbench.Method("gambles", scorer="count", selector="gambles", corpora=1),
        mbench.Method("count", scorer="count", corpora=1),
        mbench.Method("meddles", scorer="reap", builder="meddles", candidate="count", corpora=1),
        mbench.Method("on-raises", scorer="count", builder="protect", candidate="raises"),
    ]
'''


def test_a_broken_plugin_costs_only_its_own_cells(tmp_path, store):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    methods = ["raises", "nan", "shape", "needs", "exits", "too-many", "on-raises", "meddles"]
    methods += ["gambles", "count", "random"]
    plan = _plan_with(tmp_path, store, plugin, methods)
    outcome, _ = go(plan, store)
    cells = {cell.method: cell for cell in results_of(plan, outcome).cells}
    expected = {
        "raises": ("failed", "'raises' raised in score: RuntimeError: no good"),
        "nan": ("failed", "scorer 'nan' returned nan for layer 1 expert 2 on bible"),
        "shape": ("failed", "scorer 'shape' must return float64 [4, 24], got float64 [3]"),
        "needs": ("failed", "KeyError('statistic')"),
        "too-many": ("failed", "builder 'too-many' kept 24 experts in layer 0, not K = 12"),
        "gambles": (
            "failed",
            "selector 'gambles' draws at random without saying so: it needs `stochastic = True`, "
            "and is then run with every seed of the suite",
        ),
        "exits": ("failed", "'exits' raised in score: SystemExit: 5"),
        "meddles": (
            "failed",
            "'meddles' raised in build: ValueError: assignment destination is read-only",
        ),
        "on-raises": ("blocked", "its candidate 'raises' has no mask at this budget"),
    }
    for method, (status, reason) in expected.items():
        assert (cells[method].status, cells[method].reason) == (status, reason)
    assert cells["count"].status == cells["random"].status == "ok"
    # A failure is tried again, never served from the store.
    plugin.write_text(BROKEN.replace('raise RuntimeError("no good\\nsecond line")', "return x"))
    again, _ = go(_plan_with(tmp_path, store, plugin, methods), store)
    assert "NameError" in again.mask_problems["demo 50% raises"].reason


def _plan_with(tmp_path, store, plugin, methods) -> Plan:
    head = SUITE.partition("methods:")[0]
    tail = SUITE.partition("perplexity:")[2]
    listed = "".join(
        f"  {name}:\n" if name == "random" else f"  {name}: {{corpora: [bible]}}\n"
        for name in methods
    )
    text = f"{head}methods:\n{listed}perplexity:{tail}"
    return plan_of(tmp_path, store, text, (plugin,), retain=[0.5])
