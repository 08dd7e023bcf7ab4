"""The suites beside the paper's: each is planned as it is, and run whole on stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import mbench
from helpers.command import call
from helpers.places import DATA, ROOT, TASKS

SUITES = {
    "protection_budget": ["qwen"],
    "router_semantics": ["qwen"],
    "calibration_size": ["qwen"],
    "families": ["olmoe", "qwen3", "mixtral", "deepseek-v2-lite", "gpt-oss"],
}


@pytest.mark.parametrize("name", SUITES)
def test_a_plan_needs_neither_hub_nor_weights(name, tmp_path):
    plan = call("plan", name, "--json", store=tmp_path)
    assert plan.returncode == 0, plan.stderr
    costs = json.loads(plan.stdout)["models"]
    assert [cost["model"] for cost in costs] == SUITES[name]
    assert all(cost["evaluation_tokens"] > 0 and not cost["unknown_tasks"] for cost in costs)


def smaller(name: str, texts: dict[str, Path]) -> list[str]:
    """Options that make a suite run within seconds: little text, one budget, two tasks."""
    corpora = {
        "calibration_size": ("c4-8", "c4-32", "c4-128", "c4-512", "c4-32-second", "c4-32-third"),
        "router_semantics": ("c4",),
    }.get(name, ("wikitext2", "c4"))
    words = ["--limit=2", "--retain=0.5", "--set=average=null"]
    words += ["--set=efficiency={prompt_tokens: 16, new_tokens: 2, repetitions: 3}"]
    for corpus in corpora:
        words += [f"--set=corpora.{corpus}.{key}" for key in ("sequences=4", "length=64")]
        words += [f"--text={corpus}={texts['c4' if 'c4' in corpus else 'wikitext2']}"]
    for text in ("ppl-wikitext2", "ppl-c4"):
        words += [f"--set=perplexity.{text}.window=64", f"--set=perplexity.{text}.stride=32"]
        words += [f"--text={text}={texts[text]}"]
    return [*words, "--set=tasks={piqa: {metric: acc_norm}}", f"--task=piqa={TASKS['piqa']}"]


@pytest.mark.parametrize("path", sorted((ROOT / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_everything_is_from_a_plugin_or_pinned_on_the_hub(path):
    """Otherwise a run of tomorrow or elsewhere is another one, or planning needs the hub."""

    def unpinned(node):
        if isinstance(node, dict):
            if "hub" in node and len(node.get("revision", "")) != 40:
                yield node["hub"]
            yield from (node[key] for key in ("path", "files", "directory") if key in node)
            for value in node.values():
                yield from unpinned(value)

    assert list(unpinned(yaml.safe_load(path.read_text()))) == []


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the sample data are not in {DATA}")
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_runs_whole_on_stand_ins(name, models, texts, tmp_path):
    words = [f"--model={model}={models[model]}" for model in SUITES[name]]
    output = Path(tmp_path / "out")
    run = call(
        *("run", f"suites/{name}.yaml", "--output", str(output), *smaller(name, texts), *words),
        store=tmp_path / "store",
    )
    assert run.returncode == 0, run.stderr
    table = mbench.load_results(output / name)
    assert (table["status"] == "ok").all()
    assert set(table["model"]) == set(SUITES[name])
    if name == "protection_budget":
        masks = table.groupby("method")["mask"].first()
        # From B = K on, coverage decides alone.
        assert masks["tb-b30"] == masks["tb-b38"] == masks["tb-b45"] != masks["tb-b25"]
    if name == "router_semantics":
        routers = table.groupby("method")["router"].first()
        assert routers["reap-c4"] == "sliced"
        assert routers["reap-c4-preserved"] == "preserved"
