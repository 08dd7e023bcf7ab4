"""The Python API runs what the command line runs, with plugins of the calling process."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import os
import re
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import yaml

import mbench
from helpers.frequency import Frequency
from helpers.tiny_suite import SUITE
from mbench.core.cell_results import UNPRUNED
from mbench.plan.components import class_code
from mbench.storage.results_folder import read

TINY = yaml.safe_load(SUITE)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def results(store, tmp_path_factory):
    return mbench.run(
        TINY,
        plugins=[Frequency],
        methods={"frequency": {"corpora": ["wiki"]}, "often": {"use": "reap", "corpora": ["wiki"]}},
        only=["random", "frequency", "often"],
        output=tmp_path_factory.mktemp("reports"),
        store=store,
        quiet=True,
    )


def test_a_class_is_a_method_whose_mask_follows_from_its_scores(results):
    scores = results.scores["demo", "frequency", "wiki"]
    (cell,) = (c for c in results.cells if (c.method, c.retain) == ("frequency", 0.5))
    keep = results.masks["demo", cell.mask]
    for layer, row in enumerate(scores):
        best = sorted(range(len(row)), key=lambda expert: (-row[expert], expert))[: cell.kept]
        assert sorted(best) == np.flatnonzero(keep[layer]).tolist()
    assert results.problems == {}


def test_methods_and_options_change_the_suite(results):
    assert {cell.method for cell in results.cells} == {"random", "frequency", "often", UNPRUNED}
    record = results.provenance.runs[0]
    assert "--method" in record.changes
    assert record.command[:2] == ("mbench.run", "tiny")


def test_tables_hold_the_figures_of_the_results(results):
    ranked = results.ranked()
    assert list(ranked.groupby("retain")["method"].count()) == [3, 3]
    long = mbench.long_form(results)
    own = long[(long["method"] == "frequency") & (long["metric"] == "acc")]
    by_budget = dict(zip(own["retain"], own["value"], strict=True))
    mine = ranked[ranked["method"] == "frequency"]
    if (mine["score"] == "acc").all():
        assert dict(zip(mine["retain"], mine["value"], strict=True)) == by_budget
    random = ranked[ranked["method"] == "random"]
    assert random["rank"].isna().all()
    assert random["vs_random"].isna().all()
    assert mbench.ranked(read(results.page.parent)).equals(ranked)


def test_a_leaderboard_is_printed_whole_whatever_the_width_of_pandas(results):
    ranked = results.ranked()
    with pd.option_context("display.width", 20, "display.max_columns", 2, "display.max_rows", 1):
        text = str(ranked)
    for _, row in ranked.iterrows():
        (line,) = re.findall(rf"^.*  {row['method']} .*{row['value']:.3f}.*$", text, re.M)
        assert ("*" in line) == (row["tied"] is True)
        for name in ("vs_random", "vs_random_low", "vs_unpruned", "vs_unpruned_high"):
            assert np.isnan(row[name]) or f"{abs(row[name]):.3f}" in line
    assert max(map(len, text.splitlines()[:-1])) < 100
    assert ", ".join(ranked.columns) in text
    for part in (ranked[["method"]], ranked[ranked["rank"].notna()], ranked.copy()):
        assert type(part) is pd.DataFrame
    assert str(ranked.__class__(ranked[:0])).startswith("columns: model, ")


def test_a_notebook_shows_answers_and_where_the_report_lies(results):
    page = results._repr_html_()
    assert "Which is best?" in page
    assert results.page.resolve().as_uri() in page
    assert results.page.is_file()


def test_a_second_call_takes_all_from_the_store_and_a_plan_says_so(store, tmp_path):
    asked = {"plugins": [Frequency], "methods": {"frequency": {"corpora": ["wiki"]}}}
    chosen = {"only": ["frequency"], "store": store, "retain": [0.5]}
    planned = mbench.plan(TINY, **asked, **chosen)
    assert planned.costs["tokens"].tolist() == [0]
    assert planned.cells["stored"].tolist() == [True]
    again = mbench.run(TINY, **asked, **chosen, output=tmp_path, quiet=True)
    assert again.provenance.runs[0].cost.forward_tokens == 0
    lock = json.loads((tmp_path / "tiny" / "suite.lock").read_text())
    assert "scorer frequency" in lock["identities"]["components"]
    # A lock is repeated where its plugins are given again.
    repeated = mbench.run(
        tmp_path / "tiny" / "suite.lock",
        plugins=[Frequency],
        store=store,
        output=tmp_path / "b",
        quiet=True,
    )
    assert mbench.long_form(repeated).equals(mbench.long_form(again))


def test_a_scorer_given_alone_joins_the_methods_unless_one_uses_it(store):
    one = {**TINY, "calibration": ["wiki"]}
    bare = mbench.plan(one, plugins=[Frequency], only=["random", "frequency"], store=store)
    assert set(bare.cells["method"]) == {"random", "frequency"}
    used = mbench.plan(
        {**one, "methods": {"random": None}},
        plugins=[Frequency],
        methods={"mine": {"scorer": "frequency", "selector": "top-k"}},
        store=store,
    )
    assert set(used.cells["method"]) == {"random", "mine"}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"retain": [2]}, {}, r"^tiny: retain\.0: .*less than 1, got 2"),
        ({"seed": [2]}, {}, r"^tiny: seed: unknown key 'seed'; did you mean 'seeds'\?"),
        ({"methods": {"reap": {"corpora": [object()]}}}, {}, r"^tiny: .*no value of a suite"),
        ({}, {"methods": {"reap": {"corpus": []}}}, r"^methods= reap: unknown key 'corpus'"),
        ({}, {"plugin": []}, r"^unknown option 'plugin'; did you mean 'plugins'\?"),
        ({}, {"plugins": [Frequency()]}, r"give the class Frequency, not an object"),
        ({}, {"plugins": [dict]}, r"dict is no component"),
        ({}, {"plugins": [json]}, r"implements no mbench hook"),
        (
            {},
            {"plugins": [type("Made", (Frequency,), {"name": "made"})]},
            r"source of Made is not in its module",
        ),
        ({}, {"plugins": [mbench.Scorer]}, r"Scorer is no component"),
        ({}, {"output": "x"}, r"^unknown option 'output' \(valid: "),
        ({}, {"limit": "3"}, r"limit= takes a number of items from 1, got '3'"),
        ({}, {"store": 3}, r"store= takes a path, got 3"),
        ({}, {"plugins": "frequency.py"}, r"plugins= takes a list"),
        ({}, {"only": "reap"}, r"only= takes a list"),
        ({}, {"only": ["reaper"]}, r"unknown method 'reaper'; did you mean 'reap'"),
        ({}, {"changes": {"router": "slice"}}, r"--set router=.*'sliced' or 'preserved'"),
        ({}, {"models": {"demos": "x"}}, r"unknown model 'demos'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(change, options, message, store):
    with pytest.raises(mbench.MbenchError, match=message) as caught:
        mbench.plan({**TINY, **change}, **{"store": store, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suite", [None, 3, [], b"quickstart"])
def test_a_suite_that_is_none_is_refused(suite):
    with pytest.raises(mbench.MbenchError, match="a suite is a file, a name or a mapping, got"):
        mbench.plan(suite)
    with pytest.raises(mbench.MbenchError, match="output= takes a path, got 3"):
        mbench.run("quickstart", output=3)


def test_a_plugin_may_be_called_as_a_module_of_python(tmp_path, monkeypatch):
    source = inspect.getsource(inspect.getmodule(Frequency))
    (tmp_path / "queue.py").write_text(source)
    spec = importlib.util.spec_from_file_location("queue", tmp_path / "queue.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "queue", module)
    spec.loader.exec_module(module)
    (root,) = class_code(module.Frequency)
    assert root is module


def test_a_call_leaves_the_environment_and_loggers_as_they_were(store, monkeypatch):
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("datasets").setLevel(logging.INFO)
    mbench.plan(TINY, store=store)
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert logging.getLogger("datasets").level == logging.INFO


def test_scores_are_those_of_a_run_and_cost_no_evaluation(results, store, tmp_path):
    asked = {"plugins": [Frequency], "changes": {"calibration": ["wiki", "bible"]}}
    own = {"methods": {"frequency": {"corpora": ["wiki"]}}}
    table = mbench.scores(TINY, "frequency", **asked, **own, store=store, quiet=True)
    wide = table.pivot(index="layer", columns="expert", values="score").to_numpy()
    assert np.array_equal(wide, results.scores["demo", "frequency", "wiki"])
    mbench.scores(TINY, "reap", store=tmp_path, quiet=True)
    assert not list((tmp_path / "evaluations").rglob("*.parquet"))
    with pytest.raises(mbench.MbenchError, match="'random' has no scorer: it rates no expert"):
        mbench.scores(TINY, "random", store=store)


def test_the_hub_may_be_asked_again_afterwards(store, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    mbench.scores(
        TINY,
        "frequency",
        plugins=[Frequency],
        store=store,
        quiet=True,
        methods={"frequency": {"corpora": ["wiki"]}},
    )
    assert "HF_HUB_OFFLINE" not in os.environ
    assert not sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE


def test_a_file_or_a_name_is_a_suite_too(store, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(SUITE)
    assert mbench.plan(path, store=store, only=["random"]).suite == "tiny"
    named = mbench.plan("quickstart", store=store, only=["random"], retain=[0.5])
    assert named.suite == "quickstart"
    assert "Router" in " ".join(named.settings)


def test_the_folders_of_the_stages_stay_modules():
    assert inspect.ismodule(mbench.run)
    assert list(inspect.signature(mbench.run).parameters)[:2] == ["suite", "output"]
    assert mbench.run.session.Outcome is __import__("mbench.run.session").run.session.Outcome


def test_warnings_of_the_caller_are_as_before(store):
    before = list(warnings.filters)
    mbench.plan(TINY, store=store, only=["random"])
    assert warnings.filters == before
