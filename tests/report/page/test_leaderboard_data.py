"""What the leaderboard shows beyond means, against loops over tokens."""

import dataclasses
import zlib

import numpy as np
import pytest

from helpers.demo_results import CORPORA, synthetic
from mbench.core.evaluation import evaluation, with_changes
from mbench.report.page.leaderboard_data import leaderboard_data
from mbench.report.statistics.boards import boards
from mbench.report.statistics.families import Comparison
from mbench.storage.results_folder import read, write


def with_predictions(cell):
    """Three tokens to choose from; equal masks predict alike."""
    found = dict(cell.evaluations)
    for task in set(CORPORA) & set(found):
        random = np.random.default_rng(zlib.crc32(f"{cell.mask} {task}".encode()))
        items = found[task].items
        top = [random.integers(0, 3, tokens).astype(np.int32) for tokens in items["tokens"]]
        found[task] = evaluation(task, items.assign(top=top))
    return dataclasses.replace(cell, evaluations=found)


def counted(cell, full):
    """As a run's results have it."""
    found = {
        task: with_changes(own, full.evaluations.get(task))
        for task, own in cell.evaluations.items()
    }
    return dataclasses.replace(cell, evaluations=found)


def test_predictions_that_changed_are_the_mean_over_texts_of_shares_of_tokens(tmp_path):
    made = synthetic()
    predicted = tuple(map(with_predictions, made.cells))
    (full,) = (cell for cell in predicted if cell.method == "none")
    write(dataclasses.replace(made, cells=tuple(counted(c, full) for c in predicted)), tmp_path)
    results = read(tmp_path)
    (model,) = leaderboard_data(boards(results))["models"]
    (budget,) = (own for own in model["budgets"] if own["retain"] == 0.5)
    for cell in predicted:
        if cell.retain != 0.5 or cell.method not in ("mean", "tb-coverage"):
            continue
        shares = []
        for task in CORPORA:
            tops = (own.evaluations[task].items["top"] for own in (full, cell))
            pairs = [
                pair
                for rows in zip(*tops, strict=True)
                for pair in zip(*map(list, rows), strict=True)
            ]
            shares.append(sum(one != other for one, other in pairs) / len(pairs))
        assert budget["changed"][cell.method] == pytest.approx(sum(shares) / 3, abs=1e-4)
    # Several masks have no one prediction, and runs without predictions no share.
    assert "random" not in budget["changed"]
    (model,) = leaderboard_data(boards(made))["models"]
    assert [own["changed"] for own in model["budgets"]] == [{}] * 3


def test_what_is_clear_by_a_hair_stays_clear_when_rounded(monkeypatch):
    """The page takes its words from an adjusted p below 0.05 and from signs."""
    run = boards(synthetic())
    rankings = [board.ranking for board in run.groups[0].boards]
    hair = Comparison(3e-6, 1e-7, 6e-6, 0.0497, 0.04996, "methods", 1)
    for ranking in rankings:
        monkeypatch.setitem(ranking.comparisons, tuple(r.label for r in ranking.ranked[:2]), hair)
    for budget in leaderboard_data(run)["models"][0]["budgets"]:
        value, low, high, p, adjusted = budget["boards"]["score"]["pairs"][0]
        assert 0 < low <= value <= high
        assert p < 0.05
        assert adjusted < 0.05
