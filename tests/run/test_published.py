"""Published checkpoints as rows: what a mask stands for, what is run itself, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from helpers.pruned_by_hand import DEMO, write_pruned
from helpers.recorded_sharing import Recorded
from helpers.tiny_suite import SUITE, Watcher, go, plan_of, results_of
from mbench.core.errors import AdmissionError, MbenchError, SuiteError
from mbench.plan.admission.admit import admit, refuse
from mbench.plan.plan import make_plan
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite
from mbench.run.processes import Processes
from mbench.run.runner import Runner
from mbench.storage.artefacts import canonical
from mbench.storage.results_folder import read, write

BOTH = ["reap", "imported"]
FIGURES = ["task", "metric", "value", "stderr", "items"]


def suite_with(place, more="", models="") -> str:
    text = SUITE.replace("  reap: {", f"  imported: {{checkpoint: {place}{more}}}\n  reap: {{")
    return text.replace("models:\n", f"models:\n{models}")


@pytest.fixture
def reap(tmp_path, store):
    """Per layer, the experts that `reap` keeps at half of them."""
    plan = plan_of(tmp_path, store, methods=["reap"])
    outcome, _ = go(plan, store)
    (cell,) = (c for c in plan.cells if c.method.name == "reap" and c.budget.retain == 0.5)
    return [np.flatnonzero(row).tolist() for row in outcome.masks[cell.mask_key].keep]


def figures(table: pd.DataFrame, method: str, retain: float) -> pd.DataFrame:
    rows = table[(table["method"] == method) & (table["retain"] == retain)]
    return rows[FIGURES].reset_index(drop=True)


def louder_router(tensors) -> None:
    for name in tensors:
        if name.endswith("mlp.gate.weight"):
            tensors[name] = tensors[name] * 1.5


def test_what_a_mask_computes_joins_it_and_costs_no_forward_pass(tmp_path, store, reap):
    folder = write_pruned(tmp_path / "pruned", reap)
    plan = plan_of(tmp_path, store, suite_with(folder), methods=BOTH)
    outcome, table = go(plan, store)
    assert outcome.forward_tokens == 0
    pd.testing.assert_frame_equal(figures(table, "imported", 0.5), figures(table, "reap", 0.5))
    results = results_of(plan, outcome)
    (cell,) = (cell for cell in results.cells if cell.method == "imported")
    (made,) = (c for c in results.cells if c.method == "reap" and c.retain == 0.5)
    assert cell.mask == made.mask
    assert cell.published.same_as_mask
    assert cell.published.content == plan.published[0].key
    assert [left.retain for left in results.left_out] == [0.25]


def test_what_differs_is_run_itself_and_equals_running_it_alone(tmp_path, store, reap):
    folder = write_pruned(tmp_path / "pruned", reap, louder_router)
    plan = plan_of(tmp_path, store, suite_with(folder), methods=BOTH)
    outcome, table = go(plan, store)
    assert outcome.forward_tokens > 0
    own = figures(table, "imported", 0.5)
    assert not own["value"].equals(figures(table, "reap", 0.5)["value"])
    results = results_of(plan, outcome)
    (cell,) = (cell for cell in results.cells if cell.method == "imported")
    assert cell.status == "ok"
    assert not cell.published.same_as_mask
    assert any("router" in words for words in cell.published.differs)
    assert [np.flatnonzero(row).tolist() for row in results.masks["demo", cell.mask]] == reap

    # Alone, as the unpruned model of a suite, it has the same figures, and they are stored already.
    alone = SUITE.replace("demo: {plugin: demo,", f"demo: {{path: {folder},")
    _, alone_table = go(plan_of(tmp_path, store, alone, methods=["random"]), store)
    unpruned = alone_table[alone_table["method"] == "none"][FIGURES].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, unpruned)

    write(results, tmp_path / "out")
    again = read(tmp_path / "out")
    told = [(c.key, c.mask, c.tasks, c.published) for c in results.cells]
    assert [(c.key, c.mask, c.tasks, c.published) for c in again.cells] == told
    assert again.left_out == results.left_out

    second, second_table = go(plan_of(tmp_path, store, suite_with(folder), methods=BOTH), store)
    assert second.forward_tokens == 0
    pd.testing.assert_frame_equal(table, second_table)


def test_other_content_behind_a_path_is_another_checkpoint(tmp_path, store, reap):
    folder = write_pruned(tmp_path / "pruned", reap)
    go(plan_of(tmp_path, store, suite_with(folder), methods=BOTH), store)
    other = [[e for e in range(24) if e not in row] for row in reap]
    (folder / "model.safetensors").unlink()
    swapped = write_pruned(tmp_path / "other", other)
    (swapped / "model.safetensors").rename(folder / "model.safetensors")
    plan = plan_of(tmp_path, store, suite_with(folder), methods=BOTH)
    outcome, _ = go(plan, store)
    (cell,) = (cell for cell in plan.cells if cell.method.name == "imported")
    assert [np.flatnonzero(row).tolist() for row in outcome.masks[cell.mask_key].keep] == other


def test_a_checkpoint_has_the_one_budget_that_it_was_pruned_to(tmp_path, store):
    folder = write_pruned(tmp_path / "pruned", [[0, 3, 5, 7, 8, 11, 20, 21, 23]] * 4)
    plan = plan_of(tmp_path, store, suite_with(folder), methods=BOTH)
    _, table = go(plan, store)
    rows = table[table["method"] == "imported"]
    assert set(rows["retain"]) == {9 / 24}
    assert set(rows["experts_kept"]) == {9}
    assert (rows["status"] == "ok").all()


def test_processes_evaluate_a_checkpoint_as_one_does(tmp_path, store, reap, monkeypatch):
    folder = write_pruned(tmp_path / "pruned", reap, louder_router)
    text = suite_with(folder) + "processes: 2\n"
    plan = plan_of(tmp_path, store, text, methods=BOTH)
    outcome = Runner(plan, store, Watcher(), Processes(plan, store)).run()
    (cell,) = (c for c in results_of(plan, outcome).cells if c.method == "imported")
    assert {status.status for status in cell.tasks.values()} == {"ok"}


def test_workers_share_a_checkpoint_as_all_other_work(tmp_path, store, reap):
    folder = write_pruned(tmp_path / "pruned", reap, louder_router)
    plan = plan_of(tmp_path, store, suite_with(folder), methods=BOTH)
    sharing = Recorded()
    Runner(plan, store, Watcher(), sharing=sharing).run()
    (published,) = plan.published
    assert any(name.startswith("recognise ") for name in sharing.names)
    own = canonical(published.identity.parts())
    assert any(name.startswith("evaluations ") and name.endswith(own) for name in sharing.names)
    # One that comes later finds it done.
    sharing = Recorded()
    assert Runner(plan, store, Watcher(), sharing=sharing).run().forward_tokens == 0
    assert not sharing.names


def test_another_tokenizer_is_refused_before_weights_are_read(tmp_path, store):
    folder = write_pruned(tmp_path / "pruned", [list(range(12))] * 4)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    first, second, *_ = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"][:2] = [second, first]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "suite.yaml").write_text(suite_with(folder))
    suite, source = load_suite(tmp_path / "suite.yaml")
    findings = admit(make_plan(suite, source, load_registry(()), store), store)
    with pytest.raises(AdmissionError, match=r"suite\.yaml:\d+.*imported.*tokenizer: another"):
        refuse(findings, source)


@pytest.mark.parametrize(
    ("more", "change", "message"),
    [
        ("", {"num_experts": 24}, "it has 24 experts in a layer, the full model 24"),
        ("", {"hidden_size": 48}, "48 numbers in a hidden state, the full model 96"),
        ("", {"moe_intermediate_size": 32}, "parameters in an expert"),
        (", revision: main", {}, "is a directory, which has no revisions"),
        (", model: dmo", {}, "unknown model 'dmo'; did you mean 'demo'?"),
        (", scorer: reap", {}, "scorer means nothing beside checkpoint"),
    ],
)
def test_what_cannot_be_a_pruned_form_of_the_model_is_refused(
    tmp_path, store, more, change, message
):
    folder = write_pruned(tmp_path / "pruned", [list(range(12))] * 4)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MbenchError, match=r"suite\.yaml:\d+") as caught:
        plan_of(tmp_path, store, suite_with(folder, more))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_with_several_models_the_suite_says_which_one_was_pruned(tmp_path, store):
    folder = write_pruned(tmp_path / "pruned", [list(range(12))] * 4)
    models = f"  other: {{path: {DEMO}}}\n"
    with pytest.raises(SuiteError, match=r"give `model` \(one of other, demo"):
        plan_of(tmp_path, store, suite_with(folder, models=models))
    plan = plan_of(tmp_path, store, suite_with(folder, ", model: other", models=models))
    assert {cell.model for cell in plan.cells if cell.method.name == "imported"} == {"other"}


def test_layers_of_different_sizes_fail_with_what_was_recognised(tmp_path, store):
    order = [list(range(12)), list(range(9)), list(range(12)), list(range(12))]
    folder = write_pruned(tmp_path / "pruned", order)
    plan = plan_of(tmp_path, store, suite_with(folder), methods=BOTH)
    outcome, _ = go(plan, store)
    (cell,) = (c for c in results_of(plan, outcome).cells if c.method == "imported")
    for task in cell.tasks.values():
        assert task.status == "failed"
        assert "layers hold 9 to 12 experts, config.json says 12" in task.reason


def test_damaged_weights_cost_their_row_alone(tmp_path, store):
    folder = write_pruned(tmp_path / "pruned", [list(range(12))] * 4)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    _, table = go(plan_of(tmp_path, store, suite_with(folder), methods=BOTH), store)
    status = table.groupby("method")["status"].agg(set)
    assert status["imported"] == {"failed"}
    assert all(found == {"ok"} for name, found in status.items() if name != "imported")


def test_a_budget_that_a_method_cannot_meet_costs_that_cell_alone(tmp_path, store):
    change = "methods.tb-coverage.selector.overflow=error"
    plan = plan_of(tmp_path, store, set_values=[change])
    (left,) = plan.left_out
    assert (left.method, left.retain) == ("tb-coverage", 0.25)
    assert "protected: 10 exceeds the 6 experts" in left.reason
    outcome, table = go(plan, store)
    assert set(table[table["method"] == "tb-coverage"]["retain"]) == {0.5}
    assert (table["status"] == "ok").all()
    words = [f for f in admit(plan, store) if f.name == "tb-coverage"]
    assert [(f.fact, f.level) for f in words] == [("no cell at 75 % pruned", "note")]
    assert results_of(plan, outcome).left_out == plan.left_out


def test_another_stored_form_names_the_model_that_it_is_a_form_of(tmp_path, store):
    models = f"  twin: {{path: {DEMO}, same_as: demo}}\n"
    text = SUITE.replace("models:\n", f"models:\n{models}")
    plan = plan_of(tmp_path, store, text, methods=["reap"])
    results = results_of(plan, Runner(plan, store, Watcher()).run())
    assert results.provenance.models["twin"].same_as == "demo"
    for wrong, message in (
        ("twin", "must name the model that all other forms are forms of"),
        ("dmo", "unknown model 'dmo'; did you mean 'demo'"),
    ):
        with pytest.raises(SuiteError, match=message):
            plan_of(tmp_path, store, text.replace("same_as: demo", f"same_as: {wrong}"))
    pruned = write_pruned(tmp_path / "pruned", [list(range(12))] * 4)
    with pytest.raises(SuiteError, match="another model: its num_experts is 24, here it is 12"):
        plan_of(tmp_path, store, text.replace(str(DEMO), str(pruned)))
