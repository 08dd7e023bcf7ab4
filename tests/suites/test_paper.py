"""The paper's own suite: planned without its models, and run whole on stand-ins and real text."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import mbench
from helpers.command import call
from helpers.places import DATA, TASKS

SMALLER = {
    "corpora.wikitext2.sequences": 4,
    "corpora.wikitext2.length": 64,
    "corpora.c4.sequences": 4,
    "corpora.c4.length": 64,
    "corpora.evol-codealpaca.sequences": 4,
    "corpora.evol-codealpaca.length": 64,
    "corpora.evol-codealpaca.source.field": "text",
    "perplexity.ppl-wikitext2": "{source: {files: [x]}, window: 64, stride: 32}",
    "perplexity.ppl-c4": "{source: {files: [x]}, window: 64, stride: 32}",
    "efficiency": "{prompt_tokens: 16, new_tokens: 2, repetitions: 3}",
    "tasks.gsm8k.max_gen_toks": 3,
    "tasks.math500.max_gen_toks": 3,
}


def test_the_plan_needs_neither_hub_nor_weights(tmp_path):
    plan = call("plan", "suites/paper.yaml", "--settings", store=tmp_path)
    assert plan.returncode == 0, plan.stderr
    for words in (
        "10 methods at 25, 50, 75 % pruned, 11 tasks",
        "qwen         45   ≤ 46   ≤ 452       0         3  259.9 M",
        "all          90   ≤ 92   ≤ 904       0         6  519.8 M",
        " 29 GB\n",
        "its files cannot be read: sizes are those the suite states",
        "retained experts only: router rows of dropped experts are removed (sliced)",
        "On qwen, 75 % pruned: mean-protected, max-protected, tb-coverage: protection budget "
        "clamped from 20 to the 15 experts",
        "clamped from 24 to the 16 experts",
        "Method reap-evol-codealpaca: scorer reap (variant mean, gates model); selector top-k; "
        "builder as-selected; corpora evol-codealpaca",
        "A100 80 GB",
    ):
        assert words in plan.stdout
    assert ", 50 % pruned:" not in plan.stdout
    as_json = json.loads(call("plan", "suites/paper.yaml", "--json", store=tmp_path).stdout)
    # 512 x 1024 tokens of two corpora and 128 x 2048 of the third.
    assert [model["profile_tokens"] for model in as_json["models"]] == [1_310_720] * 2
    assert [model["unknown_tasks"] for model in as_json["models"]] == [[], []]


def test_running_it_without_hub_or_weights_is_refused(tmp_path):
    run = call("run", "suites/paper.yaml", store=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    assert "the Hugging Face hub is not asked" in run.stderr
    assert "--model NAME=PATH" in run.stderr


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the sample data are not in {DATA}")
def test_the_grid_runs_on_stand_ins_at_its_least_and_greatest_budget(models, texts, tmp_path):
    words = [f"--model={name}={models[name]}" for name in ("qwen", "deepseek")]
    words += ["--retain=0.25", "--retain=0.75", "--set=seeds=[0, 1]"]
    words += [f"--set={key}={value}" for key, value in SMALLER.items()]
    words += [f"--text={name}={path}" for name, path in texts.items()]
    words += [f"--task={name}={path}" for name, path in TASKS.items()]
    run = call(
        *("run", "suites/paper.yaml", "--limit", "2", "--output", str(tmp_path / "out"), *words),
        store=tmp_path / "store",
    )
    assert run.returncode == 0, run.stderr
    table = mbench.load_results(tmp_path / "out" / "paper")
    left_out = table[table["status"] == "left out"]
    assert set(left_out["task"]) == {"mmlu", "gsm8k", "math500"}
    assert set(left_out["method"]) == {"random"}
    assert set(table["status"]) == {"ok", "left out"}
    cells = table[["model", "method", "seed", "retain"]].drop_duplicates()
    assert cells.groupby("model").size().to_dict() == {"qwen": 23, "deepseek": 23}
    assert set(table["task"]) == {*TASKS, "ppl-wikitext2", "ppl-c4", "Common Avg"}
    saved = pd.read_csv(tmp_path / "out" / "paper" / "efficiency.csv")
    assert set(saved["model"]) == {"qwen", "deepseek"}
    assert (saved["status"] == "ok").all()
    kept = table[table["method"] != "none"].groupby(["model", "retain"])["experts_kept"]
    assert kept.unique().map(list).to_dict() == {
        ("deepseek", 0.25): [16],
        ("deepseek", 0.75): [48],
        ("qwen", 0.25): [15],
        ("qwen", 0.75): [45],
    }
