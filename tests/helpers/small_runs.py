"""Small results of chosen outcomes, with the provenance that a run records."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import pandas as pd

from mbench.core.evaluation import evaluation
from mbench.core.interfaces import ExpertMask
from mbench.core.results import UNPRUNED, CellResult, Results, TaskStatus

LAYERS, EXPERTS = 2, 8
TASKS = {"ppl": "perplexity", "quiz": "acc"}
METHODS = {
    "random": {"selector": "uniform", "builder": "as-selected"},
    "alpha": {"scorer": "alpha", "selector": "top-k", "corpora": "wiki"},
    "beta": {"scorer": "beta (power 2)", "selector": "top-k", "corpora": "wiki"},
}


@functools.cache
def mask(model, method, seed, retain):
    """bool [layers, N], the same for the same arguments."""
    if method == UNPRUNED:
        return np.ones((LAYERS, EXPERTS), bool)
    rng = np.random.default_rng(list(f"{model}{method}{seed}{retain}".encode()))
    keep = np.zeros((LAYERS, EXPERTS), bool)
    for row in keep:
        row[rng.permutation(EXPERTS)[: int(retain * EXPERTS)]] = True
    return keep


@functools.cache
def items(task, content_hash, count=30):
    """Outcomes that follow from the mask."""
    rng = np.random.default_rng(list(f"{task}{content_hash}".encode()))
    if task == "quiz":
        names = [f"{task}/{n}" for n in range(count)]
        return pd.DataFrame({"item": names, "acc": rng.integers(0, 2, count).astype(float)})
    names = [f"0:{50 * n}" for n in range(count)]
    tokens = np.full(count, 50)
    nll = rng.gamma(20.0, 8.0, count)
    return pd.DataFrame({"item": names, "nll": nll, "tokens": tokens, "bytes": tokens * 4})


@functools.cache
def outcome(task, content_hash):
    return evaluation(task, items(task, content_hash))


def cell(model, method, seed, retain, tasks=tuple(TASKS), status="ok", router="sliced"):
    if status != "ok":
        statuses = {task: TaskStatus(status, "no mask") for task in tasks}
        kept = int(retain * EXPERTS)
        return CellResult(
            model, method, seed, retain, kept, router, "", status, "no mask", (), {}, statuses
        )
    keep = mask(model, method, seed, retain)
    content_hash = ExpertMask(keep).content_hash
    found = {task: outcome(task, content_hash) for task in tasks}
    statuses = dict.fromkeys(tasks, TaskStatus("ok"))
    kept = int(keep[0].sum())
    return CellResult(
        model, method, seed, retain, kept, router, content_hash, "ok", "", (), found, statuses
    )


def results(cells, tasks=TASKS, name="run", average=("quiz",), command="mbench run x"):
    """A run of these cells that records its settings."""
    models = list(dict.fromkeys(one.model for one in cells))
    methods = {
        model: {
            method: METHODS[method]
            for method in METHODS
            if any((one.model, one.method) == (model, method) for one in cells)
        }
        for model in models
    }
    average = tuple(task for task in average if task in tasks)
    return Results(
        suite=name,
        title=f"The {name}",
        description="",
        task_metrics={task: TASKS[task] for task in tasks},
        average="Average" if average else "",
        average_tasks=average,
        cells=tuple(cells),
        masks={
            (one.model, one.mask): mask(one.model, one.method, one.seed, one.retain)
            for one in cells
            if one.mask
        },
        provenance={
            "command": command,
            "versions": {"mbench": "0.1.0", "torch": "2.9.0+cpu", "transformers": "5.23.0"},
            "hardware": {"machine": "x86_64"},
            "models": {
                model: {"content": f"hash of {model}", "dtype": "float32"} for model in models
            },
            "texts": {
                "corpora.wiki": {"documents": "ab" * 32},
                **{task: {"kind": task, "limit": None} for task in tasks},
            },
            "settings": {
                "router": "sliced",
                "corpora": {"wiki": {"sequences": 4, "length": 64, "seed": 0}},
                "methods": methods,
            },
        },
        protocol=(("Router", "sliced"), *((f"Task {task}", TASKS[task]) for task in tasks)),
    )


def grid(models=("m",), retains=(0.25, 0.5), methods=("random", "alpha", "beta"), seeds=(0, 1)):
    """Keys (model, method, seed, retain) of a whole run."""
    return [(model, UNPRUNED, None, 1.0) for model in models] + [
        (model, method, seed, retain)
        for model in models
        for retain in retains
        for method in methods
        for seed in (seeds if method == "random" else (None,))
    ]


def run(keys, **settings):
    """A finished run of these cells."""
    tasks = settings.get("tasks", TASKS)
    return results([cell(*key, tasks=tasks) for key in keys], **settings)


def change(whole, path, value):
    """The same run with another value at a path of its provenance."""
    provenance = copy.deepcopy(whole.provenance)
    place = provenance
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return dataclasses.replace(whole, provenance=provenance)


def with_items(whole, task, change_items):
    """The same run with other outcomes on one task."""
    cells = []
    for one in whole.cells:
        table = change_items(one.evaluations[task].items)
        found = {**one.evaluations, task: evaluation(task, table)}
        cells.append(dataclasses.replace(one, evaluations=found))
    return dataclasses.replace(whole, cells=tuple(cells))
