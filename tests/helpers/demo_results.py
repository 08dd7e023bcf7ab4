"""Results in the shape of a run of the demo: 13 methods at 3 budgets, made of random numbers."""

import dataclasses
import functools

import numpy as np
import pandas as pd

from helpers import records
from mbench.core.cell_results import CellResult, TaskStatus
from mbench.core.evaluation import evaluation
from mbench.core.interfaces import ExpertMask
from mbench.core.results import ProtocolEntry, Results

MODEL = "demo/tiny-moe"
LAYERS, EXPERTS = 8, 32
CORPORA = ("bible", "wikitext2", "code")
CLOZE = ("cloze-bible", "cloze-wikitext2", "cloze-code")
SEEDS = (0, 1, 2, 3, 4, 42)
# Ability of each method: how near it comes to the unpruned model.
ABILITY = {
    "reap-bible": 0.45,
    "reap-wiki": 0.55,
    "reap-code": 0.4,
    "frequency": 0.3,
    "router-weight": 0.35,
    "output-norm": 0.25,
    "expert-sparsity": 0.6,
    "mean": 0.66,
    "max": 0.62,
    "mean-protected": 0.7,
    "max-protected": 0.64,
    "tb-coverage": 0.72,
}


def _items(rng, task, ability):
    """Outcomes on items whose difficulty does not depend on the method."""
    fixed = np.random.default_rng(list(task.encode()))
    if task in CLOZE:
        need = fixed.uniform(0, 1.1, 200)
        chance = np.clip(0.5 + 2 * (ability - need) + rng.normal(0, 0.4, 200), 0, 1)
        return pd.DataFrame(
            {
                "item": [f"{task}/{n}" for n in range(200)],
                "acc": (chance > 0.5).astype(float),
                "acc_norm": (chance > 0.45).astype(float),
            }
        )
    tokens = fixed.integers(90, 128, 40)
    per_token = fixed.normal(3.2, 0.4, 40) + 3 * (1 - ability) + rng.normal(0, 0.1, 40)
    return pd.DataFrame(
        {
            "item": [f"0:{128 * n}" for n in range(40)],
            "document": range(40),
            "nll": per_token * tokens,
            "tokens": tokens,
            "bytes": tokens * 4 + fixed.integers(0, 9, 40),
        }
    )


@functools.cache
def synthetic(failures=True, model=MODEL, average="Common Avg"):
    """A run of 13 methods at 3 budgets, with per-item outcomes, always the same."""
    rng = np.random.default_rng(12)
    tasks = {**dict.fromkeys(CORPORA, "perplexity"), **dict.fromkeys(CLOZE, "acc_norm")}
    cells, masks, by_mask = [], {}, {}

    def add(method, seed, retain, keep, ability, notes=()):
        mask = ExpertMask(keep).content_hash
        masks[model, mask] = keep
        if mask not in by_mask:
            by_mask[mask] = {t: evaluation(t, _items(rng, t, ability)) for t in tasks}
        statuses = dict.fromkeys(tasks, TaskStatus("ok"))
        kept = int(keep[0].sum())
        cells.append(
            CellResult(
                model,
                method,
                seed,
                retain,
                kept,
                "sliced",
                mask,
                "ok",
                "",
                notes,
                by_mask[mask],
                statuses,
            )
        )

    def draw(kept, shared):
        keep = np.zeros((LAYERS, EXPERTS), bool)
        for row in keep:
            first = np.arange(int(kept * shared))
            rest = rng.permutation(np.arange(len(first), EXPERTS))[: kept - len(first)]
            row[np.concatenate([first, rest])] = True
        return keep

    add("none", None, 1.0, np.ones((LAYERS, EXPERTS), bool), 1.0)
    for retain in (0.25, 0.5, 0.75):
        kept = int(retain * EXPERTS)
        for seed in SEEDS:
            add("random", seed, retain, draw(kept, 0), 0.9 * retain + rng.normal(0, 0.03))
        for method, ability in ABILITY.items():
            notes = ()
            if method == "tb-coverage" and retain == 0.25:
                notes = (f"protection budget clamped from 12 to {kept}",)
            if method == "max-protected" and retain == 0.25:
                keep = masks[model, cells[-2].mask]  # the mask of `max`
            else:
                keep = draw(kept, ability)
            add(method, None, retain, keep, 0.6 * ability + 0.55 * retain, notes)
    if failures:
        _break(cells)
    return Results(
        suite="quickstart",
        title="Expert pruning on the demo model",
        description="Random numbers in the shape of a run.",
        task_metrics=tasks,
        average=average,
        average_tasks=CLOZE if average else (),
        cells=tuple(cells),
        masks=masks,
        provenance=records.provenance(
            tasks,
            {model: {name: records.method() for name in ("random", *ABILITY)}},
            {model: records.model(model, LAYERS, EXPERTS)},
            records.run_record("quickstart", ("mbench", "run", "quickstart")),
        ),
        protocol=(
            ProtocolEntry("Router", "sliced: dropped experts leave the router"),
            ProtocolEntry("Perplexity", "window 128, stride 128, every token scored once"),
            ProtocolEntry("Calibration", "bible, wikitext2, code: 64 sequences of 128 tokens each"),
        ),
    )


def _break(cells):
    """A mask that failed, a task that failed, and a run that was stopped before its end."""
    find = {(cell.method, cell.retain): n for n, cell in enumerate(cells)}
    n = find["expert-sparsity", 0.25]
    reason = "expert-sparsity: no subset of 8 experts was found within 600 s; raise `seconds`"
    cells[n] = dataclasses.replace(
        cells[n],
        mask="",
        status="failed",
        reason=reason,
        evaluations={},
        tasks=dict.fromkeys(cells[n].tasks, TaskStatus("blocked", reason)),
    )
    for key, task, status in (
        (("frequency", 0.5), "cloze-code", TaskStatus("failed", "out of memory")),
        (("output-norm", 0.75), "cloze-code", TaskStatus("interrupted", "stopped by Ctrl-C")),
        (("mean", 0.75), "bible", TaskStatus("failed", "loss is not finite in window 3")),
    ):
        cell = cells[find[key]]
        cells[find[key]] = dataclasses.replace(
            cell,
            tasks={**cell.tasks, task: status},
            evaluations={t: e for t, e in cell.evaluations.items() if t != task},
        )
