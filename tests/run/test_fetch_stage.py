"""Every text that is going to be read is fetched before the hub is left alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.tiny_suite import SUITE, Watcher, plan_of
from mbench.run.runner import Runner
from mbench.run.score_stage import only_scored, score


class Needed(Exception):
    """Ends a run where it begins to fetch."""


@pytest.fixture
def plan(tmp_path, store, monkeypatch):
    """Texts as if they were on the hub, of a mix and of a search; nothing is fetched."""
    mixed = "  both: {mix: {bible: 2, wiki: 4}}\ncalibration:"
    text = SUITE.replace("calibration:", mixed, 1)
    listed = "  mixed: {use: reap, corpora: [both]}\n  evoesap: {corpora: [wiki]}\nperplexity:"
    plan = plan_of(tmp_path, store, text.replace("perplexity:", listed, 1))

    def fetch(needed, progress):
        raise Needed([each for each in needed if isinstance(each, str)])

    for stage in ("runner", "score_stage"):
        monkeypatch.setattr(f"mbench.run.{stage}.fetch", fetch)
    corpora = {
        name: replace(
            corpus,
            parts=tuple(
                replace(part, text=SimpleNamespace(fetchable=f"text of {part.name}"))
                for part in corpus.parts
            ),
        )
        for name, corpus in plan.corpora.items()
    }
    return replace(plan, corpora=corpora)


def test_all_parts_of_a_mix_are_fetched_before_its_scores(plan, store):
    with pytest.raises(Needed) as needed:
        score(only_scored(plan, "mixed"), store, Watcher())
    assert needed.value.args == (["text of bible", "text of wiki"],)


def test_a_search_has_its_text_though_all_statistics_are_stored(plan, store, monkeypatch):
    cells = tuple(cell for cell in plan.cells if cell.method.name == "evoesap")
    monkeypatch.setattr("mbench.run.runner.missing_jobs", lambda session, cells: {})
    with pytest.raises(Needed) as needed:
        Runner(replace(plan, cells=cells), store, Watcher()).run()
    assert set(needed.value.args[0]) == {"text of wiki"}
