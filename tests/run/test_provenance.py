"""What a plan records of its settings is enough to tell two suites apart."""

from __future__ import annotations

import importlib.metadata
import subprocess

import pytest

from helpers.tiny_suite import go, plan_of, results_of
from mbench.core.provenance import ModelSource
from mbench.core.run_record import Checkout
from mbench.report.across_runs.setting_differences import deciding_differences
from mbench.run.assemble import assemble
from mbench.run.provenance import gather
from mbench.run.session import Outcome
from mbench.storage.results_folder import read, write
from mbench.storage.store import Store


def planned(tmp_path, *set_values, **narrowing):
    """The results of a run that was stopped before its first step."""
    store = Store(tmp_path / "store")
    plan = plan_of(tmp_path, store, set_values=set_values, **narrowing)
    provenance = gather(plan, Outcome(), tmp_path / "suite.yaml", ["mbench"], [])
    return assemble(plan, Outcome(), provenance)


def test_a_commit_is_recorded_for_a_file_that_git_tracks(tmp_path):
    """An installation may lie inside the checkout of another project."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]

    def recorded():
        return planned(tmp_path).provenance.runs[0].suite_checkout

    assert recorded() == Checkout(None)
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "other").write_text("x")
    subprocess.run([*git, "add", "other"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    assert recorded() == Checkout(None)
    subprocess.run([*git, "add", "suite.yaml"], check=True)
    subprocess.run([*git, "commit", "-qm", "y"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert recorded() == Checkout(head.stdout.strip(), changed=True)


def test_a_narrowed_suite_has_the_same_protocol(tmp_path):
    whole = planned(tmp_path)
    for narrowing in ({"methods": ["reap"]}, {"retain": [0.5]}):
        assert deciding_differences({"a": whole, "b": planned(tmp_path, **narrowing)}) == []
    for unseen in ("seeds=[7, 8]", "batch_tokens=512", "title=Other"):
        assert deciding_differences({"a": whole, "b": planned(tmp_path, unseen)}) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("router=preserved", "router: sliced in a; preserved in b"),
        ("corpora.wiki.length=16", "corpus wiki › length: 32 in a; 16 in b"),
        ("corpora.wiki.join=' '", r'corpus wiki › join: "\n\n" in a; " " in b'),
        ("tasks.cloze_bible.limit=5", "task cloze_bible › limit: 6 in a; 5 in b"),
        ("tasks.cloze_bible.num_fewshot=1", "task cloze_bible › num_fewshot: none in a; 1 in b"),
        ("tasks.cloze_bible.metric=acc_norm", "task cloze_bible › metric: acc in a; acc_norm in b"),
        ("perplexity.ppl-wiki.stride=16", "task ppl-wiki › stride: 32 in a; 16 in b"),
        ("models.demo.dtype=bfloat16", "model demo › dtype: float32 in a; bfloat16 in b"),
        ("methods.reap.corpora=[wiki]", "method reap on demo › corpora: bible in a; wiki in b"),
        (
            "methods.reap.router=preserved",
            "method reap on demo › router: not set in a; preserved in b",
        ),
        (
            "methods.tb-coverage.selector.protected=9",
            "method tb-coverage on demo › selector › protected: 10 in a; 9 in b",
        ),
    ],
)
def test_each_setting_that_decides_figures_is_seen(tmp_path, change, difference):
    found = deciding_differences({"a": planned(tmp_path), "b": planned(tmp_path, change)})
    assert [str(one) for one in found] == [difference]


def test_a_run_records_its_settings_and_what_it_counted(tmp_path):
    store = Store(tmp_path / "store")
    narrowing = {"methods": ["tb-coverage", "random"], "retain": [0.5]}
    plan = plan_of(tmp_path, store, **narrowing)
    first, _ = go(plan, store)
    found = results_of(plan, first)
    provenance = found.provenance
    # tb-coverage starts from a mask that is not evaluated itself.
    methods = provenance.methods["demo"]
    assert set(methods) == {"tb-coverage", "expert-sparsity", "random"}
    assert methods["tb-coverage"].corpora == ("bible", "wiki")
    assert methods["tb-coverage"].candidate == "expert-sparsity"
    assert methods["tb-coverage"].selector.parameters == {"protected": 10, "overflow": "clamp"}
    assert methods["random"].scorer is None
    model = provenance.models["demo"]
    assert model.source == ModelSource("plugin", "demo")
    assert (model.dtype, model.facts) == ("float32", plan.models[0].facts)
    assert provenance.tasks["cloze_bible"].lm_eval == importlib.metadata.version("lm-eval")
    assert provenance.tasks["cloze_bible"].settings["limit"] == 6
    assert provenance.tasks["ppl-wiki"].text == plan.tasks[0].text.identity()
    assert (provenance.corpora["bible"].sequences, provenance.corpora["bible"].length) == (6, 32)
    (run,) = provenance.runs
    assert {(part.kind, part.name) for part in run.plugins} >= {
        ("selector", "round-robin"),
        ("builder", "protect"),
        ("scorer", "reconstruction"),
    }
    assert run.cost.forward_tokens == first.forward_tokens > 0
    assert set(run.cost.scoring["demo"]) == {"ppl-wiki", "cloze_bible"}
    bible = run.profiles["demo"]["bible"]
    assert bible.tokens == 6 * 32
    assert len(bible.gate_mass) == len(model.facts.layers)
    assert all(0 < mass <= 1 for mass in bible.gate_mass)
    write(found, tmp_path / "out")
    assert read(tmp_path / "out").provenance == provenance

    again, _ = go(plan_of(tmp_path, store, **narrowing), store)
    (second,) = results_of(plan, again).provenance.runs
    assert second.profiles == run.profiles
    assert (second.cost.forward_tokens, second.cost.scoring) == (0, {})


def test_the_protocol_says_what_each_of_its_entries_is_about(tmp_path):
    found = planned(tmp_path, "models.demo.trust_remote_code=false")
    about = {
        entry.name: (entry.kind, entry.models, entry.methods, entry.retain)
        for entry in found.protocol
    }
    assert about["Router after pruning"] == ("setting", (), (), None)
    assert about["Model demo"] == ("setting", ("demo",), (), None)
    assert about["Method tb-coverage"] == ("method", ("demo",), ("tb-coverage",), None)
    assert about["On demo, 75 % pruned"] == ("note", ("demo",), ("tb-coverage",), 0.25)
    cells = {(cell.method, cell.retain): cell for cell in found.cells}
    (note,) = [entry for entry in found.protocol if entry.kind == "note"]
    assert note.concerns(cells["tb-coverage", 0.25])
    assert not note.concerns(cells["tb-coverage", 0.5])
    assert not note.concerns(cells["reap", 0.25])
    write(found, tmp_path / "out")
    assert read(tmp_path / "out").protocol == found.protocol
