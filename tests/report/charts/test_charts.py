"""Charts read back: the figures drawn are those of the results."""

import dataclasses
import itertools

import numpy as np
import pytest

from helpers.drawn import Drawn
from helpers.synthetic import PAPER_METHODS, PAPER_MODELS, paper_sized
from mbench.core.savings import Footprint, Saving, Spread
from mbench.report.charts.corpus_overlap import corpus_overlap_by_layer
from mbench.report.charts.score_by_memory import score_by_memory
from mbench.report.charts.single_seeds import single_seeds
from mbench.report.statistics.boards import boards
from mbench.report.statistics.corpus_choices import corpus_choices

RETAINS = (0.75, 0.5, 0.25)
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
    shown = Drawn(score_by_memory(group)).by_method("point")
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
    # The line is drawn from the left: few experts are small.
    means = [np.mean(averages(results, "random", retain)) for retain in sorted(RETAINS)]
    assert [drawn.value("y", y) for y in mean.y] == pytest.approx(means, abs=1e-4)


def test_measured_memory_goes_before_counted_and_preserved_gates_save_none(results):
    def footprint(peak):
        return Footprint(1, 1, 1, peak, Spread(1, 1, 1), Spread(1, 1, 1))

    peaks = {0.75: 24 * 10**9, 0.5: 17 * 10**9, 0.25: 11 * 10**9}
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
    drawn = Drawn(score_by_memory(group))
    shown = r"a\x00\u202e\uffff</title><b>&"
    assert shown in drawn.by_method("point")
