"""What pruning saves: what is counted, how it is timed, and where the figures go."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from helpers import deepseek_moe, records
from helpers.deepseek_moe import CONFIG
from helpers.demo_results import synthetic
from helpers.page_tables import Tables
from helpers.pages import html_of
from helpers.prunable import built, draw
from helpers.quantised_checkpoints import write_pair
from helpers.recorded_sharing import Recorded
from helpers.tiny_models import random_sequences, save
from helpers.tiny_suite import results_of
from mbench.cli.summary import list_problems
from mbench.core.errors import MbenchError
from mbench.core.model_facts import ModelFacts
from mbench.core.savings import Footprint, Saving, Spread
from mbench.core.suite import EfficiencySpec
from mbench.moe.load import load
from mbench.moe.prune import prune
from mbench.moe.stored_size import stored_size
from mbench.plan.plan import make_plan
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite
from mbench.report.across_runs.merge import merge
from mbench.run import footprint as measure
from mbench.run.progress import Progress
from mbench.run.runner import Runner
from mbench.storage.results_folder import read, write
from mbench.storage.store import Store

SUITE = """\
name: savings
models: {demo: {plugin: demo, dtype: float32}}
retain: [0.25, 0.5]
methods: {random: {seeds: [0]}}
perplexity:
  ppl-wiki:
    {source: {plugin: wiki, split: evaluation}, window: 32, stride: 16, max_windows: 2}
efficiency: {prompt_tokens: 16, new_tokens: 2, repetitions: 3}
"""


@given(st.integers(2, 80), st.data())
def test_the_measured_mask_keeps_k_in_every_layer_and_group(count, data):
    kept = data.draw(st.integers(1, count))
    layer = dataclasses.replace(built("olmoe")[1][0], num_experts=count)
    keep = measure.even_mask([layer] * 2, kept)
    assert keep.shape == (2, count)
    assert (keep.sum(axis=1) == kept).all()
    for groups in (2, 3, 4):
        if count % groups == 0 and kept % groups == 0:
            assert (keep.reshape(2, groups, -1).sum(axis=2) == kept // groups).all()


def test_live_tensors_are_what_the_profiler_of_torch_sees_allocated():
    model, _ = built("qwen3_moe")
    ids = torch.from_numpy(random_sequences([20, 20]).ids)
    counted, _ = measure.most_allocated(lambda: measure.generate(model, ids, 3), ids.device)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        measure.generate(model, ids, 3)
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    total = most = 0
    for _, change in changes:
        total += change
        most = max(most, total)
    # Temporaries inside one operation are the profiler's alone.
    assert counted <= most
    assert counted == pytest.approx(most, rel=0.15)


def facts(dtype):
    sizes = dict.fromkeys(("num_experts", "top_k", "hidden_size", "parameters"), 1)
    return ModelFacts("", "", (), **sizes, expert_parameters=1, dtype=dtype)


def test_sizes_are_those_of_the_architecture():
    model, layers = built("mixtral")
    smaller = prune(model, layers, draw(layers, 4))
    spec = EfficiencySpec(prompt_tokens=16, new_tokens=2, batch_size=2, repetitions=3)
    full, pruned, _ = measure.compare(model, smaller, spec, facts("bfloat16"))
    expert = 3 * 16 * 32
    assert full.parameters - pruned.parameters == 2 * 4 * (expert + 32)
    assert full.checkpoint_bytes == 2 * full.parameters
    assert full.weight_bytes - pruned.weight_bytes == 4 * (full.parameters - pruned.parameters)
    layers, batch, heads, head_size, tokens = 2, 2, 2, 8, 18
    keys_and_values = 2 * layers * batch * heads * head_size * tokens * 4
    assert pruned.peak_bytes - pruned.weight_bytes > keys_and_values
    for each in (full, pruned):
        for speed in (each.prefill, each.decode):
            assert 0 < speed.minimum <= speed.median <= speed.maximum


@pytest.mark.parametrize("family", ["deepseek", "glm4_moe"])
def test_a_checkpoints_size_is_that_of_its_tensors(family, tmp_path):
    """One family is loaded with tensors that its files lack, the other has buffers in them."""
    if family == "deepseek":
        path = deepseek_moe.write(tmp_path, CONFIG, deepseek_moe.random_tensors(CONFIG))
    else:
        path = save(built(family)[0], tmp_path)
    loaded = load(str(path), device="cpu")
    pruned = prune(loaded.model, loaded.layers, measure.even_mask(loaded.layers, 4))
    spec = EfficiencySpec(prompt_tokens=4, new_tokens=1, batch_size=1, repetitions=3)
    full, smaller, _ = measure.compare(loaded.model, pruned, spec, loaded.facts)
    tensors = [each for file in path.glob("*.safetensors") for each in load_file(file).values()]
    assert full.checkpoint_bytes == sum(tensor.nbytes for tensor in tensors)
    assert full.parameters == loaded.facts.parameters
    dropped = full.parameters - smaller.parameters
    row = loaded.facts.expert_parameters + loaded.facts.hidden_size
    assert dropped == 4 * len(loaded.layers) * row


def test_quantised_weights_count_the_bytes_that_they_are_stored_in(tmp_path):
    quantised, twin = (
        load(str(path), device="cpu") for path in write_pair("gpt-oss-mxfp4", tmp_path)
    )
    keep = measure.even_mask(quantised.layers, 4)
    pruned = prune(quantised.model, quantised.layers, keep)
    spec = EfficiencySpec(prompt_tokens=4, new_tokens=1, batch_size=1, repetitions=3)
    with pytest.raises(MbenchError, match="its weights take in MXFP4 is not known"):
        measure.compare(quantised.model, pruned, spec, quantised.facts)
    size = stored_size(tmp_path / "quantised")
    stored = (size.bytes, size.bytes_left(keep))
    full, smaller, _ = measure.compare(quantised.model, pruned, spec, quantised.facts, stored)
    tensors = load_file(tmp_path / "quantised" / "model.safetensors")
    assert full.checkpoint_bytes == sum(tensor.nbytes for tensor in tensors.values())
    halved = [t for name, t in tensors.items() if ".experts." in name or ".router." in name]
    dropped = sum(tensor.nbytes // 2 for tensor in halved)
    assert full.checkpoint_bytes - smaller.checkpoint_bytes == dropped
    assert full.parameters == twin.facts.parameters


def test_the_accelerator_that_computes_is_the_one_that_is_counted(monkeypatch):
    asked = set()

    def ask(device):
        asked.add(device)
        return 5

    for name in (
        "synchronize",
        "reset_peak_memory_stats",
        "memory_allocated",
        "max_memory_allocated",
    ):
        monkeypatch.setattr(torch.cuda, name, ask)
    second = torch.device("cuda:1")
    assert measure.most_allocated(lambda: None, second) == (0, "torch.cuda allocator")
    assert asked == {second}


def test_models_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    model, layers = built("olmoe")
    smaller = prune(model, layers, draw(layers, 2))
    calls = []

    def clockwork(side, ids, new_tokens):
        calls.append("full" if side is model else "pruned")
        round_number = (len(calls) - 1) // 2
        slow = 1000.0 if round_number == 0 else float(round_number)
        return (slow, slow) if side is model else (slow / 2, slow / 4)

    monkeypatch.setattr(measure, "generate", clockwork)
    monkeypatch.setattr(measure, "most_allocated", lambda run, device: (7, "nothing"))
    spec = EfficiencySpec(prompt_tokens=12, new_tokens=6, batch_size=2, repetitions=3)
    full, pruned, counted = measure.compare(model, smaller, spec, facts("float32"))
    assert calls == ["pruned", "full", "full", "pruned"] * 2
    assert full.prefill == Spread(24 / 3, 24 / 2, 24 / 1)
    assert pruned.decode == Spread(4 * 12 / 3, 4 * 12 / 2, 4 * 12 / 1)
    assert (full.peak_bytes - full.weight_bytes, counted) == (7, "nothing")
    longer = EfficiencySpec(prompt_tokens=60, new_tokens=6)
    with pytest.raises(MbenchError, match="exceed the model's 64"):
        measure.compare(model, smaller, longer, facts("float32"))


def run(tmp_path, *values, sharing=None):
    path = tmp_path / "savings.yaml"
    path.write_text(SUITE)
    suite, source = load_suite(path, set_values=values)
    store = Store(tmp_path / "store")
    plan = make_plan(suite, source, load_registry(), store)
    outcome = Runner(plan, store, Progress(), sharing=sharing).run()
    return results_of(plan, outcome)


def test_workers_measure_a_budget_once(tmp_path):
    sharing, later = Recorded(), Recorded()
    first = run(tmp_path, sharing=sharing)
    assert sum(name.startswith("efficiency ") for name in sharing.names) == 2
    assert run(tmp_path, sharing=later).efficiency == first.efficiency
    assert not later.names


def test_a_run_measures_each_budget_once_and_failures_are_named(tmp_path, monkeypatch):
    first = run(tmp_path)
    assert [(each.retain, each.kept, each.status) for each in first.efficiency] == [
        (0.25, 6, "ok"),
        (0.5, 12, "ok"),
    ]
    quarter, half = (each.pruned.parameters for each in first.efficiency)
    assert (
        first.efficiency[0].unpruned.parameters - quarter
        == 3 * (first.efficiency[1].unpruned.parameters - half) // 2
    )
    with monkeypatch.context() as patch:
        patch.setattr(measure, "compare", lambda *_: pytest.fail("it is in the store"))
        assert run(tmp_path).efficiency == first.efficiency
    failed = run(tmp_path, "efficiency.prompt_tokens=400")
    assert [each.status for each in failed.efficiency] == ["failed", "failed"]
    ((what, why),) = list_problems(failed)
    assert what == "failed efficiency (demo 75 % pruned and 1 more)"
    assert "exceed the model's 256" in why
    write(first, tmp_path / "report")
    assert read(tmp_path / "report").efficiency == first.efficiency
    write(dataclasses.replace(first, efficiency=()), tmp_path / "report")
    assert not (tmp_path / "report" / "efficiency.csv").exists()


def saving(retain, **changes):
    full = Footprint(4000, 8000, 16000, 20000, Spread(90, 100, 110), Spread(9, 10, 11))
    speeds = {"prefill": Spread(150, 200, 250), "decode": Spread(9, 12, 15)}
    pruned = Footprint(1000, 2000, 4000, 8000, **speeds)
    values = {"status": "ok", "reason": "", "unpruned": full, "pruned": pruned, "device": "a box"}
    values |= changes
    model = synthetic().cells[0].model
    return Saving(model=model, retain=retain, kept=8, **values)


def test_merging_keeps_what_each_machine_measured():
    lost = {"status": "failed", "reason": "out of memory", "unpruned": None, "pruned": None}
    failed, done, elsewhere = saving(0.5, **lost), saving(0.5), saving(0.5, device="another")
    shared = synthetic().provenance
    runs = {
        name: dataclasses.replace(
            synthetic(),
            efficiency=measured,
            provenance=dataclasses.replace(shared, runs=(records.run_record(name),)),
        )
        for name, measured in {"a": (saving(0.25), failed), "b": (done, elsewhere)}.items()
    }
    merged = merge(runs)
    assert merged.efficiency == (saving(0.25), done, elsewhere)
    assert merge({"a": merged, "b": merged}).efficiency == merged.efficiency
    page = html_of(merged)
    assert page.count("What a pruned demo/tiny-moe saves</span>") == 2


def test_figures_reach_the_table_and_the_page(tmp_path):
    lost = {"status": "failed", "reason": "out of memory", "unpruned": None, "pruned": None}
    measured = (saving(0.25), saving(0.5, **lost))
    # One method with preserved gates, which no smaller model has.
    cells = tuple(
        dataclasses.replace(cell, router="preserved") if cell.method == "frequency" else cell
        for cell in synthetic().cells
    )
    results = dataclasses.replace(synthetic(), cells=cells, efficiency=measured)
    write(results, tmp_path)
    table = pd.read_csv(tmp_path / "efficiency.csv")
    row = table[(table["retain"] == 0.25) & (table["variant"] == "pruned")].iloc[0]
    assert (row["peak_bytes"], row["prefill_median"], row["decode_max"]) == (8000, 200, 15)
    assert table["status"].tolist() == ["ok", "ok", "failed", "failed"]
    assert table.loc[2:, "parameters"].isna().all()
    tables = Tables(html_of(read(tmp_path))).tables
    model = results.cells[0].model
    _, half, quarter = tables[f"What a pruned {model} saves"]
    text = " ".join(quarter).replace("\N{NO-BREAK SPACE}", " ")
    for figure in ("25 % of 8 kB", "40 % of 20 kB", "2.00 × 100", "1.20 × 10", "150–250"):
        assert figure in text
    assert half[1] == "failed|out of memory"
    scores = tables[f"Common Avg of {model} against memory"]
    methods = {cell.method for cell in results.cells if cell.retain == 0.25}
    assert {row[0] for row in scores[1:]} == methods - {"frequency"} | {"unpruned"}
    # What was not measured has no memory to be set against.
    assert not any(row[1].startswith("50") for row in scores)
    assert "What pruning saves" not in html_of(synthetic())
