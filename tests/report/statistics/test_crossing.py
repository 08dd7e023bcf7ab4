"""What methods and calibration texts change: against an analysis of variance and simulations."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.pages import paper_boards
from helpers.records import method
from mbench.report.page.crossing import in_words
from mbench.report.statistics.crossing import covariance, crossed, crossings, effects
from mbench.report.statistics.strata import Stratum
from mbench.report.tables.crossing import crossing_table


def test_methods_are_crossed_with_the_texts_that_all_of_them_have():
    methods = {
        "reap@a": method("reap", corpora=("a",)),
        "reap@b": method("reap", corpora=("b",)),
        "tb@a": method("tb", corpora=("a",), candidate="es@a"),
        "tb@b": method("tb", corpora=("b",), candidate="es@b"),
        "es@a": method("es", corpora=("a",)),
        "count-a": method("count", corpora=("a",)),
        "count-b": method("count", corpora=("b",)),
        "reap": method("reap", corpora=("a", "b")),
    }
    assert crossed(methods) == {
        "reap": {"a": "reap@a", "b": "reap@b"},
        "tb": {"a": "tb@a", "b": "tb@b"},
    }
    without = {name: own for name, own in methods.items() if not name.startswith("tb")}
    assert crossed(without).keys() == {"reap", "count"}  # one method alone is no cross
    assert crossed({"reap@a": methods["reap@a"], "count-a": methods["count-a"]}) == {}


def test_spreads_are_those_of_a_two_way_analysis_of_variance():
    scores = np.random.default_rng(3).normal(size=(3, 4))
    rows, columns = scores.shape
    grand = sum(scores.ravel()) / scores.size
    of_rows = [sum(row) / columns for row in scores]
    of_columns = [sum(column) / rows for column in scores.T]
    between_rows = columns * sum((mean - grand) ** 2 for mean in of_rows)
    between_columns = rows * sum((mean - grand) ** 2 for mean in of_columns)
    both = sum(
        (scores[i, j] - of_rows[i] - of_columns[j] + grand) ** 2
        for i in range(rows)
        for j in range(columns)
    )
    found = effects(scores, np.zeros((12, 12)))
    methods = ((between_rows + both) / (columns * (rows - 1))) ** 0.5
    texts = ((between_columns + both) / (rows * (columns - 1))) ** 0.5
    assert found.methods.measured == pytest.approx(methods)
    assert found.texts.measured == pytest.approx(texts)
    # Without any error of items, that is what there is, and the larger is larger.
    assert found.methods.low == pytest.approx(found.methods.value) == pytest.approx(methods)
    assert found.larger == ("methods" if methods > texts else "texts")


def answers(rng, true, items):
    """Right and wrong answers [items, cells], as alike as those of pruned models are."""
    hard = rng.normal(size=(items, 1))
    noise = rng.normal(size=(items, true.size))
    from scipy.stats import norm

    return ((0.8 * hard + 0.6 * noise) < norm.ppf(true.ravel())) * 1.0


@pytest.mark.parametrize(
    "true",
    [
        np.full((3, 3), 0.6),
        np.array([[0.55, 0.6, 0.65], [0.6, 0.65, 0.7], [0.65, 0.7, 0.5]]),  # symmetric
    ],
)
def test_what_does_not_differ_is_seldom_told_apart(true):
    rng = np.random.default_rng(0)
    told, squares, runs = 0, [], 400
    for _ in range(runs):
        outcomes = answers(rng, true, 300)
        strata = [Stratum(outcomes, np.ones(len(outcomes)))]
        spread = covariance(strata, [[cell] for cell in range(true.size)])
        found = effects(outcomes.mean(axis=0).reshape(true.shape), spread)
        told += bool(found.larger)
        squares.append(found.methods.measured**2 - found.methods.by_items**2)
    assert told / runs < 0.08
    # What items add is taken off: the mean over runs is the true spread.
    error = np.std(squares) / runs**0.5
    assert abs(np.mean(squares) - true.var(axis=0, ddof=1).mean()) < 3 * error


def test_the_intervals_of_spreads_hold():
    true = np.array([[0.5, 0.52, 0.54], [0.6, 0.63, 0.6], [0.7, 0.69, 0.74]])
    spread_of = true.var(axis=0, ddof=1).mean() ** 0.5
    rng, held, told, runs = np.random.default_rng(1), 0, 0, 400
    for _ in range(runs):
        outcomes = answers(rng, true, 400)
        spread = covariance(
            [Stratum(outcomes, np.ones(len(outcomes)))], [[cell] for cell in range(9)]
        )
        found = effects(outcomes.mean(axis=0).reshape(3, 3), spread)
        held += found.methods.low <= spread_of <= found.methods.high
        told += found.larger == "methods"
    assert 0.92 < held / runs < 0.985
    assert told / runs > 0.9


def test_the_table_has_the_scores_of_the_run():
    group = paper_boards().groups[0]
    crossing = crossings(group)[1]
    assert crossing.methods == ("reap", "frequency", "output-norm")
    assert crossing.texts == ("c4", "wikitext2")
    table = crossing_table(crossing)
    by_name = {
        cell.method: group.score.value(cell)
        for cell in group.results.cells
        if (cell.model, cell.retain) == ("qwen", 0.5)
    }
    for row, name in zip(table.rows, crossing.methods, strict=False):
        own = [by_name[f"{name}-{text}"] for text in crossing.texts]
        assert [cell.sort for cell in row.cells] == pytest.approx([*own, sum(own) / 2])
    marked = [cell.sort for row in table.rows for cell in row.cells if cell.kind == "best"]
    assert marked == [max(by_name[f"{m}-{t}"] for m in crossing.methods for t in crossing.texts)]
    assert "the 3 methods differ by" in in_words(crossing)[1]
