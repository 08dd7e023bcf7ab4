"""A run whose model keeps its experts stored has the keys and figures of one that does not."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.tiny_suite import SUITE, go, plan_of
from mbench.core.errors import SuiteError
from mbench.plan.admission.models import model_checks
from mbench.storage.store import Store

STORED = "{plugin: demo-fp8, experts: stored}"
COMPUTED = "{plugin: demo-fp8}"


def planned(tmp_path, name, model):
    store = Store(tmp_path / name)
    text = SUITE.replace("{plugin: demo, dtype: float32}", model)
    return plan_of(tmp_path, store, text, methods=["reap"], retain=[0.5]), store


def test_keys_and_figures_are_the_same(tmp_path):
    tables, keys = [], []
    for name, model in (("stored", STORED), ("computed", COMPUTED)):
        plan, store = planned(tmp_path, name, model)
        _, table = go(plan, store)
        tables.append(table)
        keys.append({path.name for path in (tmp_path / name).rglob("*") if path.is_file()})
    pd.testing.assert_frame_equal(*tables)
    # What a process remembers it writes once.
    assert keys[1] <= keys[0]


def test_a_model_that_is_not_in_fp8_is_refused_in_the_plan(tmp_path):
    with pytest.raises(SuiteError, match=r"'stored' is for weights in FP8 .* are plain numbers"):
        planned(tmp_path, "plain", "{plugin: demo, experts: stored}")


def test_what_would_have_to_prune_it_in_memory_is_refused_in_the_plan(tmp_path, store):
    text = SUITE.replace("{plugin: demo, dtype: float32}", STORED) + "efficiency: {new_tokens: 4}\n"
    plan = plan_of(tmp_path, store, text, methods=["reap"], retain=[0.5])
    found = [finding.words for check in model_checks(plan) for finding in check.run()]
    assert any("is not measured of a model with experts: stored" in words for words in found)
