"""Charts read back: the figures drawn are those of the results."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from helpers.drawn import Drawn
from helpers.synthetic import PAPER_METHODS, PAPER_MODELS, paper_sized
from mbench.core.results import Footprint, Saving, Spread
from mbench.report.charts.corpus_overlap import corpus_overlap_by_layer
from mbench.report.charts.gap_to_random import gap_to_random
from mbench.report.charts.score_by_budget import perplexity_by_budget, score_by_budget
from mbench.report.charts.score_by_memory import score_by_memory
from mbench.report.charts.single_seeds import single_seeds
from mbench.report.statistics.boards import boards
from mbench.report.statistics.corpus_choices import corpus_choices

RETAINS = (0.25, 0.5, 0.75)
PERPLEXITIES = ("ppl-wikitext2", "ppl-c4")


@pytest.fixture(scope="module")
def results():
    whole = paper_sized(items=25)
    return dataclasses.replace(whole, cells=tuple(c for c in whole.cells if c.model == "qwen"))


@pytest.fixture(scope="module")
def group(results):
    return boards(results).groups[0]


def cells_of(results, method, retain):
    return [c for c in results.cells if (c.method, c.retain) == (method, retain)]


def averages(results, method, retain):
    return [results.average_of(cell).value for cell in cells_of(results, method, retain)]


def column(drawn, mark):
    """The budget whose label is nearest."""
    distance, text = min((abs(np.mean(mark.x) - at), text) for at, text in drawn.labels("x"))
    assert distance < 60
    return float(text.removesuffix("\N{NO-BREAK SPACE}%")) / 100


def inside(drawn):
    for marks in drawn.layers.values():
        for x, y in itertools.chain.from_iterable(mark.points for mark in marks):
            assert 0 <= x <= drawn.width
            assert 0 <= y <= drawn.height


def test_scores_against_budgets(results, group):
    drawn = Drawn(score_by_budget(group))
    inside(drawn)
    step = abs(drawn.value("y", 1) - drawn.value("y", 0)) / 50  # coordinates have two decimals
    points, whiskers = drawn.by_method("point"), drawn.by_method("whisker")
    assert set(points) == set(whiskers) == set(PAPER_METHODS) - {"random"}
    for method in points:
        assert [column(drawn, mark) for mark in points[method]] == list(RETAINS)
        for retain, point, whisker in zip(RETAINS, points[method], whiskers[method], strict=True):
            (cell,) = cells_of(results, method, retain)
            figure = results.average_of(cell)
            error = 1.96 * figure.stderr
            assert drawn.value("y", point.y[0]) == pytest.approx(figure.value, abs=step)
            said = f"{method}, {100 * retain:g}\xa0% kept: {figure.value:.3f} ("
            assert point.title.startswith(said)
            ends = sorted(drawn.value("y", y) for y in whisker.y)
            assert ends == pytest.approx([figure.value - error, figure.value + error], abs=step)
            assert whisker.x == [point.x[0]] * 2
    # Marks of one budget stand abreast in the order of the suite, and apart.
    places = [[points[m][n].x[0] for m in PAPER_METHODS if m in points] for n in range(3)]
    assert np.diff(places, axis=1).min() > 5
    assert len({mark.look for marks in points.values() for mark in marks}) == len(points)
    for retain, band, mean in zip(RETAINS, drawn.layers["band"], drawn.layers["mean"], strict=True):
        seeds = averages(results, "random", retain)
        ends = [drawn.value("y", y) for y in (max(band.y), min(band.y))]
        assert ends == pytest.approx([min(seeds), max(seeds)], abs=step)
        assert drawn.value("y", mean.y[0]) == pytest.approx(np.mean(seeds), abs=step)
        assert column(drawn, band) == column(drawn, mean) == retain
    (full,) = averages(results, "none", 1.0)
    assert drawn.value("y", drawn.layers["level"][0].y[0]) == pytest.approx(full, abs=step)
    assert drawn.layers["label"][0].title == f"unpruned {full:.3f}"


def test_a_figure_that_is_not_finite_is_not_drawn(results):
    def broken(cell):
        if (cell.method, cell.retain) != ("max", 0.5):
            return cell
        task = cell.evaluations["ppl-c4"]
        metrics = tuple(dataclasses.replace(m, value=math.inf) for m in task.metrics)
        task = dataclasses.replace(task, metrics=metrics)
        return dataclasses.replace(cell, evaluations={**cell.evaluations, "ppl-c4": task})

    other = dataclasses.replace(results, cells=tuple(map(broken, results.cells)))
    drawn = Drawn(perplexity_by_budget(boards(other).groups[0]))
    inside(drawn)
    points = drawn.by_method("point")
    assert [column(drawn, mark) for mark in points["max"]] == [0.25, 0.75]
    (cell,) = cells_of(results, "mean", 0.5)
    nats = [
        next(m.value for m in cell.evaluations[task].metrics if m.name == "mean_nll")
        for task in PERPLEXITIES
    ]
    assert drawn.value("y", points["mean"][1].y[0]) == pytest.approx(np.mean(nats), abs=1e-3)


def test_forest_draws_the_differences_to_the_random_mean(results, group):
    drawn = Drawn(gap_to_random(group.boards[2]))
    inside(drawn)
    seeds = np.array(averages(results, "random", 0.75))
    points, whiskers = drawn.by_method("point"), drawn.by_method("whisker")
    assert set(points) == set(whiskers) == set(PAPER_METHODS) - {"random"}
    heights = []
    for method, (mark,) in points.items():
        (value,) = averages(results, method, 0.75)
        assert drawn.value("x", mark.x[0]) == pytest.approx(value - seeds.mean(), abs=1e-4)
        (whisker,) = whiskers[method]
        assert min(whisker.x) < mark.x[0] < max(whisker.x)
        assert whisker.y == [mark.y[0]] * 2
        # Filled where significant, in one colour either way.
        fill, stroke, _ = mark.look
        assert fill == ("var(--back)" if "not significantly" in mark.title else stroke)
        heights.append((mark.y[0], value))
    assert np.diff([value for _, value in sorted(heights)]).max() < 1e-9  # the best is on top
    names = {mark.method: mark for mark in drawn.layers["name"]}
    assert all(abs(names[m].y[0] - mark.y[0]) < 6 for m, (mark,) in points.items())
    (band,), (zero,) = drawn.layers["band"], drawn.layers["level"]
    ends = [drawn.value("x", x) for x in (min(band.x), max(band.x))]
    assert ends == pytest.approx([min(seeds) - seeds.mean(), max(seeds) - seeds.mean()], abs=1e-4)
    assert drawn.value("x", zero.x[0]) == pytest.approx(0, abs=1e-4)


def test_every_seed_is_drawn_beside_the_best_method_without(results, group):
    drawn = Drawn(single_seeds(group))
    inside(drawn)
    random = drawn.by_method("point").pop("random")
    others = [mark for mark in drawn.layers["point"] if mark.method != "random"]
    for number, retain in enumerate(RETAINS):
        seeds = averages(results, "random", retain)
        own = random[6 * number : 6 * number + 6]
        assert [drawn.value("y", m.y[0]) for m in own] == pytest.approx(seeds, abs=1e-4)
        assert np.diff([m.x[0] for m in own]).min() > 5
        best = max(a for m in PAPER_METHODS if m != "random" for a in averages(results, m, retain))
        assert drawn.value("y", others[number].y[0]) == pytest.approx(best, abs=1e-4)
        assert best in averages(results, others[number].method, retain)
        band = drawn.layers["band"][number]
        ends = [drawn.value("y", y) for y in (max(band.y), min(band.y))]
        spread = np.std(seeds, ddof=1)
        assert ends == pytest.approx([np.mean(seeds) - spread, np.mean(seeds) + spread], abs=1e-4)
        assert min(band.x) < own[0].x[0]
        assert own[-1].x[0] < max(band.x)
    # A method looks alike in every chart.
    shown = Drawn(score_by_budget(group)).by_method("point")
    assert all(mark.look == shown[mark.method][0].look for mark in others)


def test_scores_against_the_memory_of_the_weights(results, group):
    drawn = Drawn(score_by_memory(group))
    inside(drawn)
    layers, count, _ = PAPER_MODELS["qwen"]
    sizes = [2 * (14_315_784_192 - layers * int(count * (1 - r)) * 8_650_752) for r in RETAINS]
    points = drawn.by_method("point")
    assert set(points) == set(PAPER_METHODS) - {"random"}
    for method, marks in points.items():
        values = [averages(results, method, retain)[0] for retain in RETAINS]
        assert [drawn.value("x", m.x[0]) for m in marks] == pytest.approx(sizes, rel=1e-3)
        assert [drawn.value("y", m.y[0]) for m in marks] == pytest.approx(values, abs=1e-4)
    (full,) = drawn.layers["full"]
    assert drawn.value("x", full.x[0]) == pytest.approx(2 * 14_315_784_192, rel=1e-3)
    (mean,) = drawn.layers["mean"]
    means = [np.mean(averages(results, "random", retain)) for retain in RETAINS]
    assert [drawn.value("y", y) for y in mean.y] == pytest.approx(means, abs=1e-4)


def test_measured_memory_goes_before_counted_and_preserved_gates_save_none(results):
    def footprint(peak):
        return Footprint(1, 1, 1, peak, Spread(1, 1, 1), Spread(1, 1, 1))

    peaks = {0.25: 11 * 10**9, 0.5: 17 * 10**9, 0.75: 24 * 10**9}
    savings = tuple(
        Saving("qwen", r, 1, "a GPU", "ok", "", "", footprint(31 * 10**9), footprint(peaks[r]))
        for r in RETAINS
    )
    cells = tuple(
        dataclasses.replace(cell, router="preserved") if cell.method == "max" else cell
        for cell in results.cells
    )
    other = dataclasses.replace(results, cells=cells, efficiency=savings)
    drawn = Drawn(score_by_memory(boards(other).groups[0]))
    points = drawn.by_method("point")
    assert set(points) == set(PAPER_METHODS) - {"random", "max"}
    at = [drawn.value("x", mark.x[0]) for mark in points["mean"]]
    assert at == pytest.approx(list(peaks.values()), rel=1e-3)
    assert drawn.value("x", drawn.layers["full"][0].x[0]) == pytest.approx(31e9, rel=1e-3)


def test_overlap_by_layer(results, group):
    frequency = corpus_choices(group)[1]  # on two texts
    drawn = Drawn(corpus_overlap_by_layer(frequency)[1])  # half of the experts
    inside(drawn)
    kept = [
        results.masks["qwen", cells_of(results, f"frequency-{corpus}", 0.5)[0].mask]
        for corpus in ("c4", "wikitext2")
    ]
    shares = []
    for one, other in zip(*kept, strict=True):
        one, other = set(np.flatnonzero(one)), set(np.flatnonzero(other))
        shares.append(len(one & other) / len(one | other))
    (marks,) = drawn.by_method("point").values()
    assert [drawn.value("y", mark.y[0]) for mark in marks] == pytest.approx(shares, abs=1e-4)
    layers = [drawn.value("x", mark.x[0]) for mark in marks]
    assert layers == pytest.approx(range(1, 25), abs=0.01)


def test_names_with_control_characters_are_drawn(results):
    name = "a\x00\N{RIGHT-TO-LEFT OVERRIDE}\uffff</title><b>&"
    cells = tuple(
        dataclasses.replace(cell, method=name) if cell.method == "max" else cell
        for cell in results.cells
    )
    group = boards(dataclasses.replace(results, cells=cells)).groups[0]
    drawn = Drawn(gap_to_random(group.boards[0]))
    shown = r"a\x00\u202e\uffff</title><b>&"
    assert shown in drawn.by_method("point")
    assert shown[:15] in [mark.title[:15] for mark in drawn.layers["name"]]
