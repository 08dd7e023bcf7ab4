"""What the scorers gave is kept, bit for bit, and nothing that a plugin does changes it."""

import numpy as np
import pytest

import mbench
from helpers.tiny_suite import SUITE, Watcher, plan_of, results_of
from mbench.core.errors import StoreError
from mbench.run.runner import Runner
from mbench.storage.results_folder import read, write
from mbench.storage.store import Store

GREEDY = """
import numpy as np
import mbench

class Greedy(mbench.Selector):
    name = "greedy"
    def select(self, scores, budget, rng):
        chosen = np.zeros((budget.num_layers, budget.num_experts), bool)
        chosen[:, : budget.kept] = True
        for score in scores.values():
            try:
                score.values.flags.writeable = True
                score.values[:] = 0
            except ValueError:
                pass
            object.__setattr__(score, "values", np.zeros_like(score.values))
        scores.clear()
        return mbench.Selection(chosen)

@mbench.hookimpl
def mbench_components():
    return [Greedy]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the tiny suite and of a selector that wipes out the scores that it is given."""
    folder = tmp_path_factory.mktemp("scores")
    (folder / "greedy.py").write_text(GREEDY)
    wiping = "tb-coverage: {selector: {protected: 10}}\n"
    text = SUITE.replace(
        wiping, wiping + "  greedy: {scorer: reap, selector: greedy, corpora: [wiki]}\n"
    )
    store = Store(folder / "store")
    plan = plan_of(folder, store, text, (folder / "greedy.py",))
    outcome = Runner(plan, store, Watcher()).run()
    return folder, store, plan, outcome, text


def test_scores_are_in_the_order_of_the_suite_whether_made_or_read(tmp_path):
    text = SUITE.replace("calibration: [bible, wiki]", "calibration: [wiki, bible]")
    store = Store(tmp_path / "store")
    first, again = (
        results_of(plan, Runner(plan, store, Watcher()).run())
        for plan in (plan_of(tmp_path, store, text) for _ in range(2))
    )
    assert list(first.scores) == list(again.scores)
    orders = [corpus for _, method, corpus in again.scores if method == "tb-coverage"]
    assert orders == ["wiki", "bible"]


def test_scores_are_those_of_the_scorer_on_the_stored_profile(finished):
    _, store, plan, outcome, _ = finished
    results = results_of(plan, outcome)
    (model,) = plan.models
    expected = {}
    for cell in plan.cells:
        for corpus, jobs in cell.statistics.items():
            profile = mbench.Profile(
                corpus, model.facts.layers, model.facts.num_experts, model.facts.top_k,
                store.read_profile(jobs[0].key).tokens, cell.budget.router,
                {j.statistic.identity: store.read_sums(j.key) for j in jobs},
                lambda identity, layer, jobs=jobs: next(
                    store.read_samples(j.key, layer) for j in jobs
                    if j.statistic.identity == identity
                ),
            )  # fmt: skip
            expected["demo", cell.method.name, corpus] = cell.method.scorer.score(profile)
    assert results.scores.keys() == expected.keys()
    for place, values in expected.items():
        np.testing.assert_array_equal(results.scores[place], values)
    assert {place[1:] for place in expected} == {
        ("reap", "bible"), ("same-as-reap", "bible"), ("expert-sparsity", "wiki"),
        ("tb-coverage", "bible"), ("tb-coverage", "wiki"), ("greedy", "wiki"),
    }  # fmt: skip


def test_stored_masks_and_written_results_give_the_same_scores_again(finished, tmp_path):
    folder, store, plan, outcome, text = finished
    results = results_of(plan, outcome)
    again = plan_of(folder, store, text, (folder / "greedy.py",))
    watcher = Watcher()
    restored = results_of(again, Runner(again, store, watcher).run())
    assert watcher.tokens == 0
    write(results, tmp_path)
    for other in (restored, read(tmp_path)):
        assert other.scores.keys() == results.scores.keys()
        for place, values in results.scores.items():
            assert other.scores[place].tobytes() == values.tobytes()
            assert other.scores[place].shape == values.shape
    distinct = len({values.tobytes() for values in results.scores.values()})
    assert distinct < len(results.scores)
    one = next(iter(results.scores.values())).nbytes
    file = tmp_path / "scores.safetensors"
    assert file.stat().st_size < distinct * (one + 150)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"malformed: scores\.safetensors is damaged"):
        read(tmp_path)
    file.unlink()
    assert read(tmp_path).scores == {}
