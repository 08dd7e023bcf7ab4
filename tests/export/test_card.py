"""A card tells of its own model, method and budget, and of no other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.exported import results
from mbench.core.errors import MbenchError
from mbench.core.results import Results
from mbench.export.card import model_card
from mbench.export.written import Export, Size


def done(folder, dtype="bfloat16"):
    size = Size(100, 200)
    families = {"model_type": "olmoe", "full_model_type": "olmoe"}
    counts = {"num_experts": 8, "kept": 4, "top_k": 2, "pruned_top_k": 2}
    return Export(folder, size, size, **counts, left_out=(), dtype=dtype, **families)


@pytest.fixture
def found(tmp_path, monkeypatch) -> Results:
    monkeypatch.setattr("helpers.exported.model_key", lambda path: "sha256:0")
    keep = np.zeros((2, 8), dtype=bool)
    keep[:, ::2] = True
    found = results(tmp_path, keep)
    # The same method with other parameters on a model whose name begins alike, and other budgets.
    large = [dataclasses.replace(cell, model="tiny-large") for cell in found.cells]
    quarter = [dataclasses.replace(cell, retain=0.25) for cell in found.cells[1:]]
    methods = {
        "tiny": {
            "a": {"scorer": "reap (power 1)", "builder": "cut", "candidate": "b"},
            "b": {"scorer": "mean (power 2)"},
            "c": {"scorer": "random"},
        },
        "tiny-large": {"a": {"scorer": "reap (power 7)"}},
    }
    return dataclasses.replace(
        found,
        cells=(*found.cells, *large, *quarter),
        provenance=found.provenance | {"settings": {"methods": methods}},
        protocol=(
            ("Model tiny", "computed in float32"),
            ("Model tiny-large", "computed in float16"),
            ("Task quiz", "two questions"),
            ("Method a on tiny", "scorer reap (power 1)"),
            ("Method a on tiny-large", "scorer reap (power 7)"),
            ("On tiny at 50 %", "a, c: clamped here"),
            ("On tiny at 50 %", "c: another method"),
            ("On tiny at 25 %", "a: another budget"),
            ("On tiny-large at 50 %", "a: another model"),
        ),
    )


def card(found, folder, **changes):
    recorded = found.provenance["models"]["tiny"] | changes
    return model_card(found, found.cells[1], recorded, done(folder), folder)


def test_parameters_are_those_of_the_method_and_its_candidate(found, tmp_path):
    lines = card(found, tmp_path).splitlines()
    start = lines.index("## Method")
    assert lines[start + 2 : start + 5] == [
        "- a: scorer reap (power 1); builder cut; candidate b",
        "- b: scorer mean (power 2)",
        "- seed of this mask: 0",
    ]
    assert "power 7" not in "\n".join(lines)


def test_settings_are_those_of_the_model_and_budget(found, tmp_path):
    lines = card(found, tmp_path).splitlines()
    start, end = lines.index("## Settings of the suite"), lines.index("## Provenance")
    assert lines[start + 2 : end - 1] == [
        "- Model tiny: computed in float32",
        "- Task quiz: two questions",
        "- On tiny at 50 %: a, c: clamped here",
    ]


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ("float32", "computed in float32, but the weights are stored in bfloat16"),
        ("bfloat16", "Both were computed in bfloat16. ±"),
        (None, "The results do not say in which dtype."),
    ],
)
def test_the_dtype_of_the_figures_is_told(found, tmp_path, measured, text):
    assert text in card(found, tmp_path, dtype=measured)


def test_what_results_lack_is_told_in_one_line(found, tmp_path):
    no_methods = {"settings": {"methods": {"tiny-large": {}}}}
    partly = dataclasses.replace(found.cells[1], tasks={})
    for changes, message in [
        ({"cells": found.cells[1:]}, "lack the full model tiny$"),
        ({"cells": (found.cells[0], partly)}, "lack the status of task quiz on tiny"),
        ({"provenance": found.provenance | no_methods}, "do not record the parts of 'a' on tiny"),
        ({"provenance": found.provenance | {"settings": None}}, "do not record the parts of 'a'"),
    ]:
        with pytest.raises(MbenchError, match=message):
            card(dataclasses.replace(found, **changes), tmp_path)
