"""Who may be compared with whom, and what comes of it."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from helpers.altered import altered, on_items, without
from helpers.demo_results import CLOZE, SEEDS, synthetic
from helpers.page_tables import Tables, leaderboard
from helpers.pages import html_of
from mbench.core.evaluation import evaluation
from mbench.report.statistics.groups import arrange
from mbench.report.statistics.pairing import pair
from mbench.report.statistics.ranking import rankings
from mbench.report.statistics.scores import Score, average_score, perplexity_score, primary_score

FEW = ("random", "none", "mean", "max", "tb-coverage", "reap-code")


def ranking_at(results, retain=0.5, score=None):
    score = score or primary_score(results)
    group = arrange(results)[0]
    return rankings(group, score, pair(group.cells, score.parts))[retain]


def at(results, retain=0.5, score=None):
    """Method -> row, without random pruning."""
    ranking = ranking_at(results, retain, score)
    rows = {name: row for row in ranking.ranked for name in row.names}
    return rows | {row.entry.method: row for row in ranking.unranked}


def few(change=None):
    """A smaller run: five methods, everything complete, then changed."""
    small = altered(lambda cell: cell if cell.method in FEW else None)
    return altered(change, small) if change else small


def is_mean(cell):
    return cell.method == "mean" and cell.retain == 0.5


def test_equal_masks_are_one_row_that_is_tested_once():
    ranking = ranking_at(synthetic(), 0.25)
    row = ranking.row_of("max")
    assert row.names == ("max", "max-protected")
    assert row is ranking.row_of("max-protected")
    assert ranking.compare("max", "max-protected") is None
    assert ranking.compare("max-protected", "mean") == ranking.compare("max", "mean")
    count = len(ranking.ranked)
    assert {c.size for c in ranking.comparisons.values() if c.family == "methods"} == {
        count * (count - 1) // 2
    }


def test_three_families_of_their_own_sizes():
    ranking = ranking_at(few())
    sizes = {}
    for (_, second), comparison in ranking.comparisons.items():
        sizes.setdefault(comparison.family, set()).add((second, comparison.size))
    rows = len(ranking.ranked)
    assert sizes["random"] == {("random", rows)}
    assert sizes["unpruned"] == {("none", rows + 1)}
    assert {size for _, size in sizes["methods"]} == {rows * (rows - 1) // 2}
    there, back = ranking.compare("mean", "none"), ranking.compare("none", "mean")
    assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)


def test_methods_that_differ_by_noise_share_every_rank():
    rng = np.random.default_rng(0)

    def noise(cell):
        return on_items(
            cell, CLOZE, lambda items: items.assign(acc_norm=rng.integers(0, 2, 200).astype(float))
        )

    results = altered(noise, few())
    for retain in (0.25, 0.5, 0.75):
        ranking = ranking_at(results, retain)
        assert {(s.rank, s.last_rank) for s in ranking.ranked} == {(1, len(ranking.ranked))}
        assert ranking.tied == ranking.ranked
        assert ranking.winner is None
        assert not any(c.clear for c in ranking.comparisons.values())


def test_items_in_another_order_are_paired_by_name():
    def shuffle(cell):
        if not is_mean(cell):
            return cell
        return on_items(cell, CLOZE[:1], lambda items: items.sample(frac=1, random_state=3))

    ours, theirs = ranking_at(few()), ranking_at(few(shuffle))
    assert [row.rank for row in ours.ranked] == [row.rank for row in theirs.ranked]
    assert ours.comparisons == theirs.comparisons


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda items: items.iloc[1:], "cloze-code on other items, 199 of 200 in common"),
        (
            lambda items: items.assign(item="x" + items["item"]),
            "cloze-code on other items, 0 of 200 in common",
        ),
        (lambda items: items.iloc[[0, *range(200)]], "cloze-code has an item twice"),
        (
            lambda items: items.assign(acc_norm=items.acc_norm.where(items.index != 4)),
            "cloze-code on other items, 199 of 200 in common",
        ),
        (lambda items: items.assign(acc_norm=math.nan), "cloze-code has no outcome"),
        (lambda items: items.assign(acc_norm=math.inf), "an outcome that is not finite"),
    ],
)
def test_a_cell_on_other_items_is_named_and_costs_the_others_nothing(change, problem):
    results = few(lambda c: on_items(c, ["cloze-code"], change) if is_mean(c) else c)
    found, expected = ranking_at(results), ranking_at(few(lambda c: None if is_mean(c) else c))
    (unranked,) = found.unranked
    assert problem in unranked.problem
    assert found.ranked == expected.ranked
    assert found.comparisons == expected.comparisons


def test_the_page_names_a_cell_on_other_items():
    results = few(lambda c: on_items(c, ["cloze-code"], lambda i: i.iloc[1:]) if is_mean(c) else c)
    problem = "cloze-code on other items, 199 of 200 in common"
    tables = Tables(html_of(results)).tables
    rows = {row[0]: row for row in tables["Results that are missing or not comparable"][1:]}
    assert rows["mean"][5:] == ["not comparable", problem]
    assert leaderboard(tables, 50)["mean"]["Common Avg"] == f"not comparable|{problem}"


def test_most_cells_say_which_items_are_the_task():
    """Even if the unpruned model is the stranger; then no share of its gap is told."""
    results = few(lambda c: on_items(c, CLOZE, lambda i: i.iloc[5:]) if c.method == "none" else c)
    ranking = ranking_at(results)
    assert ranking.unpruned is None
    assert ranking.untested == {"unpruned": "no figure of the unpruned model"}
    assert all(row.gap_closed is None for row in ranking.ranked)


def test_windows_with_other_tokens_are_not_compared():
    def longer(cell):
        if not is_mean(cell):
            return cell
        return on_items(cell, ["bible"], lambda items: items.assign(tokens=items.tokens + 1))

    results = few(longer)
    found = at(results, score=perplexity_score(results))["mean"]
    assert found.problem == "bible with other tokens in the same windows"
    assert at(results)["mean"].rank  # on the average's tasks it is


def test_a_mask_with_two_outcomes_is_believed_in_neither():
    twin = dataclasses.replace(next(filter(is_mean, few().cells)), method="twin")
    other = on_items(twin, CLOZE[:1], lambda items: items.assign(acc_norm=1 - items.acc_norm))
    equal = at(few(lambda c: (c, twin) if is_mean(c) else c))
    assert equal["twin"].rank == equal["mean"].rank
    found = at(few(lambda c: (c, other) if is_mean(c) else c))
    problem = f"{CLOZE[0]} has two different outcomes for the same experts kept"
    assert found["mean"].problem == found["twin"].problem == problem
    assert found["max"].rank
    preserved = dataclasses.replace(other, router="preserved")
    found = at(few(lambda c: (c, preserved) if is_mean(c) else c))
    assert found["twin"].rank
    assert found["mean"].rank


def test_what_is_listed_twice_is_not_taken_for_seeds():
    found = at(few(lambda c: (c, c) if is_mean(c) or c.seed == 3 else c))
    assert found["mean"].problem == "it is listed twice"
    assert found["random"].problem == "seed 3 is listed twice"
    untested = ranking_at(few(lambda c: (c, c) if c.seed == 3 else c)).untested
    assert untested == {"random": "random pruning cannot be compared: seed 3 is listed twice"}
    assert found["max"].masks_beaten is None


def test_an_incomplete_random_mean_is_no_reference():
    def fail(cell):
        if cell.seed != 2:
            return cell
        return dataclasses.replace(cell, status="failed", reason="no", tasks={}, evaluations={})

    ranking = ranking_at(few(fail))
    assert [own.entry.method for own in ranking.unranked] == ["random"]
    assert ranking.random is None
    why = "figures of 5 of 6 random masks, the others are failed"
    assert ranking.untested == {"random": why}
    assert ranking.compare("mean", "random") is None
    assert ranking.row_of("mean").gap_closed is None


def test_without_an_average_log_perplexity_ranks():
    results = synthetic(average="")
    score = primary_score(results)
    assert score == perplexity_score(results)
    ranking = ranking_at(results, score=score)
    means = [row.summary.mean for row in ranking.ranked]
    assert means == sorted(means)
    best = ranking.ranked[0]
    assert ranking.compare(best.label, "random").value < 0 < best.gap_closed.value < 1
    assert best.masks_beaten == 6
    assert "Mean log perplexity, lower is better" in html_of(results)


@pytest.mark.parametrize(("lost", "clear"), [(5, False), (6, True)])
def test_a_single_task_of_right_and_wrong_is_tested_as_mcnemar_does(lost, clear):
    """Of six items lost and none won McNemar's exact p is 2 / 2^6 = 0.031, of five 0.063."""
    score = Score("One", (("cloze-code", "acc_norm"),), higher=True)

    def outcomes(cell):
        if cell.method not in ("none", "mean", "max"):
            return None
        wrong = lost if cell.method == "max" else 0
        right = (np.arange(200) >= wrong).astype(float)
        return on_items(cell, ["cloze-code"], lambda items: items.assign(acc_norm=right))

    found = at(altered(outcomes), score=score)
    assert list(found) == ["mean", "max"]
    assert found["max"].tied != clear
    assert (found["max"].rank, found["max"].last_rank) == ((2, 2) if clear else (1, 2))


def test_seeds_enter_intervals_by_their_own_spread():
    """With exactly known items, the interval of the random mean is Student's over six seeds."""
    flat = {seed: 0.3 + 0.02 * n for n, seed in enumerate(SEEDS)}

    def known(cell):
        value = flat.get(cell.seed, 0.9)
        return on_items(cell, CLOZE, lambda items: items.assign(acc_norm=value))

    found = ranking_at(few(known)).compare("mean", "random")
    half = scipy.stats.sem(list(flat.values())) * scipy.stats.t.ppf(1 - 0.025 / found.size, 5)
    assert found.value == pytest.approx(0.9 - 0.35)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.001)


def test_every_random_seed_as_the_only_baseline():
    """Against the average of each seed alone, by the cells' own figures."""
    results = few()
    score = average_score(results)
    for retain in (0.25, 0.5, 0.75):
        ranking = ranking_at(results, retain)
        seeds = {cell.seed: score.value(cell) for cell in ranking.random.entry.cells}
        assert ranking.random.figures == tuple(seeds.values())
        mean = np.mean(list(seeds.values()))
        for method in ("mean", "max", "reap-code"):
            row = ranking.row_of(method)
            value = row.summary.mean
            other = {s for s, figure in seeds.items() if (value > figure) != (value > mean)}
            assert set(row.reversing_seeds) == other
            assert row.masks_beaten == sum(value > f for f in seeds.values())


def test_fewer_than_three_random_masks_say_nothing():
    ranking = ranking_at(few(lambda c: c if c.seed in (None, 42) else None))
    assert ranking.untested == {"random": "1 random mask: at least 3 are needed"}
    compared = ranking.compare("mean", "random")
    assert compared.problem
    assert math.isnan(compared.p)
    assert not compared.clear
    # Nor how far random pruning is from the unpruned model, and how much of that is closed.
    compared = ranking.compare("random", "none")
    assert compared.problem == "1 random mask: at least 3 are needed"
    assert math.isnan(compared.p)
    assert {row.gap_closed for row in ranking.ranked} == {None}
    assert ranking.compare("mean", "none").p < 1


def test_the_same_masks_in_other_shares_are_no_copies():
    """Two methods with three seeds draw the same two masks, one of them twice."""
    masks = {"mean": "aab", "max": "abb", "tb-coverage": "bab"}

    def drawn(cell):
        if cell.retain != 0.5 or cell.method not in masks:
            return cell
        made = []
        for seed, mask in enumerate(masks[cell.method]):
            right = (np.arange(200) < {"a": 60, "b": 120}[mask]).astype(float)
            own = on_items(cell, CLOZE, lambda items, right=right: items.assign(acc_norm=right))
            made.append(dataclasses.replace(own, seed=seed, mask=mask))
        return tuple(made)

    rows = {row.label: row.summary.mean for row in ranking_at(few(drawn)).ranked}
    assert rows["max = tb-coverage"] == pytest.approx(0.5)
    assert rows["mean"] == pytest.approx(0.4)


def test_pairing_puts_every_cell_beside_the_others():
    group = arrange(few())[0]
    paired = pair(group.cells, [("cloze-code", "acc_norm"), ("bible", "mean_nll")])
    assert [(s.units, s.unit) for s in paired.strata] == [(200, "items"), (40, "documents")]
    assert len(paired.columns) == len(few().cells)
    assert paired.problems == {}
    for cell in few().cells:
        column = paired.columns[cell.key]
        figures = [stratum.figures[column] for stratum in paired.strata]
        expected = [cell.metric("cloze-code", "acc_norm"), cell.metric("bible", "mean_nll")]
        assert figures == pytest.approx([figure.value for figure in expected])
    assert pair({}, [("cloze-code", "acc_norm")]).strata == ()


def test_paired_items_keep_their_weights():
    def weighted(cell):
        items = cell.evaluations["cloze-code"].items
        items = items.assign(weight=np.linspace(0.1, 1, len(items)))
        return dataclasses.replace(
            cell, evaluations={"cloze-code": evaluation("cloze-code", items)}
        )

    cells = {cell.key: weighted(cell) for cell in few().cells}
    paired = pair(cells, [("cloze-code", "acc_norm")])
    for key, column in paired.columns.items():
        figure = cells[key].metric("cloze-code", "acc_norm").value
        assert paired.strata[0].figures[column] == pytest.approx(figure)
    assert len(paired.columns) == len(cells)


def test_without_random_nothing_is_said_of_it():
    ranking = ranking_at(altered(without("random"), few()))
    assert ranking.untested == {"random": "random pruning was not run"}
    row = ranking.row_of("mean")
    assert row.masks_beaten is row.gap_closed is ranking.compare("mean", "random") is None
