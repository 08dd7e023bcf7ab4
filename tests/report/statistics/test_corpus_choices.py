"""What calibration texts choose, from the masks of methods that differ in nothing else."""

import numpy as np
import pytest

from helpers.pages import paper_boards
from helpers.records import component, method
from mbench.report.page.notes import union_of_choices
from mbench.report.statistics.corpus_choices import corpus_choices, families
from mbench.report.tables.corpus_overlap import corpus_overlap


def test_corpora_are_compared_between_methods_that_differ_in_nothing_else():
    methods = {
        "on-a": method("reap", corpora=("a",)),
        "on-b": method("reap", corpora=("b",)),
        "other": method("count", corpora=("c",)),
        "power": method(component("reap", power=2), corpora=("c",)),
        "both": method("reap", corpora=("a", "b")),
        "built-upon": method("reap", corpora=("d",), candidate="on-a"),
        "preserved": method("reap", corpora=("e",), router="preserved"),
        "random": method(None, selector="random", corpora=()),
    }
    assert families(methods) == [{"a": "on-a", "b": "on-b"}]


def test_agreement_of_corpora_follows_from_their_masks():
    results, group = paper_boards().results, paper_boards().groups[0]
    one, two, _ = corpus_choices(group)  # reap on three texts, two simpler scores on two
    assert one.heading == "reap-evol-codealpaca, reap-c4 and reap-wikitext2"
    assert two.heading == "frequency-c4 and frequency-wikitext2"
    keep = {
        cell.method.removeprefix("reap-"): results.masks["qwen", cell.mask]
        for cell in results.cells
        if cell.model == "qwen" and cell.retain == 0.5 and cell.method.startswith("reap-")
    }
    row = next(r for r in corpus_overlap(one).rows if r.head.text == "c4 and wikitext2")
    expected = [
        len(a & b) / len(a | b)
        for a, b in zip(*([set(np.flatnonzero(r)) for r in keep[c]] for c in ("c4", "wikitext2")),
                        strict=True)
    ]  # fmt: skip
    assert row.cells[1].sort == pytest.approx(np.mean(expected))
    wanted = np.mean([[any(m[layer, e] for m in keep.values()) for e in range(60)]
                      for layer in range(24)]) * 60  # fmt: skip
    assert "of 30 experts per layer, the choices by" in union_of_choices(one)[1]
    assert f"their union has {wanted:.1f}." in union_of_choices(one)[1]
