"""The sentences, against the standings and figures that they speak of."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from helpers.altered import altered, on_items, without
from helpers.demo_results import CLOZE, synthetic
from helpers.page_tables import Tables, leaderboard
from helpers.pages import html_of
from mbench.cli.standings import show_standings
from mbench.report.statistics.boards import boards
from mbench.report.statistics.floors import ROOM, Floor, floors, level
from mbench.report.statistics.groups import arrange
from mbench.report.statistics.verdict import verdict

FEW = ("random", "none", "mean", "max", "tb-coverage", "reap-code")


def few(change=None):
    small = altered(lambda cell: cell if cell.method in FEW else None)
    return altered(change, small) if change else small


def scored(values, spread=0.0):
    """A change: acc_norm of method -> share of right items, of seeds around their method's."""

    def change(cell):
        share = values.get(cell.method)
        if share is None:
            return None
        share += spread * (0 if cell.seed is None else cell.seed % 5 - 2)
        right = (np.arange(200) < round(200 * share)).astype(float)
        return on_items(cell, CLOZE, lambda items: items.assign(acc_norm=right))

    return change


def all_boards(results):
    return [board for group in boards(results).groups for board in group.boards]


def at_half(results):
    return next(verdict(board) for board in all_boards(results) if board.retain == 0.5)


def test_every_budget_has_a_verdict_that_the_page_and_the_terminal_share(capsys):
    results = synthetic()
    assert [board.retain for board in all_boards(results)] == [0.25, 0.5, 0.75]
    html = html_of(results)
    show_standings(boards(results))
    printed = capsys.readouterr().err
    for told in map(verdict, all_boards(results)):
        assert any(text.startswith("Mean log perplexity is lowest for") for text in told.findings)
        for text in (told.headline, " ".join(told.findings), " ".join(told.caveats)):
            assert text in html
            assert text in printed
    assert html.index('id="verdict"') < html.index("<table")


def test_verdict_says_what_the_table_says():
    rows = leaderboard(Tables(html_of(synthetic())).tables, 50)
    found = at_half(synthetic())
    best = next(name for name in rows if name != "unpruned")
    assert found.leader == best
    tied = {n for n, r in rows.items() if r["vs. best"].endswith("not significant")}
    assert f"not significantly different from {len(tied)} other" in found.headline
    gap, bounds = rows[best]["vs. random"].split("|")
    assert f": {gap} {bounds} over the random mean, better than all 6 random masks." in (
        found.headline
    )
    assert rows[best]["Masks beaten"] == "6/6"
    assert rows[best]["Gap closed"] in found.findings[1]
    assert "frequency is incomplete and not ranked." in found.caveats


def test_a_clear_leader():
    values = {"none": 0.95, "random": 0.3, "mean": 0.5, "max": 0.8}
    found = at_half(few(scored(values, spread=0.02)))
    assert found.leader == "max"
    assert re.fullmatch(
        r"max leads with a Common Avg of 0\.800: \+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\] over the "
        r"random mean, better than all 6 random masks\.",
        found.headline,
    )
    assert found.findings[0].startswith(
        "It is significantly different from all others; the second is mean at"
    )
    assert "−0.300 [" in found.findings[0]
    assert found.findings[2] == "Compared with the random mean, mean is significantly better."
    assert found.caveats == (
        # Two methods and six random masks in any order: one of the two comes first 2 times in 8.
        "If all methods drew their masks at random, the best of their 2 different masks would "
        "still beat all 6 of random pruning with probability 0.25: beating so few is weak "
        "evidence.",
    )


def test_single_seeds_that_would_turn_the_conclusion_are_named():
    values = {"none": 0.95, "random": 0.5, "mean": 0.52, "max": 0.9}
    found = at_half(few(scored(values, spread=0.05)))
    # Seeds 0 1 2 3 4 42 score 0.4, 0.45, 0.5, 0.55, 0.6 and 0.5.
    assert found.caveats[1] == (
        "With a single random seed as the baseline, the sign of the difference to random would "
        "change for mean (seeds 3 and 4)."
    )
    assert found.findings[2] == "No other method is significantly different from the random mean."


def test_random_pruning_may_lead():
    values = {"none": 0.95, "random": 0.8, "mean": 0.5, "max": 0.4}
    found = at_half(few(scored(values, spread=0.01)))
    assert found.leader == "random"
    assert found.headline == (
        "Random pruning has the highest Common Avg, 0.800: no method is ahead of it."
    )
    assert found.findings[0].startswith("It is significantly different from all others")
    assert (
        found.findings[1] == "Compared with the random mean, mean and max are significantly worse."
    )


def test_nothing_is_claimed_of_equal_methods():
    found = at_half(few(scored({"none": 0.95, "random": 0.5, "mean": 0.5, "max": 0.5})))
    assert found.headline.startswith("Random pruning has the highest Common Avg, 0.500: no method")
    assert found.findings[0].endswith(
        "different from no other; the second is mean at +0.000 [+0.000, +0.000]."
    )
    alone = few(scored({"none": 0.95, "random": 0.49, "mean": 0.5, "max": 0.5}, spread=0.1))
    assert at_half(alone).headline.startswith(
        "mean leads with a Common Avg of 0.500, not significantly different from 1 other or from "
        "the random mean: "
    )


@pytest.mark.parametrize(
    ("change", "caveat"),
    [
        (without("random"), "Random pruning was not run: whether any method beats it"),
        (lambda c: c if c.seed in (None, 42) else None, "Random pruning was run with one seed:"),
        (
            lambda c: (
                c
                if c.seed != 3
                else dataclasses.replace(c, status="failed", tasks={}, evaluations={})
            ),
            "Random pruning is incomplete: whether any method beats it is not known.",
        ),
    ],
)
def test_what_is_not_known_of_random_pruning_is_said(change, caveat):
    assert any(text.startswith(caveat) for text in at_half(few(change)).caveats)


def test_without_a_score_nothing_is_ranked():
    results = dataclasses.replace(synthetic(average=""), task_metrics=dict.fromkeys(CLOZE, "acc"))
    html = html_of(results)
    assert "nothing is ranked" in html
    assert ">Rank<" not in html


def answers(counts, targets=None, right=1.0):
    """Items with so many answers each; targets end the items' names."""
    targets = targets or [f"t{n}" for n in range(len(counts))]
    return pd.DataFrame(
        {
            "item": [f"{n}:d:p:{target}" for n, target in enumerate(targets)],
            "acc": right,
            "loglikelihoods": [[-1.0] * count for count in counts],
        }
    )


def test_the_floor_of_a_task():
    assert level(answers([4] * 30), "acc") == 0.25
    assert level(answers([2, 4] * 15), "acc") == pytest.approx(0.375)
    # Six of ten times the right answer is the same one: always saying so is right as often.
    assert level(answers([2] * 10, ["yes"] * 6 + ["no"] * 4), "acc") == pytest.approx(0.6)
    # More right answers than there are to choose from: they are texts, not choices.
    assert level(answers([2] * 4, ["a", "a", "b", "c"]), "acc") == 0.5
    # One log-likelihood is that of a free answer; generated ones have none.
    assert level(answers([1] * 9), "acc") == 0.0
    assert level(answers([4] * 9).drop(columns="loglikelihoods"), "acc") == 0.0
    double = answers([8] * 9).assign(acc_mutual_info=1.0)
    assert level(double, "acc_mutual_info") == 0.25
    assert level(answers([4] * 9, right=0.3), "acc") is None


def guessing(unpruned, pruned):
    """Free answers on cloze-code, so many of 200 right."""

    def change(cell):
        count = unpruned if cell.method == "none" else pruned
        right = (np.arange(200) < count).astype(float)
        return on_items(cell, ["cloze-code"], lambda items: items.assign(acc_norm=right))

    return few(change)


@pytest.mark.parametrize(
    ("unpruned", "pruned", "expected"),
    [
        (2, 1, Floor(0.0, unpruned=True)),  # as GSM8K at 0.01
        (0, 0, Floor(0.0, unpruned=True)),
        (120, 3, Floor(0.0, unpruned=False)),
        # One model alone would clear it; that one of ten does by luck is more likely.
        (120, 10, Floor(0.0, unpruned=False)),
        (10, 20, None),
        (120, 60, None),
    ],
)
def test_tasks_at_their_floor_are_uninformative(unpruned, pruned, expected):
    results = guessing(unpruned, pruned)
    (group,) = arrange(results)
    found = floors(group, group.budgets[1], results.task_metrics)
    assert found == ({"cloze-code": expected} if expected else {})
    text = " ".join(at_half(results).caveats)
    assert ("Uninformative" in text) == (expected is not None)
    assert ("even the unpruned model" in text) == (expected is not None and expected.unpruned)


def test_figures_near_the_floor_are_found_at_the_declared_rate():
    """A model exactly ROOM above the floor is informative in one of twenty runs at most."""
    rng = np.random.default_rng(2)
    count = 0
    (group,) = arrange(few(lambda c: c if c.method in ("none", "mean") else None))
    for _ in range(300):
        right = (rng.random(400) < ROOM + 0.25).astype(float)
        items = answers([4] * 400, right=right).rename(columns={"acc": "acc_norm"})
        unpruned = on_items(group.unpruned, ["cloze-code"], lambda _, items=items: items)
        alone = dataclasses.replace(group, unpruned=unpruned, budgets=())
        budget = dataclasses.replace(group.budgets[0], entries=())
        count += not floors(alone, budget, {"cloze-code": "acc_norm"})
    assert 4 <= count <= 28


def test_no_difference_of_guesses_is_significant():
    """Every task at its floor: even a difference that no chance explains is one of guesses."""

    def change(cell):
        count = {"none": 4, "max": 0}.get(cell.method, 4)
        right = (np.arange(200) < count).astype(float)
        return on_items(cell, CLOZE, lambda items: items.assign(acc_norm=right))

    results = few(change)
    found = at_half(results)
    assert (
        found.caveats[-1]
        == "No task of Common Avg is informative: no difference counts as significant."
    )
    heads = Tables(html_of(results)).tables
    name = next(n for n in heads if n.startswith("Leaderboard") and "50\xa0%" in n)
    assert "cloze-code|acc_norm, at floor 0.00" in heads[name][0]
    assert {row[1] for row in heads[name][2:]} == {"1–5"}


def test_a_copy_of_the_leader_is_no_rival():
    """At a budget where a protected set fills K, two methods are one model."""
    values = {"none": 0.95, "random": 0.3, "mean": 0.5, "max": 0.8}
    results = few(scored(values, spread=0.02))
    twins = [dataclasses.replace(c, method="twin") for c in results.cells if c.method == "max"]
    with_twin = dataclasses.replace(results, cells=(*results.cells, *twins))
    found = at_half(with_twin)
    assert found.headline.startswith("max (the same masks as twin) leads with")
    assert "not significantly" not in found.headline
    assert found.findings[0].startswith(
        "It is significantly different from all others; the second is mean at"
    )
    assert found.findings[2] == "Compared with the random mean, mean is significantly better."
    board = next(board for board in all_boards(with_twin) if board.retain == 0.5)
    assert set(board.ranking.leaders) == {"max", "twin"}
    assert board.ranking.winner == "max"


def test_no_share_of_a_gap_that_may_not_be_there():
    values = {"none": 0.5, "random": 0.5, "mean": 0.5, "max": 0.8}
    found = at_half(few(scored(values, spread=0.05)))
    assert not any("of the gap" in sentence for sentence in found.sentences)
