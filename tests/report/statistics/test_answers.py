"""The three answers, against figures from which they follow by eye."""

import dataclasses
import math

import numpy as np
import pytest

from helpers.altered import altered, on_items, without
from helpers.demo_results import CLOZE, synthetic
from helpers.pages import html_of
from mbench.cli.standings import show_standings
from mbench.report.page.index import to_json
from mbench.report.statistics.answers import answers
from mbench.report.statistics.boards import boards

FEW = ("random", "none", "mean", "max", "tb-coverage")


def scored(values, spread=0.0):
    """A change: share of right items of each method; of seeds, around their method's."""

    def change(cell):
        share = values.get(cell.method)
        if share is None:
            return None
        share += spread * (0 if cell.seed is None else cell.seed % 5 - 2)
        right = (np.arange(200) < round(200 * share)).astype(float)
        return on_items(cell, CLOZE, lambda items: items.assign(acc_norm=right))

    return change


def at_half(results):
    """The board at 50 %, and its answers."""
    (board,) = [b for b in boards(results).groups[0].boards if b.retain == 0.5]
    return board, answers(board.ranking)


def only(*names):
    return altered(lambda cell: cell if cell.method in names else None)


def test_a_clear_win():
    values = {"none": 0.9, "mean": 0.8, "max": 0.5, "tb-coverage": 0.5, "random": 0.4}
    _, (best, hurt, gain) = at_half(altered(scored(values, 0.01), only(*FEW)))
    assert (best.kind, best.name, best.chip) == ("win", "mean", "clear win")
    assert best.figures_text == "0.800"
    assert (hurt.kind, hurt.chip, hurt.figures_text) == ("down", "yes", "−0.100")
    assert (gain.kind, gain.chip) == ("up", "yes")
    low, high = gain.interval
    assert 0 < low < 0.4 < high


@pytest.mark.parametrize(
    ("random", "against"),
    [(0.69, "not told apart from random pruning"), (0.9, "worse than random pruning")],
)
def test_the_best_of_several_is_no_clear_win_unless_it_is_above_random(random, against):
    values = {"none": 0.95, "mean": 0.7, "max": 0.5, "tb-coverage": 0.5, "random": random}
    results = altered(scored(values, 0.02), only(*FEW))
    _, (best, _, gain) = at_half(results)
    assert gain.kind != "up"
    assert (best.kind, best.name, best.chip, best.note) == ("none", "mean", "best of 3", against)
    index = to_json(boards(results))["budgets"]
    assert [own["answers"][0]["note"] for own in index if own["retain"] == 0.5] == [against]
    _, (best, _, _) = at_half(altered(without("random"), results))
    assert (best.kind, best.chip) == ("win", "clear win")  # nothing is known of random pruning


@pytest.mark.parametrize(
    ("values", "status", "chip", "note"),
    [
        ({"mean": 0.7, "max": 0.7}, "interrupted", "all tied among 2 of 3", "1 has no figures yet"),
        ({"mean": 0.8, "max": 0.5}, "failed", "clear win among 2 of 3", "1 has no figures"),
        ({"mean": 0.8}, "interrupted", "one method of 3", "2 have no figures yet"),
    ],
)
def test_methods_without_figures_are_counted_beside_what_is_told(values, status, chip, note):
    """Of others' figures alone nobody can say who is best, or draw who is."""
    known = {"none": 0.9, "random": 0.4, **values}

    def missing(cell):
        if cell.method in known:
            return cell
        return dataclasses.replace(cell, status=status, reason="no", tasks={}, evaluations={})

    every = {**dict.fromkeys(FEW, 0.1), **known}
    results = altered(missing, altered(scored(every, 0.01), only(*FEW)))
    _, (best, _, _) = at_half(results)
    assert (best.kind, best.chip) == ("none", chip)
    assert best.note.split("; ")[0] == note
    (shown,) = [own for own in to_json(boards(results))["budgets"] if own["retain"] == 0.5]
    assert set(shown["without_figures"]) == set(FEW) - set(known)
    page = html_of(results)
    assert chip in page
    assert "tied for best of those with figures" in page
    assert ("names tied" in page) == (len(values) > 1)


def test_equal_scores_never_lead_alone():
    values = {"none": 0.9, "mean": 0.7, "max": 0.7, "tb-coverage": 0.69, "random": 0.4}
    _, (best, hurt, _) = at_half(altered(scored(values, 0.01), only(*FEW)))
    assert (best.kind, best.chip) == ("tie", "all 3 tied")
    assert best.note in ("highest: mean and max", "highest: max and mean")
    assert hurt.chip == "yes, all 3"
    assert best.figures == (pytest.approx(0.69), pytest.approx(0.7))


def test_copies_count_as_methods_and_are_tested_once():
    board = boards(synthetic(failures=False)).groups[0].boards[-1]
    best, hurt, _ = answers(board.ranking)
    names = sum(len(row.names) for row in board.ranking.ranked)
    tied = sum(len(row.names) for row in board.ranking.tied)
    assert names > len(board.ranking.ranked)
    assert best.chip == f"{tied} of {names} tied"
    assert str(tied) in hurt.chip


def test_no_loss_and_no_gain_are_what_is_seen():
    values = {"none": 0.7, "mean": 0.7, "max": 0.69, "tb-coverage": 0.7, "random": 0.69}
    _, (best, hurt, gain) = at_half(altered(scored(values, 0.04), only(*FEW)))
    assert best.chip == "all 3 tied"
    assert (hurt.kind, hurt.chip) == ("none", "no loss seen")
    assert (gain.kind, gain.chip) == ("none", "no gain seen")


def test_worse_than_random_and_better_than_unpruned_are_said():
    values = {"none": 0.3, "mean": 0.5, "max": 0.5, "tb-coverage": 0.5, "random": 0.8}
    _, (_, hurt, gain) = at_half(altered(scored(values, 0.01), only(*FEW)))
    assert (hurt.kind, hurt.chip) == ("up", "better, 3 of 3")
    assert (gain.kind, gain.chip) == ("down", "worse, 3 of 3")


def test_what_cannot_be_told_says_why():
    _, (_, hurt, gain) = at_half(altered(without("random")))
    assert (gain.kind, gain.chip, gain.why) == (
        "unknown",
        "cannot tell",
        "random pruning was not run",
    )
    assert hurt.why == ""
    _, (_, hurt, _) = at_half(altered(without("none")))
    assert hurt.why == "no figure of the unpruned model"
    few = altered(lambda c: on_items(c, ["bible"], lambda t: t.head(20)))
    (board,) = [b for b in boards(few).groups[0].boards if b.retain == 0.5]
    for answer in answers(board.by_perplexity):
        assert answer.chip == "cannot tell"
        assert "too few documents to tell: 20 in bible" in answer.why
        assert answer.interval is None
    _, (best, *_) = at_half(only("none", "random", "mean"))
    assert (best.chip, best.note) == ("one method", "mean")


def test_pruned_models_that_guess_have_lost_what_the_unpruned_one_knew(capsys):
    values = {"none": 0.9, "mean": 0.0, "max": 0.0, "tb-coverage": 0.0, "random": 0.0}
    _, (best, hurt, gain) = at_half(altered(scored(values), only(*FEW)))
    assert best.why == gain.why == "not told apart from guessing"
    show_standings(boards(altered(scored(values), only(*FEW))))
    assert "not told apart from guessing; " in capsys.readouterr().err
    assert (hurt.kind, hurt.chip, hurt.figures_text) == ("down", "yes, all 3", "−0.900")
    # Terminal, heads of tables and glossary have one name for it.
    page = html_of(altered(scored(values), only(*FEW)))
    assert "not told apart from guessing (" in page
    assert "<dt>Not told apart from guessing</dt>" in page
    _, told = at_half(altered(scored(dict.fromkeys(FEW, 0.0)), only(*FEW)))
    assert {answer.why for answer in told} == {"not told apart from guessing"}


def test_scores_that_differ_by_rounding_are_equal():
    """411 of 600 right each, but the means of the shares are not the same number."""
    of_200 = {"mean": (100, 191, 120), "max": (107, 184, 120), "tb-coverage": (101, 194, 116)}
    means = {math.fsum(right / 200 for right in own) / 3 for own in of_200.values()}
    assert len(means) == 2

    def change(cell):
        for task, count in zip(CLOZE, of_200.get(cell.method, (80,) * 3), strict=True):
            right = (np.arange(200) < count).astype(float)
            cell = on_items(cell, [task], lambda items, right=right: items.assign(acc_norm=right))
        return cell

    _, (best, *_) = at_half(altered(change, only(*FEW)))
    assert sorted(best.note.removeprefix("highest: ").replace(" and ", ", ").split(", ")) == [
        "max", "mean", "tb-coverage"
    ]  # fmt: skip


def test_page_terminal_and_file_give_the_same_answers(capsys):
    results = synthetic()
    run = boards(results)
    page = html_of(results)
    show_standings(run)
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    written = to_json(run)
    for board, budget in zip(run.groups[0].boards, written["budgets"], strict=True):
        for answer, own in zip(answers(board.ranking), budget["answers"], strict=True):
            assert own["answer"] == answer.chip
            for text in (answer.chip, answer.interval_text):
                assert text in page
                assert text in printed
        for own in budget["comparisons"]:
            if own["low"] is not None:
                assert own["clear"] == (own["low"] > 0 or own["high"] < 0)
                assert own["clear"] == (own["p_adjusted"] < 0.05)
