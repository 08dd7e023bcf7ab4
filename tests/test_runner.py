"""Whole runs on the embedded model: what is computed, what is kept, and what failures cost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mbench.assemble import assemble
from mbench.errors import MbenchError
from mbench.plan import Plan, make_plan
from mbench.plugins import load_registry
from mbench.progress import Progress
from mbench.results import long_form
from mbench.results_files import write
from mbench.runner import Runner
from mbench.session import Outcome
from mbench.store import Store
from mbench.suite_file import load_suite

SUITE = """\
name: tiny
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.25, 0.5]
seeds: [0, 1]
corpora:
  bible: {source: {plugin: bible, split: calibration}, sequences: 6, length: 32}
  wiki: {source: {plugin: wiki, split: calibration}, sequences: 6, length: 32}
calibration: [bible, wiki]
methods:
  random:
  reap: {corpora: [bible]}
  same-as-reap: {use: reap, corpora: [bible]}
  expert-sparsity: {corpora: [wiki]}
  tb-coverage: {selector: {protected: 10}}
perplexity:
  ppl-wiki:
    {source: {plugin: wiki, split: evaluation}, window: 64, stride: 32, max_windows: 4}
tasks:
  cloze_bible: {metric: acc, limit: 6}
"""

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
    return [Raises, Nan, Shape, TooMany, Count, Needs, Meddles, Exits]

@mbench.hookimpl
def mbench_methods():
    bad = [mbench.Method(n, scorer=n, corpora=1) for n in BAD]
    return [
        *bad,
        mbench.Method("too-many", scorer="count", builder="too-many", corpora=1),
        mbench.Method("count", scorer="count", corpora=1),
        mbench.Method("meddles", scorer="reap", builder="meddles", candidate="count", corpora=1),
        mbench.Method("on-raises", scorer="count", builder="protect", candidate="raises"),
    ]
'''


class Watcher(Progress):
    """Counts forward tokens; may press Ctrl-C."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.tokens = 0
        self.warnings: list[str] = []
        self.interrupt_after = interrupt_after

    def advance(self, tokens: int) -> None:
        self.tokens += tokens
        if self.interrupt_after is not None and self.tokens > self.interrupt_after:
            raise KeyboardInterrupt

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def plan_of(
    tmp_path: Path, store: Store, text: str = SUITE, plugins: tuple[Path, ...] = (), **narrowing
) -> Plan:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    suite, source = load_suite(path, **narrowing)
    return make_plan(suite, source, load_registry(plugins), store)


def go(plan: Plan, store: Store, progress: Progress | None = None) -> tuple[Outcome, pd.DataFrame]:
    outcome = Runner(plan, store, progress or Watcher()).run()
    return outcome, long_form(assemble(plan, outcome, {}))


def test_a_run_is_complete_and_a_second_one_does_no_forward_pass(tmp_path, store):
    plan = plan_of(tmp_path, store)
    first, table = go(plan, store)
    assert (table["status"] == "ok").all()
    assert set(table["method"]) == {"none", *plan.suite.methods}
    assert first.forward_tokens > 0
    pruned = table[table["method"] != "none"]
    assert (pruned["experts_kept"] == np.floor(pruned["retain"] * 24)).all()
    for mask in first.masks.values():
        assert len(set(mask.keep.sum(axis=1))) == 1
    # Equal masks by different methods are one evaluation.
    by_method = table[table["retain"] == 0.5].groupby("method")["mask"].first()
    assert by_method["reap"] == by_method["same-as-reap"]
    distinct = table.groupby(["mask", "task"]).ngroups
    assert len(first.evaluations) == distinct

    second, again = go(plan_of(tmp_path, store), store)
    assert second.forward_tokens == 0
    pd.testing.assert_frame_equal(table, again)


def test_figures_follow_from_the_items(tmp_path, store):
    plan = plan_of(tmp_path, store, methods=["reap"], retain=[0.5])
    outcome, table = go(plan, store)
    write(assemble(plan, outcome, {}), tmp_path / "out")
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    for row in table.itertuples():
        own = items[(items["mask"] == row.mask) & (items["task"] == row.task)]
        if row.metric == "perplexity":
            expected = np.exp(own["nll"].sum() / own["tokens"].sum())
        elif row.metric == "mean_nll":
            expected = own["nll"].sum() / own["tokens"].sum()
        elif row.metric == "bits_per_byte":
            expected = own["nll"].sum() / np.log(2) / own["bytes"].sum()
        else:
            expected = own[row.metric].mean()
        assert row.value == pytest.approx(expected, rel=1e-12)


def test_an_interrupted_run_resumes_with_nothing_done_twice(tmp_path, store):
    whole, other = Watcher(), Store(tmp_path / "other")
    _, expected = go(plan_of(tmp_path, other), other, whole)
    generator = random.Random(0)
    finished: set[tuple[str, str]] = set()
    interruptions = 0
    for _ in range(60):
        watcher = Watcher(interrupt_after=generator.randrange(whole.tokens // 2))
        outcome, table = go(plan_of(tmp_path, store), store, watcher)
        done = table[table["status"] == "ok"]
        assert finished <= set(zip(done["mask"], done["task"], strict=True))
        finished = set(zip(done["mask"], done["task"], strict=True))
        if not outcome.interrupted:
            break
        interruptions += 1
        assert set(table["status"]) <= {"ok", "interrupted"}
    assert interruptions > 1
    pd.testing.assert_frame_equal(table, expected)


def test_a_killed_run_leaves_only_whole_artefacts(tmp_path, store):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    command = [sys.executable, "-m", "mbench", "run", str(path), "--store", str(store.root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    generator = random.Random(1)
    for _ in range(2):
        process = subprocess.Popen(
            [*command, "--output", str(tmp_path / "reports"), "--quiet"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Past the imports, into the work.
        deadline = time.monotonic() + 90
        while not list(store.root.glob("statistics/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(generator.random() * 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for artefact in store.root.glob("masks/*.json"):
        assert store.read_json("masks", artefact.stem) is not None
    for artefact in store.root.glob("evaluations/[!.]*.parquet"):
        assert store.read_items(artefact.stem) is not None
    _, table = go(plan_of(tmp_path, store), store)
    assert (table["status"] == "ok").all()


def test_a_broken_plugin_costs_only_its_own_cells(tmp_path, store):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    methods = ["raises", "nan", "shape", "needs", "exits", "too-many", "on-raises", "meddles"]
    methods += ["count", "random"]
    plan = _plan_with(tmp_path, store, plugin, methods)
    outcome, _ = go(plan, store)
    cells = {cell.method: cell for cell in assemble(plan, outcome, {}).cells}
    expected = {
        "raises": ("failed", "'raises' raised in score: RuntimeError: no good"),
        "nan": ("failed", "scorer 'nan' returned nan for layer 1 expert 2 on bible"),
        "shape": ("failed", "scorer 'shape' must return float64 [4, 24], got float64 [3]"),
        "needs": ("failed", "KeyError('statistic')"),
        "too-many": ("failed", "builder 'too-many' kept 24 experts in layer 0, not K = 12"),
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


def test_a_task_that_fails_leaves_the_others(tmp_path, store):
    text = SUITE + "  cloze_wiki: {metric: brier, limit: 3}\n"
    plan = plan_of(tmp_path, store, text, methods=["random"], retain=[0.5])
    watcher = Watcher()
    _, table = go(plan, store, watcher)
    status = table.groupby("task")["status"].unique().map(list).to_dict()
    assert status["cloze_bible"] == status["ppl-wiki"] == ["ok"]
    assert status["cloze_wiki"] == ["failed"]
    assert any("brier" in text for text in watcher.warnings)


def test_the_seed_is_part_of_a_key_only_where_it_matters(tmp_path, store):
    plan = plan_of(tmp_path, store)
    other = plan_of(tmp_path, store, set_values=["seeds=[5, 6]"])
    keys = [{cell.method.name: cell.key for cell in p.cells} for p in (plan, other)]
    changed = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert changed == {"random"}


def test_keys_ignore_order_and_batch_size_and_notice_what_matters(tmp_path, store):
    keys = {cell.label: cell.key for cell in plan_of(tmp_path, store).cells}

    def changed(text: str = SUITE, **narrowing) -> set[str]:
        other = {c.label: c.key for c in plan_of(tmp_path, store, text, **narrowing).cells}
        return {label.split(" ", 2)[2] for label in keys if other.get(label, "") != keys[label]}

    lines = SUITE.replace("  reap: {corpora: [bible]}\n", "").replace(
        "methods:\n", "methods:\n  reap: {corpora: [bible]}\n"
    )
    assert changed(lines) == set()
    assert changed(set_values=["batch_tokens=100"]) == set()
    bible = {"reap", "same-as-reap", "tb-coverage"}
    assert changed(set_values=["corpora.bible.seed=1"]) == bible
    assert changed(set_values=["calibration=[wiki, bible]"]) == {"tb-coverage"}
    assert len(changed(set_values=["router=preserved"])) == 6
    assert changed(set_values=["methods.expert-sparsity.scorer.tokens=99"]) == {
        "expert-sparsity",
        "tb-coverage",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tasks={hellaswagg: {}}", "no lm-eval task, group or tag is called 'hellaswagg'; did you"),
        ("methods.random.corpora=[wiki]", "has no scorer: it looks at no corpus"),
        (
            "methods.reap.candidate=random",
            "a candidate that its builder 'as-selected' does not use",
        ),
        ("methods.tb-coverage.selector.protected=true", "protected: input should be a valid int"),
        ("corpora.bible.source.split=foo", "unknown split 'foo'"),
        ("retain=[0.01]", "keeps none; the least is 0.0416667"),
        ("models.demo.plugin=dmo", "unknown plugin model 'dmo'; did you mean 'demo'?"),
        ("methods.reap.scorer=repa", "unknown scorer 'repa'; did you mean 'reap'?"),
        ("methods.reap.scorer.varian=sum", "unknown parameter of scorer 'reap' 'varian'"),
        ("methods.reap.scorer.variant=most", "variant: input should be 'mean', 'sum'"),
        ("methods.tb-coverage.candidate=tb-coverage", "candidates form a cycle"),
        ("methods.tb-coverage.selector.overflow=error", "protected: 10 exceeds the 6 experts"),
        ("methods.reap.seeds=[1]", "draws nothing at random"),
        ("methods.reap.corpora=[bible, wiki]", "takes 1 calibration corpus, got 2"),
        ("methods.tb-coverage.candidate=random", "a candidate must be deterministic"),
        ("corpora.bible.source.plugin=koran", "unknown plugin corpus 'koran'"),
        ("models.demo={path: /nowhere}", "/nowhere"),
        ("models.demo={plugin: demo, expect: {layers: 4, experts: 60, top_k: 4}}", "experts = 24"),
    ],
)
def test_impossible_suites_fail_before_any_model_is_loaded(tmp_path, store, change, message):
    with pytest.raises(MbenchError) as caught:
        plan_of(tmp_path, store, set_values=[change])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corpus_that_is_too_short_says_how_much_there_is(tmp_path, store):
    (tmp_path / "short.txt").write_text("a few words only " * 30)
    change = f"corpora.bible.source={{files: [{tmp_path}/short.txt]}}"
    plan = plan_of(tmp_path, store, set_values=[change])
    outcome, _ = go(plan, store)
    problem = outcome.mask_problems["demo 50% reap"]
    assert problem.status == "blocked"
    assert "tokens, but 6 sequences of 32 (192) asked; ask for at most" in problem.reason
    assert "demo 50% expert-sparsity" not in outcome.mask_problems


def test_a_cell_is_named_by_everything_that_distinguishes_it(tmp_path, store):
    labels = [cell.label for cell in plan_of(tmp_path, store).cells]
    assert len(set(labels)) == len(labels)
    assert "demo 25% random seed 1" in labels


def test_narrowing_keeps_the_suites_candidates(tmp_path, store):
    plan = plan_of(tmp_path, store, methods=["tb-coverage"])
    whole = {cell.label: cell.key for cell in plan_of(tmp_path, store).cells}
    assert {cell.method.name for cell in plan.cells if cell.method.evaluated} == {"tb-coverage"}
    assert {cell.method.name for cell in plan.cells} == {"tb-coverage", "expert-sparsity"}
    # The candidate is the suite's own, so it is the same mask as in a whole run.
    assert all(whole[cell.label] == cell.key for cell in plan.cells)
    change = "methods.expert-sparsity.scorer.tokns=3"
    with pytest.raises(MbenchError, match="'tokns'; did you mean 'tokens'"):
        plan_of(tmp_path, store, methods=["tb-coverage"], set_values=[change])
