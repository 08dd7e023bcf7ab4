"""Losses of the embedded model, whole and pruned, on whole documents of the sample data."""

import functools
import json

import numpy as np
import pytest

from helpers.places import ROOT
from mbench.core.suite import PerplexityTask
from mbench.core.suite_inputs import TextSource

DATA = ROOT.parent / "shared" / "data"

FILES = {
    "c4": ("c4_en_eval.jsonl", "text", 2),
    "wikitext": ("wikitext2_raw_test_pages.jsonl", "page", 4),
}
"""File, field and windows of a document that are read."""


@functools.cache
def losses_of_documents(text):
    """float64 [documents, 3] summed losses unpruned and under two random masks, and tokens."""
    if not DATA.is_dir():
        pytest.skip(f"needs the sample data in ../{DATA.parent.name}/{DATA.name}")
    from mbench.core.interfaces import ExpertMask
    from mbench.evaluate.perplexity import prepare
    from mbench.moe.load import load
    from mbench.moe.mask import masked

    name, field, windows = FILES[text]
    documents = [json.loads(line)[field] for line in (DATA / name).read_text().splitlines()]
    loaded = load(str(ROOT / "plugins" / "demo" / "model"), dtype="float32", device="cpu")
    spec = PerplexityTask(
        source=TextSource(plugin="none"),
        protocol="document",
        window=256,
        windows_per_document=windows,
    )
    prepared = prepare(text, spec, ([document] for document in documents), loaded.tokenizer, None)
    random = np.random.default_rng(0)
    layers = len(loaded.layers)
    columns = []
    for kept in (None, 12, 12):
        if kept is None:
            found = prepared.evaluate(loaded.model)
        else:
            keep = np.zeros((layers, 24), bool)
            for row in keep:
                row[random.choice(24, kept, replace=False)] = True
            with masked(loaded.layers, ExpertMask(keep)):
                found = prepared.evaluate(loaded.model)
        sums = found.items.groupby("document")[["nll", "tokens"]].sum()
        columns.append(sums["nll"].to_numpy())
    return np.column_stack(columns), sums["tokens"].to_numpy(float)
