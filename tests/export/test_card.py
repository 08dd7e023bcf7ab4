"""A card tells of its own model, method and budget, and of no other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers import records
from helpers.exported import results
from mbench.core.errors import MbenchError
from mbench.core.results import ProtocolEntry, Results
from mbench.export.card import model_card
from mbench.export.written import Export, Size


def done(folder, dtype="bfloat16"):
    size = Size(100, 200)
    families = {"model_type": "olmoe", "full_model_type": "olmoe"}
    families |= {"stored_form": "", "activations": ""}
    counts = {"num_experts": 8, "kept": (4, 4), "top_k": 2, "pruned_top_k": (2, 2)}
    return Export(folder, size, size, **counts, kind="even", left_out=(), dtype=dtype, **families)


def note(model, retain, methods, text):
    name, text = f"On {model} at {100 * retain:g} %", f"{', '.join(methods)}: {text}"
    return ProtocolEntry(name, text, "note", (model,), methods, retain)


@pytest.fixture
def found(tmp_path) -> Results:
    keep = np.zeros((2, 8), dtype=bool)
    keep[:, ::2] = True
    found = results(tmp_path, keep, content="sha256:0")
    # The same method with other parameters on a model whose name begins alike, and other budgets.
    large = [dataclasses.replace(cell, model="tiny-large") for cell in found.cells]
    quarter = [dataclasses.replace(cell, retain=0.25) for cell in found.cells[1:]]
    methods = {
        "tiny": {
            "a": records.method(records.component("reap", power=1), candidate="b"),
            "b": records.method(records.component("mean", power=2), router="preserved"),
            "c": records.method("random"),
        },
        "tiny-large": {"a": records.method(records.component("reap", power=7))},
    }
    provenance = records.provenance(
        {"quiz": "acc"}, methods, found.provenance.models | {"tiny-large": records.model()}
    )
    return dataclasses.replace(
        found,
        cells=(*found.cells, *large, *quarter),
        provenance=provenance,
        protocol=(
            ProtocolEntry("Model tiny", "computed in float32", models=("tiny",)),
            ProtocolEntry("Model tiny-large", "computed in float16", models=("tiny-large",)),
            # An average may bear any name.
            ProtocolEntry("Method a: mean", "unweighted mean of quiz"),
            ProtocolEntry("Method a on tiny", "power 1", "method", ("tiny",), ("a",)),
            ProtocolEntry("Method a on tiny-large", "power 7", "method", ("tiny-large",), ("a",)),
            note("tiny", 0.5, ("a", "c"), "clamped here"),
            note("tiny", 0.5, ("c",), "another method"),
            note("tiny", 0.25, ("a",), "another budget"),
            note("tiny-large", 0.5, ("a",), "another model"),
        ),
    )


def card(found, folder):
    return model_card(found, found.cells[1], done(folder), folder)


def test_parameters_are_those_of_the_method_and_its_candidate(found, tmp_path):
    lines = card(found, tmp_path).splitlines()
    start = lines.index("## Method")
    assert lines[start + 2 : start + 5] == [
        "- a: scorer reap (power 1); selector top-k; builder protect; corpora wiki; candidate b",
        "- b: scorer mean (power 2); selector top-k; builder as-selected; corpora wiki;"
        " router preserved",
        "- seed of this mask: 0",
    ]
    assert "power 7" not in "\n".join(lines)


def test_settings_are_those_of_the_model_and_budget(found, tmp_path):
    lines = card(found, tmp_path).splitlines()
    start, end = lines.index("## Settings of the suite"), lines.index("## Provenance")
    assert lines[start + 2 : end - 1] == [
        "- Model tiny: computed in float32",
        "- Method a: mean: unweighted mean of quiz",
        "- On tiny at 50 %: a, c: clamped here",
    ]


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ("float32", "computed in float32, but the weights are stored in bfloat16"),
        ("bfloat16", "Both were computed in bfloat16. ±"),
    ],
)
def test_the_dtype_of_the_figures_is_told(found, tmp_path, measured, text):
    model = dataclasses.replace(found.provenance.models["tiny"], dtype=measured)
    provenance = dataclasses.replace(found.provenance, models={"tiny": model})
    assert text in card(dataclasses.replace(found, provenance=provenance), tmp_path)


def test_weights_in_fewer_bits_are_told(found, tmp_path):
    for form, activations, text in [
        ("MXFP4", "", "Both were computed in float32 from weights in MXFP4; activations were not"),
        ("FP8", "dynamic FP8", "not quantised, though the checkpoint asks for dynamic FP8. ±"),
    ]:
        written = dataclasses.replace(done(tmp_path), stored_form=form, activations=activations)
        made = model_card(found, found.cells[1], written, tmp_path)
        assert text in made
        assert f"Weights are stored in {form}, as those of the full model" in made
        assert f"- transformers: as far as it loads the full model in {form}: " in made


def test_the_provenance_is_that_of_all_runs(found, tmp_path):
    builds = [{"torch": f"2.9.0+{build}", "numpy": "2.4"} for build in ("cpu", "cu128")]
    runs = [
        records.run_record(suite_sha256=digest * 64, versions=versions)
        for digest, versions in zip("12", builds, strict=True)
    ]
    provenance = dataclasses.replace(found.provenance, runs=tuple(runs))
    lines = card(dataclasses.replace(found, provenance=provenance), tmp_path).splitlines()
    start = lines.index("## Provenance")
    assert lines[start + 2 : start + 6] == [
        "- full model: sha256:0",
        f"- mask: sha256:{found.cells[1].mask}",
        f"- suite file: sha256:{'1' * 64}, sha256:{'2' * 64}",
        "- measured with: torch 2.9.0, numpy 2.4",
    ]


def test_what_results_lack_is_told_in_one_line(found, tmp_path):
    partly = dataclasses.replace(found.cells[1], tasks={})
    for changes, message in [
        ({"cells": found.cells[1:]}, "lack the full model tiny$"),
        ({"cells": (found.cells[0], partly)}, "lack the status of task quiz on tiny"),
    ]:
        with pytest.raises(MbenchError, match=message):
            card(dataclasses.replace(found, **changes), tmp_path)
