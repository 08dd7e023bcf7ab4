"""Stand-in results of one model in three stored forms, and of published checkpoints of it."""

import dataclasses
import functools

import numpy as np

from helpers import records
from helpers.demo_results import CLOZE, EXPERTS, LAYERS, synthetic
from mbench.core.cell_results import UNPRUNED, LeftOut, PublishedCheckpoint, TaskStatus
from mbench.core.evaluation import evaluation
from mbench.core.model_facts import StoredSize
from mbench.core.provenance import ModelSource

FORMS = {"qwen": "", "qwen-fp8": "FP8 128x128", "qwen-mxfp4": "MXFP4"}
BYTES_PER_EXPERT = {"qwen": 60_000_000, "qwen-fp8": 30_500_000, "qwen-mxfp4": 16_000_000}
OTHER_BYTES = {"qwen": 900_000_000, "qwen-fp8": 470_000_000, "qwen-mxfp4": 300_000_000}
FLIPPED = {"qwen": 0.0, "qwen-fp8": 0.03, "qwen-mxfp4": 0.12}
METHODS = (UNPRUNED, "random", "mean", "tb-coverage", "reap-code", "frequency")


def bytes_of(model, kept):
    return OTHER_BYTES[model] + LAYERS * kept * BYTES_PER_EXPERT[model]


def flipped(evaluations, share, rng):
    """Right answers turned wrong at random; perplexities as they were."""
    found = dict(evaluations)
    for task in CLOZE:
        items = found[task].items.copy()
        for metric in ("acc", "acc_norm"):
            items[metric] = items[metric].to_numpy() * (rng.random(len(items)) >= share)
        found[task] = evaluation(task, items)
    return found


def of_form(model):
    """The synthetic run under the name of one stored form: its cells and masks."""
    rng = np.random.default_rng(sorted(FORMS).index(model))
    made = {}
    cells = []
    for cell in synthetic(failures=False).cells:
        if cell.method not in METHODS:
            continue
        if cell.mask not in made:
            made[cell.mask] = flipped(cell.evaluations, FLIPPED[model], rng)
        size = bytes_of(model, cell.kept)
        cells.append(
            dataclasses.replace(
                cell, model=model, evaluations=made[cell.mask], weight_bytes=size, notes=()
            )
        )
    return cells


def record_of(model, original=None):
    facts = dataclasses.replace(
        records.model(model, LAYERS, EXPERTS).facts, stored_form=FORMS[model]
    )
    each = ((BYTES_PER_EXPERT[model],),) * LAYERS
    size = StoredSize(bytes_of(model, EXPERTS), each, (0,) * LAYERS)
    return records.model(model, facts=facts, size=size, same_as=original, dtype="bfloat16")


def published(cell, method, **told):
    """A cell of a published checkpoint in the place of another method's."""
    checkpoint = PublishedCheckpoint(
        source=ModelSource("hub", f"acme/{method}"),
        revision="v1.0",
        content="0123456789abcdef" * 4,
        stored_form="",
        same_as_mask=False,
        recognised=True,
        differs=(),
        problems=(),
    )
    checkpoint = dataclasses.replace(checkpoint, **told)
    return dataclasses.replace(cell, method=method, published=checkpoint)


def with_published(results):
    """Three checkpoints of `qwen` more: one that is a mask, one that differs, one of no known
    experts, at a budget that no method has."""
    cells, masks = list(results.cells), dict(results.masks)
    find = {(cell.model, cell.method, cell.retain): cell for cell in cells}
    mean = find["qwen", "mean", 0.5]
    rng = np.random.default_rng(5)
    same = published(mean, "acme-mean", same_as_mask=True)
    changed = published(mean, "acme-tuned", differs=("router of 8 layers", "32 tensors"))
    changed = dataclasses.replace(
        changed, mask="c" * 64, evaluations=flipped(mean.evaluations, 0.02, rng)
    )
    masks["qwen", "c" * 64] = masks["qwen", mean.mask]
    merged = published(
        mean,
        "acme-merged-fp8",
        recognised=False,
        stored_form="FP8 128x128",
        problems=("layer 3: expert 5 is a merger: 0.5 x 7 + 0.5 x 9",),
    )
    merged = dataclasses.replace(
        merged,
        retain=14 / 32,
        kept=14,
        mask="d" * 64,
        evaluations=flipped(mean.evaluations, 0.05, rng),
        weight_bytes=bytes_of("qwen-fp8", 14),
    )
    left_out = tuple(
        LeftOut("qwen", cell.method, retain, f"it is pruned to {100 * cell.retain:.4g} % of them")
        for cell in (same, changed, merged)
        for retain in (0.75, 0.5, 0.25)
        if retain != cell.retain
    )
    return dataclasses.replace(
        results, cells=(*cells, same, changed, merged), masks=masks, left_out=left_out
    )


@functools.cache
def three_forms(*, checkpoints=True):
    """Five methods at three budgets of each form, and `with_published`."""
    base = synthetic(failures=False)
    cells = [cell for model in FORMS for cell in of_form(model)]
    masks = {
        (cell.model, cell.mask): base.masks[next(iter(base.masks))[0], cell.mask] for cell in cells
    }
    models = {model: record_of(model, None if model == "qwen" else "qwen") for model in FORMS}
    results = dataclasses.replace(
        base,
        suite="forms",
        title="One model in three stored forms",
        cells=tuple(cells),
        masks=masks,
        provenance=records.provenance(
            base.task_metrics,
            {m: {name: records.method() for name in METHODS if name != UNPRUNED} for m in FORMS},
            models,
        ),
    )
    return with_published(results) if checkpoints else results


def failed(cell, reason="out of memory"):
    """The cell without its tasks' results."""
    tasks = dict.fromkeys(cell.tasks, TaskStatus("failed", reason))
    return dataclasses.replace(cell, evaluations={}, tasks=tasks)


def with_gaps(results, gaps):
    """Without the cells at `gaps` (model, method, retain), each left out for a reason."""
    cells = tuple(c for c in results.cells if (c.model, c.method, c.retain) not in gaps)
    left = tuple(LeftOut(*gap, f"it cannot protect 12 of {32 * gap[2]:g} experts") for gap in gaps)
    return dataclasses.replace(results, cells=cells, left_out=(*results.left_out, *left))
