"""Merging is a union of cells that refuses contradictions; the reference is a dictionary union."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from helpers.small_runs import TASKS, cell, change, grid, results, run, with_items
from mbench.core.errors import MergeError
from mbench.core.evaluation import evaluation
from mbench.core.results import long_form
from mbench.report.across_runs.merge import merge
from mbench.report.across_runs.merged_records import DIFFER, MERGED, SETTLED
from mbench.storage.results_folder import read, write

KEYS = grid(models=("m", "n"))


@st.composite
def partial_runs(draw, name):
    """Some cells of the same experiment, some of them failed, on some of its tasks."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, unique=True))
    tasks = {t: TASKS[t] for t in draw(st.sets(st.sampled_from([*TASKS]), min_size=1))}
    statuses = st.sampled_from(["ok", "ok", "failed", "interrupted"])
    cells = [cell(*key, tasks=tasks, status=draw(statuses)) for key in keys]
    return results(cells, tasks=tasks, name=name, command=name)


def content(merged):
    """All that matters, without order."""
    table = long_form(merged)
    order = ["model", "method", "seed", "retain", "task", "metric"]
    rows = table.sort_values(order).drop(columns=["stderr"]).to_csv(index=False)
    reasons = sorted(
        (str(c.model), c.method, str(c.seed), c.retain, task, c.tasks[task].reason)
        for c in merged.cells
        for task in merged.task_metrics
        if task in c.tasks
    )
    plain = lambda name: sorted(name.split("+"))  # noqa: E731
    entries = sorted((e.name, e.text) for e in merged.protocol if e.name != MERGED)
    models = merged.provenance.methods
    return rows, reasons, plain(merged.suite), entries, models, sorted(merged.masks)


# Shrinking would take minutes.
@settings(deadline=None, max_examples=25, phases=[Phase.reuse, Phase.generate])
@given(partial_runs("a"), partial_runs("b"), partial_runs("c"))
def test_merging_is_a_union_whatever_the_order(a, b, c):
    whole = content(merge({"a": a, "b": b, "c": c}))
    assert whole == content(merge({"c": c, "b": b, "a": a}))
    left = merge({"ab": merge({"a": a, "b": b}), "c": c})
    right = merge({"a": a, "bc": merge({"b": b, "c": c})})
    assert whole == content(left) == content(right)
    assert content(merge({"ab": left, "b": b})) == whole
    assert merge({"a": a, "again": a}) == merge({"a": a})
    # The reference: whatever any run measured, once.
    measured = {
        (c.model, c.method, c.seed, c.retain, task): c.evaluations[task].metrics
        for one in (a, b, c)
        for c in one.cells
        for task in c.evaluations
    }
    found = {
        (c.model, c.method, c.seed, c.retain, task): c.evaluations[task].metrics
        for c in left.cells
        for task in c.evaluations
    }
    assert found == measured
    keys = [(c.model, c.method, c.seed, c.retain) for c in left.cells]
    assert len(keys) == len(set(keys))
    assert set(keys) == {(c.model, c.method, c.seed, c.retain) for o in (a, b, c) for c in o.cells}


def test_a_run_merged_with_itself_is_itself():
    whole = run(KEYS)
    assert merge({"a": whole, "b": whole}) == whole


def test_a_merged_run_can_be_written_read_and_rendered(tmp_path):
    from helpers.pages import html_of

    half = {m: run([k for k in KEYS if k[0] == m], name=m) for m in ("m", "n")}
    scores = {m: {(m, "alpha", "wiki"): np.full((2, 8), s)} for m, s in (("m", 0.5), ("n", 1.5))}
    half = {m: dataclasses.replace(own, scores=scores[m]) for m, own in half.items()}
    merged = merge(half)
    write(merged, tmp_path)
    assert read(tmp_path) == merged
    kept = read(tmp_path).scores
    assert {place: set(own.ravel()) for place, own in kept.items()} == {
        ("m", "alpha", "wiki"): {0.5},
        ("n", "alpha", "wiki"): {1.5},
    }
    assert merged.suite == "m+n"
    page = html_of(merged)
    assert "n, router sliced" in page
    assert "m, router sliced" in page


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("methods", "m", "beta", "router"),
            "preserved",
            "method beta on m › router: not set in a; preserved in b",
        ),
        (
            ("corpora", "wiki", "length"),
            128,
            "corpus wiki › length: 64 in a; 128 in b",
        ),
        (("corpora", "wiki", "text", "documents"), "cd", "corpus wiki › text › documents: abab"),
        (
            ("tasks", "quiz", "settings", "limit"),
            40,
            "task quiz › limit: none in a; 40 in b",
        ),
        (
            ("tasks", "quiz", "settings", "num_fewshot"),
            5,
            "task quiz › num_fewshot: not set in a; 5 in b",
        ),
        (
            ("tasks", "quiz", "lm_eval"),
            "0.4.14",
            "task quiz › version of lm-eval: 0.4.13 in a; 0.4.14 in b",
        ),
        (("runs", 0, "code", "moe"), "3", f"code of mbench › moe: {'1' * 64} in a; 3 in b"),
        (("runs", 0, "code"), {"moe": "1" * 64}, "code of mbench › evaluate: 2222"),
        (("models", "m", "dtype"), "bfloat16", "model m › dtype: float32 in a; bfloat16 in b"),
        (("runs", 0, "versions", "torch"), "2.10.0", "version of torch: 2.9.0 in a; 2.10.0 in b"),
        (
            ("methods", "m", "beta", "scorer", "parameters", "power"),
            3,
            "method beta on m › scorer › power: 2 in a; 3 in b",
        ),
    ],
)
def test_a_setting_that_decides_figures_is_refused_with_both_values(path, value, message):
    whole = run(grid())
    with pytest.raises(MergeError) as error:
        merge({"a": whole, "b": change(whole, path, value)})
    first, line = str(error.value).splitlines()
    assert first == "cannot merge: the runs differ in"
    assert line.strip().startswith(message)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("versions", "torch"), "2.9.0+cu128", "versions torch: 2.9.0+cpu in 1 run; 2.9.0+cu128"),
        (("versions", "mbench"), "0.2.0", "versions mbench: 0.1.0 in 1 run; 0.2.0 in 2 run"),
        (("hardware", "machine"), "arm64", "hardware machine: x86_64 in 1 run; arm64 in 2 run"),
        (("hardware", "gpus"), ["H100"], "hardware gpus: none in 1 run; H100 in 2 run"),
        (
            ("plugins", 0, "distributions"),
            {"scipy": "1.2"},
            "plugins selector top-k › distributions › scipy: not set in 1 run; 1.2 in 2 run",
        ),
        (
            ("mbench_checkout", "changed"),
            True,
            f"git of mbench: {'ab' * 20} in 1 run; {'ab' * 20} with uncommitted changes in 2 run",
        ),
    ],
)
def test_what_decides_nothing_is_told(path, value, told):
    whole = run(grid())
    merged = merge({"a": whole, "b": change(whole, ("runs", 0, *path), value)})
    (text,) = [entry.text for entry in merged.protocol if entry.name == DIFFER]
    assert text.startswith(told)
    assert merged.cells == whole.cells


def test_metric_average_and_items_are_settings_too():
    whole = run(grid())
    other = dataclasses.replace(whole, task_metrics={**TASKS, "quiz": "acc_norm"})
    with pytest.raises(MergeError, match="task quiz › metric: acc in a; acc_norm in b"):
        merge({"a": whole, "b": other})
    other = dataclasses.replace(whole, average="Mean")
    with pytest.raises(MergeError, match="average › name: Average in a; Mean in b"):
        merge({"a": whole, "b": other})
    fewer = with_items(whole, "quiz", lambda table: table.iloc[:20])
    with pytest.raises(MergeError, match=r"task quiz › items on m: 30 \(with 'quiz/20'\) in a; 20"):
        merge({"a": whole, "b": fewer})


def test_contradictory_figures_are_refused_by_name_or_settled_by_name():
    a = run(grid())
    b = with_items(a, "ppl", lambda table: table.assign(nll=table["nll"] * 1.001))
    with pytest.raises(MergeError) as error:
        merge({"a": a, "b": b})
    first, *lines = str(error.value).splitlines()
    assert first == "cannot merge: the runs contradict each other on"
    assert lines[0].startswith("  m unpruned, ppl: perplexity ")
    assert " in a; perplexity " in lines[0]
    assert len(lines) == len({one.mask for one in a.cells})
    settled = merge({"a": a, "b": b}, prefer="b")
    assert [c.metric("ppl", "perplexity") for c in settled.cells] == [
        c.metric("ppl", "perplexity") for c in b.cells
    ]
    told = [entry.text for entry in settled.protocol if entry.name == SETTLED]
    assert len(told) == len(lines)


def test_the_last_digits_do_not_contradict():
    a = run(grid())
    b = with_items(a, "ppl", lambda table: table.assign(nll=table["nll"] * (1 + 1e-6)))
    merged = merge({"a": a, "b": b})
    assert merged.cells == a.cells
    with pytest.raises(MergeError):
        merge({"a": a, "b": with_items(a, "quiz", lambda t: t.assign(acc=1 - t["acc"]))})


def test_other_masks_of_one_cell_are_refused():
    a = run(grid())
    other = dataclasses.replace(cell("m", "beta", None, 0.5), method="alpha")
    b = dataclasses.replace(
        a, cells=tuple(other if (c.method, c.retain) == ("alpha", 0.5) else c for c in a.cells)
    )
    with pytest.raises(
        MergeError, match=r"m 50 % pruned, alpha, the experts kept: mask .* in a; mask "
    ):
        merge({"a": a, "b": b})
    settled = merge({"a": a, "b": b}, prefer="b")
    assert [c.mask for c in settled.cells if c.method == "alpha" and c.retain == 0.5] == [
        other.mask
    ]


def test_runs_without_hashes_of_code_do_not_differ_in_it():
    bare = change(run(grid()), ("runs", 0, "code"), {})
    assert merge({"a": bare, "b": bare}) == bare


def test_lm_eval_matters_only_to_runs_of_its_tasks():
    a, b = run(grid(), tasks=("ppl",)), run(grid(), tasks=("ppl",), name="other")
    older = change(a, ("runs", 0, "versions", "lm-eval"), "0.4.12")
    newer = change(b, ("runs", 0, "versions", "lm-eval"), "0.4.13")
    assert merge({"a": older, "b": newer}).cells == a.cells


def test_a_merged_run_has_the_record_of_every_run_and_the_settings_of_all():
    counted = {"m": {"wiki": {"tokens": 9, "never_selected": 2, "gate_mass": [0.5]}}}
    partly = {"m": {"wiki": {"tokens": 9, "never_selected": None, "gate_mass": []}}}
    a = run(grid(methods=("beta",)), name="a")
    a = change(a, ("runs", 0, "profiles"), partly)
    b = run(grid(models=("m", "n"), methods=("alpha",)), name="b")
    b = change(b, ("runs", 0, "profiles"), counted)
    b = change(b, ("runs", 0, "versions", "torch"), "2.9.0+cu128")
    found = merge({"a": a, "b": b}).provenance
    assert found.runs == (*a.provenance.runs, *b.provenance.runs)
    assert {model: set(methods) for model, methods in found.methods.items()} == {
        "m": {"alpha", "beta"},
        "n": {"alpha"},
    }
    assert found.profiles_of("m") == b.provenance.profiles_of("m")
    assert found.versions == a.provenance.versions | {"torch": "2.9.0"}
    again = merge({"ab": merge({"a": a, "b": b}), "b": b}).provenance
    assert again == found


def test_one_mask_under_two_router_modes_is_two_measurements():
    a = run(grid(methods=("alpha",)))
    sliced = a.cells[-1]
    other = with_items(dataclasses.replace(a, cells=(sliced,)), "quiz", lambda t: t.assign(acc=1.0))
    preserved = dataclasses.replace(other.cells[0], method="beta", router="preserved")
    b = dataclasses.replace(a, cells=(a.cells[0], preserved))
    merged = merge({"a": a, "b": b})
    found = {c.method: c.metric("quiz", "acc").value for c in merged.cells if c.retain == 0.5}
    assert found == {"alpha": sliced.metric("quiz", "acc").value, "beta": 1.0}


def altered(whole, place, task, change):
    """The run with another table of one cell, told by (method, retain)."""
    cells = []
    for one in whole.cells:
        if (one.method, one.retain) == place:
            table = change(one.evaluations[task].items)
            found = {**one.evaluations, task: evaluation(task, table)}
            one = dataclasses.replace(one, evaluations=found)
        cells.append(one)
    return dataclasses.replace(whole, cells=tuple(cells))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[:20], r"m 50 % pruned, beta, quiz › items: .*30 \(with 'quiz/20'\) in a"),
        (lambda t: t.iloc[[0, *range(30)]], "m 50 % pruned, beta, quiz: item 'quiz/0' twice in b"),
    ],
)
def test_other_items_of_a_later_cell_contradict_in_either_order(change, message):
    a = run(grid())
    b = altered(a, ("beta", 0.5), "quiz", change)
    for runs in ({"a": a, "b": b}, {"b": b, "a": a}):
        with pytest.raises(MergeError, match=message) as error:
            merge(runs)
        assert len(str(error.value).splitlines()) == 2


def test_a_cell_with_fewer_items_that_only_one_run_has_is_no_contradiction():
    a = altered(run(grid()), ("alpha", 0.25), "quiz", lambda t: t.iloc[:20])
    b = run([key for key in grid() if key[1:] != ("alpha", None, 0.25)])
    assert content(merge({"a": a, "b": b})) == content(merge({"b": b, "a": a}))


@pytest.mark.parametrize("prefer", [None, "a"])
def test_one_mask_with_two_outcomes_within_a_run_is_refused(prefer):
    a = run(grid())
    one = next(c for c in a.cells if (c.method, c.retain) == ("alpha", 0.5))
    again = dataclasses.replace(one, method="beta")
    cells = tuple(again if (c.method, c.retain) == ("beta", 0.5) else c for c in a.cells)
    twin = dataclasses.replace(a, cells=cells)
    assert merge({"a": twin, "b": twin}) == twin
    wrong = altered(twin, ("beta", 0.5), "quiz", lambda t: t.assign(acc=1 - t["acc"]))
    with pytest.raises(
        MergeError, match=r"acc .* in a \(m 50 % pruned, alpha\); acc .* in a \(m 50 % pruned, beta"
    ):
        merge({"a": wrong, "b": run(grid(methods=("random",)))}, prefer=prefer)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_equal_infinite_losses_agree():
    a = altered(run(grid()), ("alpha", 0.5), "ppl", lambda t: t.assign(nll=float("inf")))
    assert merge({"a": a, "b": dataclasses.replace(a)}) == a
    b = altered(a, ("alpha", 0.5), "ppl", lambda t: t.assign(nll=1.0))
    with pytest.raises(MergeError, match="m 50 % pruned, alpha, ppl"):
        merge({"a": a, "b": b})
