"""Provenance as a run records it, with chosen parts."""

from __future__ import annotations

import dataclasses

from mbench.core.cell_results import UNPRUNED
from mbench.core.model_facts import ModelFacts
from mbench.core.provenance import (
    ComponentSettings,
    CorpusSettings,
    MethodSettings,
    ModelRecord,
    ModelSource,
    Provenance,
    TaskSettings,
)
from mbench.core.run_record import Checkout, Hardware, PluginComponent, RunCost, RunRecord


def component(name, **parameters):
    return ComponentSettings(name, parameters)


def method(scorer="reap", *, selector="top-k", corpora=("wiki",), candidate=None, router="sliced"):
    """A method of components without parameters; `scorer` may be a whole one, or None."""
    if isinstance(scorer, str):
        scorer = component(scorer)
    builder = "as-selected" if candidate is None else "protect"
    return MethodSettings(
        scorer=scorer,
        selector=component(selector),
        builder=component(builder),
        corpora=corpora,
        candidate=candidate,
        router=router,
    )


def corpus(documents="ab" * 32):
    return CorpusSettings({"documents": documents}, 4, 64, "concatenate", "\n\n", 0)


def task(name, metric):
    """A perplexity or a task of lm-eval, by its metric."""
    if metric == "perplexity":
        settings = {"kind": "perplexity", "window": 64, "max_windows": None}
        return TaskSettings({"documents": f"text of {name}"}, None, settings)
    return TaskSettings(None, "0.4.13", {"kind": "lm-eval", "task": name, "limit": None})


def model(name="tiny", layers=2, experts=8, **changes):
    facts = ModelFacts(
        model_type="olmoe",
        architecture="OlmoeForCausalLM",
        layers=tuple(f"model.layers.{number}.mlp.experts" for number in range(layers)),
        num_experts=experts,
        top_k=2,
        hidden_size=16,
        parameters=100_000,
        expert_parameters=1_000,
        dtype="bfloat16",
    )
    recorded = ModelRecord(
        content=f"sha256:hash of {name}",
        source=ModelSource("hub", f"org/{name}"),
        revision=None,
        trust_remote_code=False,
        dtype="float32",
        facts=facts,
    )
    return dataclasses.replace(recorded, **changes)


def run_record(suite="run", command=("mbench", "run", "x"), **changes):
    record = RunRecord(
        suite=suite,
        title=f"The {suite}",
        description="",
        command=command,
        changes=(),
        suite_sha256="cd" * 32,
        versions={"mbench": "0.1.0", "torch": "2.9.0+cpu", "transformers": "5.23.0"},
        code={"moe": "1" * 64, "evaluate": "2" * 64},
        suite_checkout=Checkout("ab" * 20),
        mbench_checkout=Checkout("ab" * 20),
        hardware=Hardware("x86_64", "Linux 6", 2),
        plugins=(PluginComponent("selector", "top-k", "mbench 0.1.0", "ef" * 32, {}),),
        profiles={},
        cost=RunCost(0, {}, {}, {}, False),
    )
    return dataclasses.replace(record, **changes)


def provenance(tasks, methods, models=None, run=None, **changes):
    """Of tasks (name -> metric) and methods (model -> name -> settings)."""
    methods = {model: dict(named) for model, named in methods.items()}
    used = {c for named in methods.values() for one in named.values() for c in one.corpora}
    recorded = Provenance(
        router="sliced",
        corpora={name: corpus() for name in sorted(used)},
        tasks={name: task(name, metric) for name, metric in tasks.items()},
        models=models or {name: model(name) for name in methods},
        methods=methods,
        runs=(run or run_record(),),
    )
    return dataclasses.replace(recorded, **changes)


def recorded(results, **changes):
    """The results with settings on record for every model, method and task that they name."""
    methods = {cell.model: {} for cell in results.cells}
    for cell in results.cells:
        if cell.method != UNPRUNED:
            methods[cell.model][cell.method] = method(cell.method)
    made = provenance(results.task_metrics, methods, run=run_record(results.suite), **changes)
    return dataclasses.replace(results, provenance=made)
