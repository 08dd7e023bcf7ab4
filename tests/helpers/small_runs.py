"""Small results of chosen outcomes, with the provenance that a run records."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pandas as pd

from helpers import records
from mbench.core.cell_results import UNPRUNED, CellResult, TaskStatus
from mbench.core.evaluation import evaluation
from mbench.core.interfaces import ExpertMask
from mbench.core.provenance import Provenance
from mbench.core.results import ProtocolEntry, Results
from mbench.storage.records import from_plain, to_plain

LAYERS, EXPERTS = 2, 8
TASKS = {"ppl": "perplexity", "quiz": "acc"}
METHODS = {
    "random": records.method(None, selector="uniform", corpora=()),
    "alpha": records.method("alpha"),
    "beta": records.method(records.component("beta", power=2)),
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
    losses = {"nll": nll, "tokens": tokens, "bytes": tokens * 4}
    return pd.DataFrame({"item": names, "document": range(count), **losses})


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


def results(cells, tasks=TASKS, name="run", average=("quiz",), command=("mbench", "run", "x")):
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
        provenance=records.provenance(
            {task: TASKS[task] for task in tasks},
            methods,
            corpora={"wiki": records.corpus()},
            run=records.run_record(name, command),
        ),
        protocol=(
            ProtocolEntry("Router", "sliced"),
            *(ProtocolEntry(f"Task {task}", TASKS[task]) for task in tasks),
        ),
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
    """The same run with another plain value at a path of its provenance."""
    plain = to_plain(whole.provenance)
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return dataclasses.replace(whole, provenance=from_plain(Provenance, plain))


def with_items(whole, task, change_items):
    """The same run with other outcomes on one task."""
    cells = []
    for one in whole.cells:
        table = change_items(one.evaluations[task].items)
        found = {**one.evaluations, task: evaluation(task, table)}
        cells.append(dataclasses.replace(one, evaluations=found))
    return dataclasses.replace(whole, cells=tuple(cells))
