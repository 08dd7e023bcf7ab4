"""What a plan records of its settings is enough to tell two suites apart."""

from __future__ import annotations

import subprocess

import pytest

from helpers.tiny_suite import plan_of
from mbench.report.across_runs.differences import deciding_differences
from mbench.run.assemble import assemble
from mbench.run.provenance import gather
from mbench.run.session import Outcome
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
        return planned(tmp_path).provenance["git"]["of the suite"]

    assert recorded() == "not tracked by git"
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "other").write_text("x")
    subprocess.run([*git, "add", "other"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    assert recorded() == "not tracked by git"
    subprocess.run([*git, "add", "suite.yaml"], check=True)
    subprocess.run([*git, "commit", "-qm", "y"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert recorded() == head.stdout.strip() + " with uncommitted changes"


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
            "method tb-coverage on demo › selector: round-robin (protected 10, overflow clamp) in"
            " a; round-robin (protected 9, overflow clamp) in b",
        ),
    ],
)
def test_each_setting_that_decides_figures_is_seen(tmp_path, change, difference):
    found = deciding_differences({"a": planned(tmp_path), "b": planned(tmp_path, change)})
    assert [str(one) for one in found] == [difference]
