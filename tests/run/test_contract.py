"""Methods may have uneven layers, draw at random, and read statistics without a scorer.

One run of one plugin, whose masks are compared with loops over the stored statistics.
"""

import numpy as np
import pytest

from helpers.tiny_suite import SUITE, Watcher, plan_of, results_of
from mbench.core.cell_results import CellKey
from mbench.run.runner import Runner
from mbench.storage.results_folder import read, write
from mbench.storage.store import Store

PLUGIN = '''
import numpy as np
import mbench

class Noisy(mbench.Scorer):
    name = "noisy"
    stochastic = True
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        return profile.sums(self.needs[0])["count"] + profile.rng.normal(size=(
            len(profile.layers), profile.num_experts))

class Dice(Noisy):
    name = "dice"
    def score(self, profile):
        return profile.rng.normal(size=(len(profile.layers), profile.num_experts))

class Poacher(mbench.Selector):
    name = "poacher"
    stochastic = True
    needs = (mbench.RoutingSums(),)
    def select(self, scores, budget, rng):
        (score,) = scores.values()
        chosen = np.zeros(score.values.shape, bool)
        for row in chosen:
            row[score.profile.rng.permutation(budget.num_experts)[: budget.kept]] = True
        return mbench.Selection(chosen)

class Sneaky(Noisy):
    name = "sneaky"
    stochastic = False

class Busiest(mbench.Selector):
    """No scorer: it reads the statistics itself."""
    name = "busiest"
    needs = (mbench.RoutingSums(),)
    def select(self, scores, budget, rng):
        count = sum(s.profile.sums(self.needs[0])["count"] for s in scores.values())
        assert all((s.values == 0).all() for s in scores.values())
        chosen = np.zeros(count.shape, bool)
        order = np.argsort(-count, axis=1, kind="stable")
        np.put_along_axis(chosen, order[:, : budget.kept], True, axis=1)
        return mbench.Selection(chosen)

class Named(mbench.Scorer):
    name = "named"
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        assert profile.model == "demo" and len(profile.revision) >= 12, profile.revision
        return profile.sums(self.needs[0])["count"]

class Whole(mbench.MaskBuilder):
    """The best over all layers, with the fewest in each."""
    name = "whole"
    layers = "any"
    def build(self, selection, scores, budget, candidate):
        (score,) = scores.values()
        keep = np.zeros(score.values.shape, bool)
        for row, ranking in zip(keep, score.ranking()):
            row[ranking[: budget.fewest]] = True
        free = np.where(keep, -np.inf, score.values).ravel()
        best = np.argsort(-free, kind="stable")[: budget.total - keep.sum()]
        keep.ravel()[best] = True
        return mbench.ExpertMask(keep)

class TooMany(Whole):
    name = "too-many"
    def build(self, *args):
        mask = super().build(*args)
        mask.keep.ravel()[np.flatnonzero(~mask.keep.ravel())[0]] = True
        return mask

class Starving(mbench.MaskBuilder):
    name = "starving"
    layers = "any"
    def build(self, selection, scores, budget, candidate):
        keep = np.zeros((budget.num_layers, budget.num_experts), bool)
        keep[1:].ravel()[: budget.total] = True
        return mbench.ExpertMask(keep)

class Undeclared(Whole):
    name = "undeclared"
    layers = "equal"

class Idle(mbench.Statistic):
    name = "idle"

class Empty(mbench.Scorer):
    name = "empty"
    needs = (Idle(),)
    def score(self, profile):
        return np.zeros((len(profile.layers), profile.num_experts))

@mbench.hookimpl
def mbench_components():
    scorers = [Noisy, Dice, Sneaky, Named, Empty]
    return [*scorers, Poacher, Busiest, Whole, TooMany, Starving, Undeclared]

@mbench.hookimpl
def mbench_methods():
    def uneven(builder):
        return mbench.Method(builder, scorer="reap", builder=builder, corpora=1)
    return [
        mbench.Method("noisy", scorer="noisy", corpora=1),
        mbench.Method("dice", scorer="dice", corpora=1),
        mbench.Method("poacher", selector="poacher", corpora=1),
        mbench.Method("sneaky", scorer="sneaky", corpora=1),
        mbench.Method("busiest", selector="busiest"),
        mbench.Method("named", scorer="named", corpora=1),
        uneven("whole"), uneven("too-many"), uneven("starving"), uneven("undeclared"),
        mbench.Method("empty", scorer="empty", corpora=1),
        mbench.Method("textless", scorer="named", corpora=0),
    ]
'''
ONE = [
    "noisy",
    "dice",
    "poacher",
    "sneaky",
    "named",
    "whole",
    "too-many",
    "starving",
    "undeclared",
    "empty",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    (folder / "contract.py").write_text(PLUGIN)
    listed = "".join(f"  {name}: {{corpora: [wiki]}}\n" for name in ONE)
    text = SUITE.replace("perplexity:", f"{listed}  busiest:\n  textless:\nperplexity:")
    store = Store(folder / "store")
    plan = plan_of(folder, store, text, (folder / "contract.py",))
    outcome = Runner(plan, store, Watcher()).run()
    return store, plan, outcome, results_of(plan, outcome)


def cell_of(finished, method, retain=0.25, seed=None):
    _, _, _, results = finished
    return next(c for c in results.cells if c.key == CellKey("demo", method, seed, retain))


def keep_of(finished, method, retain=0.25, seed=None):
    return finished[3].masks["demo", cell_of(finished, method, retain, seed).mask]


def counts_of(finished, corpus):
    """Of the stored routing, [shards, layers, N] by array name."""
    store, plan, *_ = finished
    cell = next(c for c in plan.cells if c.method.name == "busiest")
    return store.read_sums(cell.statistics[corpus][0].key)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("sneaky", "scorer 'sneaky' draws at random without saying so"),
        ("too-many", "kept 25 experts in all layers, not K x layers = 6 x 4 = 24"),
        ("starving", "kept 0 experts in layer 0, where the router needs at least 1"),
        ("undeclared", 'not K = 6 (`layers = "any"` would let layers differ)'),
        ("empty", "statistic 'idle' implements neither `measure` nor `inspect`"),
        ("textless", "has corpora=0, but needs 'routing-sums', which measures text"),
    ],
)
def test_what_breaks_the_contract_fails_in_one_line(finished, method, reason):
    cell = cell_of(finished, method)
    assert cell.status == "failed"
    assert reason in cell.reason
    assert "\n" not in cell.reason


def test_an_uneven_mask_keeps_the_best_of_all_layers(finished):
    sums = {name: array.sum(axis=0) for name, array in counts_of(finished, "wiki").items()}
    score = np.divide(sums["gate_norm"], np.maximum(sums["count"], 1))
    for retain, total in ((0.25, 24), (0.5, 48)):
        keep = keep_of(finished, "whole", retain)
        assert keep.sum() == total
        assert len(set(keep.sum(axis=1))) > 1
        assert keep.any(axis=1).all()
        # Nothing that was dropped beats what stays, but for each layer's best.
        best = np.zeros_like(keep)
        best[np.arange(len(keep)), score.argmax(axis=1)] = True
        assert score[~keep].max() <= score[keep & ~best].min()
        assert "ok" in {status.status for status in cell_of(finished, "whole").tasks.values()}


def test_chance_in_a_scorer_gives_a_mask_for_each_seed(finished):
    first, second = (keep_of(finished, "noisy", seed=seed) for seed in (0, 1))
    assert (first != second).any()
    _, plan, outcome, _ = finished
    again = [outcome.masks[c.mask_key].keep for c in plan.cells if c.method.name == "noisy"]
    assert (again[0] == first).all()


def test_stability_draws_sequences_anew_and_not_the_dice(finished):
    cells = [cell for cell in finished[3].cells if cell.method == "dice"]
    assert len(cells) == 4
    assert [cell.stability for cell in cells] == [1.0] * 4


def test_scores_by_chance_are_those_of_the_first_seed_whatever_is_stored(finished, tmp_path):
    plugin, store = tmp_path / "contract.py", Store(tmp_path / "store")
    plugin.write_text(PLUGIN)
    text = SUITE.replace("perplexity:", "  noisy: {corpora: [wiki]}\nperplexity:")
    found = []
    for seeds in ([1], [0, 1]):
        narrowing = {"methods": ["noisy"], "retain": [0.25], "set_values": [f"seeds={seeds}"]}
        plan = plan_of(tmp_path, store, text, (plugin,), **narrowing)
        outcome = Runner(plan, store, Watcher()).run()
        found.append(results_of(plan, outcome).scores["demo", "noisy", "wiki"])
    assert (found[0] != found[1]).any()
    assert (found[1] == finished[3].scores["demo", "noisy", "wiki"]).all()


def test_only_scorers_draw_from_their_generator(finished):
    cell = cell_of(finished, "poacher", seed=0)
    assert cell.status == "failed"
    assert "selector 'poacher' or builder 'as-selected' draws from `profile.rng`" in cell.reason


def test_a_selector_reads_statistics_without_a_scorer(finished):
    count = sum(counts_of(finished, corpus)["count"].sum(axis=0) for corpus in ("bible", "wiki"))
    for layer, row in enumerate(keep_of(finished, "busiest")):
        ranked = sorted(range(24), key=lambda e: (-count[layer, e], e))
        assert set(np.flatnonzero(row)) == set(ranked[:6])
    assert cell_of(finished, "named").status == "ok"


def test_stability_is_the_share_that_stays_when_shards_are_drawn_anew(finished, tmp_path):
    count = counts_of(finished, "wiki")["count"]
    drawing = np.random.default_rng(20)
    keep = keep_of(finished, "named")
    shares = []
    for _ in range(10):
        drawn = sum(count[shard] for shard in drawing.integers(0, 6, 6))
        stay = 0
        for layer in range(4):
            ranked = sorted(range(24), key=lambda e: (-drawn[layer, e], e))
            stay += sum(keep[layer, e] for e in ranked[:6])
        shares.append(stay / 24)
    stability = cell_of(finished, "named").stability
    assert stability == pytest.approx(np.mean(shares), abs=1e-15)
    assert 0.5 < stability < 1
    assert cell_of(finished, "expert-sparsity").stability is None
    assert cell_of(finished, "random", seed=0).stability is None
    write(finished[3], tmp_path)
    found = next(c for c in read(tmp_path).cells if c.method == "named" and c.retain == 0.25)
    assert found.stability == stability
