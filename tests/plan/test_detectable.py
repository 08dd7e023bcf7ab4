"""What a plan says of the differences that its items can find, against simulated runs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import nct, t

from helpers import small_runs
from helpers.tiny_suite import go, plan_of, results_of
from mbench.plan import detectable as planned
from mbench.plan import random_masks
from mbench.plan.detectable import Sample, comparisons_of, least_difference
from mbench.plan.stored_spreads import Outcomes, Spread, seed_spread, stored_spreads
from mbench.report.statistics import answers, families, strata
from mbench.report.statistics.boards import boards
from mbench.report.statistics.inference import bounds
from mbench.report.statistics.pairwise import pairwise
from mbench.report.statistics.strata import Stratum
from mbench.storage.store import Store

TRIALS, TOGETHER = 3000, 50


def answers_of(rng, items, disagree, difference):
    """bool [items] twice: two methods of which the first is right more often by `difference`."""
    which = rng.random(items)
    first_only = which < (disagree + difference) / 2
    second_only = (which >= (disagree + difference) / 2) & (which < disagree)
    both = rng.random(items) < 0.5
    return first_only | both & ~second_only, second_only | both & ~first_only


@pytest.mark.parametrize(
    ("tasks", "comparisons"),
    [
        ([(400, 0.1)], 9),
        ([(2000, 0.2)], 45),
        ([(150, 0.3)], 1),
        ([(300, 0.08), (100, 0.3), (800, 0.15)], 36),
    ],
)
def test_the_reports_own_test_finds_the_stated_difference_in_80_percent_of_runs(tasks, comparisons):
    samples = [Sample(items, disagree, True) for items, disagree in tasks]
    difference = least_difference(samples, comparisons)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(TRIALS // TOGETHER):
        drawn = []
        for items, disagree in tasks:
            columns = [
                column
                for _ in range(TOGETHER)
                for column in answers_of(rng, items, max(disagree, difference), difference)
            ]
            drawn.append(Stratum(np.column_stack(columns).astype(float), np.ones(items)))
        compared = pairwise(drawn, [[column] for column in range(2 * TOGETHER)])
        low, _ = bounds(compared, families.LEVEL / comparisons)
        found += int((low[np.arange(0, 2 * TOGETHER, 2), np.arange(1, 2 * TOGETHER, 2)] > 0).sum())
    assert found / TRIALS == pytest.approx(0.8, abs=0.03)


def test_the_spread_of_random_masks_is_part_of_what_is_found_against_them():
    items, masks, chance, sigma, comparisons = 600, 6, 0.5, 0.02, 9
    rng = np.random.default_rng(1)

    def random_answers(count):
        rates = chance + sigma * rng.standard_normal(count)
        return rng.random((items, count)) < rates

    figures = rng.normal(chance, np.sqrt(sigma**2 + chance * (1 - chance) / items), 100_000)
    known = Spread(items, True, {"random": 0.5}, 0.5, dict(enumerate(figures)))
    spread = seed_spread([known], masks)
    assert spread.variance == pytest.approx(sigma**2 / masks, rel=0.05)
    # Of six masks, the spread is known with five degrees of freedom.
    of_six = type(spread)(spread.variance, spread.doubt * (len(figures) - 1) / (masks - 1))
    sample = Sample(items, known.against_random(masks), True)
    difference = least_difference([sample], comparisons, of_six)
    found = 0
    trials = 1500
    for _ in range(trials):
        method = rng.random((items, 1)) < chance + difference
        stratum = Stratum(np.hstack([method, random_answers(masks)]).astype(float), np.ones(items))
        compared = pairwise([stratum], [[0], list(range(1, masks + 1))])
        found += int(bounds(compared, families.LEVEL / comparisons)[0][0, 1] > 0)
    assert found / trials == pytest.approx(0.8, abs=0.06)


def test_a_difference_of_losses_has_the_power_of_a_t_test():
    found = least_difference([Sample(100, 4.0, False)], 1)
    # scipy has no power of a t test: by the noncentral distribution.
    needed = t.isf(0.025, 99)
    assert nct.sf(needed, 99, found / np.sqrt(4 / 100)) == pytest.approx(0.8, abs=0.003)


def test_nothing_is_said_of_too_few_items_or_of_no_comparisons():
    assert least_difference([Sample(planned.FEWEST_ITEMS - 1, 0.1, True)], 3) is None
    assert least_difference([Sample(planned.FEWEST_DOCUMENTS - 1, 0.1, False)], 3) is None
    assert least_difference([Sample(1000, 0.1, True)], 0) is None
    # Twelve items: not even twelve against none would be clear at such a level.
    assert least_difference([Sample(12, 0.1, True)], 10**12) is None


def test_a_plan_and_a_report_mean_the_same():
    assert planned.LEVEL == families.LEVEL
    assert (planned.FEWEST_ITEMS, planned.FEWEST_DOCUMENTS) == (strata.ENOUGH_ITEMS, strata.ENOUGH)
    asked = [answers.BEST, answers.HURT, answers.GAIN]
    assert list(planned.QUESTIONS.values()) == asked
    ranking = boards(small_runs.run(small_runs.grid(seeds=range(20)))).groups[0].boards[0].ranking
    sizes = {compared.family: compared.size for compared in ranking.comparisons.values()}
    assert comparisons_of(2, random=True) == sizes
    assert random_masks.ENOUGH == answers.MASKS_FOR_FIVE_PERCENT


def test_spreads_are_those_of_the_outcomes_in_the_store(tmp_path):
    store = Store(tmp_path / "store")
    planned_run = plan_of(tmp_path, store, set_values=["seeds=4"])
    (model,) = planned_run.models
    assert stored_spreads(planned_run, store, model) == {}
    outcome, _ = go(planned_run, store)
    results = results_of(planned_run, outcome)
    for retain in (0.25, 0.5):
        found = stored_spreads(planned_run, store, model)[retain]
        cells = {}
        for cell in results.cells:
            if cell.retain == retain:
                cells.setdefault(cell.mask, cell)
        random = [cell for cell in cells.values() if cell.method == "random"]
        methods = [cell for cell in cells.values() if cell.method != "random"]
        unpruned = results.cells[0]

        def disagree(one, other):
            first, second = (c.evaluations["cloze_bible"].items["acc"] for c in (one, other))
            return sum(a != b for a, b in zip(first, second, strict=True)) / len(first)

        quiz = found["cloze_bible"]
        assert quiz.right_or_wrong
        assert quiz.units == 6
        pairs = [disagree(one, unpruned) for one in methods]
        assert quiz.squares["unpruned"] == pytest.approx(np.mean(pairs))
        pairs = [disagree(one, other) for one, other in combinations(methods, 2)]
        assert quiz.squares["methods"] == pytest.approx(np.mean(pairs))
        columns = [cell.evaluations["cloze_bible"].items["acc"].to_numpy() for cell in random]
        mean = np.mean(columns, axis=0)
        squares = [
            ((cell.evaluations["cloze_bible"].items["acc"].to_numpy() - mean) ** 2).mean()
            for cell in methods
        ]
        assert quiz.against_random(len(random)) == pytest.approx(np.mean(squares))
        assert quiz.figures == {cell.seed: cell.value("cloze_bible", "acc") for cell in random}


def test_the_variance_of_losses_is_that_of_leaving_out_one_document_at_a_time():
    rng = np.random.default_rng(2)
    sizes = rng.integers(20, 200, 60).astype(float)
    names = tuple(map(str, range(60)))
    one, other = (Outcomes(names, sizes * rng.gamma(9, 0.3, 60), sizes) for _ in range(2))
    left = [np.delete(np.arange(60), document) for document in range(60)]
    jackknife = np.array(
        [(one.totals[at] - other.totals[at]).sum() / sizes[at].sum() for at in left]
    )
    variance = 59 / 60 * ((jackknife - jackknife.mean()) ** 2).sum()
    estimated = one.square(other, right_or_wrong=False) / one.effective
    assert estimated == pytest.approx(variance, rel=0.05)
