"""A small run of one method on a checkpoint, and its export."""

from __future__ import annotations

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from helpers import records
from mbench.core.cell_results import CellResult, TaskStatus
from mbench.core.evaluation import evaluation
from mbench.core.interfaces import ExpertMask
from mbench.core.provenance import ModelSource
from mbench.core.results import ProtocolEntry, Results
from mbench.export.choose import choose
from mbench.export.write import export
from mbench.storage.checkpoints import Directory, model_key


def results(folder, keep, router="sliced", stand_in=None, **recorded):
    """A run of one method with two seeds on one model, of which `recorded` is on record.

    What stands in for experts does so in the first seed's mask.
    """

    def cell(method, seed, keep, stand_in=None):
        items = pd.DataFrame({"item": ["a", "b"], "acc": [1.0, float(seed or 0)]})
        return CellResult(
            model="tiny",
            method=method,
            seed=seed,
            retain=1.0 if method == "none" else 0.5,
            kept=int(keep[0].sum()),
            # The suite's router may be another than a method's own.
            router="preserved" if method == "none" else router,
            mask=ExpertMask(keep, (), stand_in).content_hash,
            status="ok",
            reason="",
            notes=(),
            evaluations={"quiz": evaluation("quiz", items)},
            tasks={"quiz": TaskStatus("ok")},
        )

    masks = [np.ones_like(keep), keep, keep[:, ::-1]]
    seeds = zip(("none", "a", "a"), (None, 0, 1), masks, (None, stand_in, None), strict=True)
    cells = [cell(*each) for each in seeds]
    recorded.setdefault("source", ModelSource("path", str(folder)))
    if "content" not in recorded:
        recorded["content"] = model_key(Directory(folder))
    model = records.model("tiny", *keep.shape, **recorded)
    return Results(
        suite="little",
        title="",
        description="",
        task_metrics={"quiz": "acc"},
        average="",
        average_tasks=(),
        cells=tuple(cells),
        masks={("tiny", cell.mask): mask for cell, mask in zip(cells, masks, strict=True)},
        stand_ins={} if stand_in is None else {("tiny", cells[1].mask): stand_in},
        provenance=records.provenance(
            {"quiz": "acc"}, {"tiny": {"a": records.method()}}, {"tiny": model}
        ),
        protocol=(
            ProtocolEntry("Method a", "scorer reap", "method", methods=("a",)),
            ProtocolEntry("Task quiz", "two questions"),
        ),
    )


def export_first(found, source, out, **options):
    return export(found, choose(found, seed=0), source, out, **options)


def tensors_of(folder):
    return {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}
