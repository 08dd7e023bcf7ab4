"""Profiles, scores and results made of chosen numbers."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pandas as pd

import mbench
from helpers import records
from mbench.core.cell_results import CellResult, TaskStatus
from mbench.core.evaluation import Evaluation, evaluation
from mbench.core.provenance import Provenance
from mbench.core.results import ProtocolEntry, Results
from mbench.core.run_record import CorpusProfile, RunCost


def profile(
    sums: dict[str, np.ndarray], statistic: mbench.Statistic, corpus: str = "c", top_k: int = 2
) -> mbench.Profile:
    """A profile of one shard whose `statistic` has these sums [layers, N, ...]."""
    layers, experts = next(iter(sums.values())).shape[:2]
    shards = {name: np.asarray(array, dtype=np.float64)[None] for name, array in sums.items()}
    return mbench.Profile(
        corpus=corpus,
        layers=tuple(f"layer{number}" for number in range(layers)),
        num_experts=experts,
        top_k=top_k,
        tokens=100,
        router="sliced",
        shard_sums={statistic.identity: shards},
        load_samples=lambda identity, layer: {},
    )


def scores(values: np.ndarray) -> mbench.Scores:
    """Scores with these values [layers, N] and an empty profile."""
    statistic = mbench.RoutingSums()
    return mbench.Scores(np.asarray(values, dtype=np.float64), profile({"x": values}, statistic))


def budget(layers: int, experts: int, kept: int) -> mbench.Budget:
    return mbench.Budget(
        retain=kept / experts, kept=kept, num_layers=layers, num_experts=experts, top_k=2
    )


PAPER_MODELS = {"qwen": (24, 60, 4), "deepseek": (27, 64, 6)}
"""Layers, experts and experts per token of the models in suites/paper.yaml."""

PAPER_METHODS = {
    "random": (),
    "reap-evol-codealpaca": ("evol-codealpaca",),
    "reap-c4": ("c4",),
    "reap-wikitext2": ("wikitext2",),
    "frequency-c4": ("c4",),
    "frequency-wikitext2": ("wikitext2",),
    "output-norm-c4": ("c4",),
    "output-norm-wikitext2": ("wikitext2",),
    "expert-sparsity": ("c4",),
    "mean": ("wikitext2", "c4"),
    "max": ("wikitext2", "c4"),
    "mean-protected": ("wikitext2", "c4"),
    "max-protected": ("wikitext2", "c4"),
    "tb-coverage": ("wikitext2", "c4"),
}
"""Methods and the corpora they look at."""

PAPER_TASKS = {
    "ppl-wikitext2": "perplexity",
    "ppl-c4": "perplexity",
    "arc_challenge": "acc_norm",
    "arc_easy": "acc_norm",
    "hellaswag": "acc_norm",
    "piqa": "acc_norm",
    "winogrande": "acc",
    "boolq": "acc",
    "mmlu": "acc",
    "gsm8k": "exact_match,flexible-extract",
    "math500": "exact_match",
}
SEEDS = (0, 1, 2, 3, 4, 42)


@functools.cache
def paper_sized(items: int = 60, settings_each: int | None = None) -> Results:
    """Stand-in results in the shape of suites/paper.yaml: two models, three budgets, 14 methods.

    `settings_each`: no more masks of each model, the unpruned one among them.

    Expert scores of the corpora are correlated, methods keep the best by them, and a mask's
    figures follow from how much of the experts' common worth it keeps. Always the same.
    """
    rng = np.random.default_rng(7)
    cells: list[CellResult] = []
    masks: dict[tuple[str, str], np.ndarray] = {}
    scores: dict[tuple[str, str, str], np.ndarray] = {}
    for model, (layers, experts, _) in PAPER_MODELS.items():
        worth = rng.gamma(2.0, size=(layers, experts))
        corpora = {c for used in PAPER_METHODS.values() for c in used}
        values = {c: worth * rng.gamma(4.0, 0.25, worth.shape) for c in sorted(corpora)}
        scores |= {(model, m, c): values[c] for m, used in PAPER_METHODS.items() for c in used}
        evaluated: dict[str, dict[str, Evaluation]] = {}
        settings = [(1.0, "none", None)]
        for retain in (0.25, 0.5, 0.75):
            for method in PAPER_METHODS:
                seeds = SEEDS if method == "random" else (None,)
                settings += [(retain, method, seed) for seed in seeds]
        for retain, method, seed in settings[:settings_each]:
            kept = int(retain * experts)
            used = PAPER_METHODS.get(method, ())
            own = rng.random(worth.shape) if not used else sum(values[c] for c in used)
            noise = 1.0 if method == "mean" else rng.gamma(20.0, 0.05, worth.shape)
            keep = np.zeros(worth.shape, bool)
            best = np.argsort(-own * noise, axis=1)[:, :kept]
            np.put_along_axis(keep, best, True, axis=1)
            mask = mbench.ExpertMask(keep).content_hash
            masks[model, mask] = keep
            share = float((worth * keep).sum() / worth.sum())
            evaluated.setdefault(
                mask, {task: _evaluation(rng, task, share, items) for task in PAPER_TASKS}
            )
            clamped = method.endswith("protected") and retain == 0.25
            notes = ("protection budget 20 clamped to 15, the experts kept",) if clamped else ()
            statuses = dict.fromkeys(PAPER_TASKS, TaskStatus("ok"))
            found = dict(evaluated[mask])
            if (model, method, retain) == ("deepseek", "expert-sparsity", 0.75):
                statuses["mmlu"] = TaskStatus("failed", "OutOfMemoryError: 23.6 GiB are not enough")
                del found["mmlu"]
            cells.append(
                CellResult(
                    model, method, seed, retain, kept, "sliced", mask, "ok", "", notes, found,
                    statuses,
                )
            )  # fmt: skip
    average = tuple(task for task in PAPER_TASKS if not task.startswith("ppl"))[:6]
    return Results(
        suite="paper",
        title="Generic TB-Coverage against its baselines",
        description="Random numbers in the shape of the paper's grid: no finding at all.",
        task_metrics=PAPER_TASKS,
        average="Common Avg",
        average_tasks=average,
        cells=tuple(cells),
        masks=masks,
        scores=scores,
        provenance=_paper_provenance(),
        protocol=(
            ProtocolEntry("Router after pruning", "retained experts only (sliced)"),
            ProtocolEntry(
                "Calibration corpus c4", "512 sequences of 1024 tokens of allenai/c4, seed 0"
            ),
            ProtocolEntry("Task arc_challenge", "lm-eval arc_challenge, acc_norm, 0-shot"),
        ),
    )


def _evaluation(rng: np.random.Generator, task: str, share: float, items: int) -> Evaluation:
    fixed = np.random.default_rng(list(task.encode()))
    names = [f"{task}/{number}" for number in range(items)]
    if task.startswith("ppl"):
        names = [f"0:{1024 * number}" for number in range(items)]
        tokens = fixed.integers(900, 1024, items)
        nats = fixed.normal(2.1, 0.3, items) + 5 * (1 - share) ** 2 + rng.normal(0, 0.05, items)
        columns = {"nll": nats * tokens, "tokens": tokens, "bytes": tokens * 4}
        columns["document"] = np.arange(items)
    else:
        need = fixed.uniform(0.1, 9.0 if task in ("gsm8k", "math500") else 1.6, items)
        need[fixed.random(items) < 0.25] = -1.0  # guessed
        metric = PAPER_TASKS[task]
        names_of = ("acc", "acc_norm") if metric.startswith("acc") else (metric,)
        ability = share + rng.normal(0, 0.12, items)
        columns = {name: (ability + 0.02 * n > need) * 1.0 for n, name in enumerate(names_of)}
    return evaluation(task, pd.DataFrame({"item": names, **columns}))


def _paper_provenance() -> Provenance:
    methods = {
        name: records.method(
            name.split("-")[0] if used else None,
            corpora=used,
            candidate="expert-sparsity" if name == "tb-coverage" else None,
        )
        for name, used in PAPER_METHODS.items()
    }
    corpora = sorted({corpus for used in PAPER_METHODS.values() for corpus in used})
    sizes = {"qwen": (14_315_784_192, 8_650_752), "deepseek": (16_375_728_128, 8_650_752)}
    models = {}
    for name, (layers, experts, top_k) in PAPER_MODELS.items():
        model = records.model(name, layers, experts, dtype="bfloat16")
        parameters, of_expert = sizes[name]
        facts = dataclasses.replace(
            model.facts, top_k=top_k, parameters=parameters, expert_parameters=of_expert
        )
        models[name] = dataclasses.replace(model, facts=facts)
    run = records.run_record(
        "paper",
        ("mbench", "run", "suites/paper.yaml"),
        profiles={
            model: {
                corpus: CorpusProfile(
                    tokens=524_288,
                    never_selected=3 if corpus == "evol-codealpaca" else 0,
                    gate_mass=(0.4,) * layers,
                )
                for corpus in corpora
            }
            for model, (layers, _, _) in PAPER_MODELS.items()
        },
        cost=RunCost(
            forward_tokens=911_228_416,
            seconds={"load": 62.1, "profile": 812.0, "masks": 1841.2, "evaluate": 30_211.7},
            peak_memory={"process": 41_875_931_136, "GPU 0": 36_507_222_016},
            scoring={},
            interrupted=False,
        ),
    )
    return records.provenance(PAPER_TASKS, dict.fromkeys(PAPER_MODELS, methods), models, run)
