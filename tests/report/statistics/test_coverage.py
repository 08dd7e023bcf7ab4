"""5 % tests reject 5 %, and 95 % intervals cover: on simulations, and on whole real documents.

Rates are measured wherever a p-value is printed. Bounds: 6.5 % false positives and 94 % coverage,
with three standard errors of the measurement; on real text also no fewer than 2.5 %.
"""

import math

import numpy as np
import pytest

from helpers.real_losses import losses_of_documents
from mbench.report.statistics.families import compare_family
from mbench.report.statistics.inference import bounds, p_values
from mbench.report.statistics.pairwise import pairwise
from mbench.report.statistics.strata import Stratum, pairs

REPETITIONS = 1500


def rates(draw, repetitions=REPETITIONS):
    """(share of false positives, share of 95 % intervals that cover, share that is tested).

    `draw` gives strata of two methods (columns 0 and 1, or lists of columns) and their true
    difference.
    """
    rejected = covered = tested = 0
    for _ in range(repetitions):
        strata, columns, truth = draw()
        if any(stratum.too_few() for stratum in strata):
            continue
        found = pairwise(strata, columns).at([(0, 1)])
        low, high = (float(bound[0]) for bound in bounds(found, 0.05))
        tested += 1
        covered += low <= truth <= high
        if truth == 0:
            rejected += float(p_values(found)[0]) < 0.05
            # A test and its interval are one.
            assert (low > 0 or high < 0) == (float(p_values(found)[0]) < 0.05)
    return rejected / max(1, tested), covered / max(1, tested), tested / repetitions


def hold(rate, repetitions=REPETITIONS):
    """Whether false positives and coverage are within the bounds."""
    room = 3 * math.sqrt(0.05 * 0.95 / repetitions)
    rejected, covered, tested = rate
    assert tested > 0
    assert covered >= 0.94 - room, rate
    assert rejected <= 0.065 + room, rate


def normal(random, count):
    return random.standard_normal(count), np.ones(count)


def long_tails(random, count):
    return random.standard_t(3, count), np.ones(count)


def one_sided(random, count):
    """Lognormal with mean zero, for which sign flips reject 9 to 17 %."""
    return random.lognormal(0, 1, count) - math.exp(0.5), np.ones(count)


def exponential(random, count):
    return random.exponential(1, count) - 1, np.ones(count)


def documents(random, count):
    """Lengths of web pages; a loss per document with long tails and one per token."""
    tokens = np.ceil(random.lognormal(0, 1, count) * 300)
    of_documents = tokens * random.standard_t(4, count) * 0.15
    return of_documents + np.sqrt(tokens) * random.standard_normal(count), tokens


@pytest.mark.parametrize(
    ("law", "count"),
    [
        *((law, n) for law in (normal, long_tails, one_sided, exponential) for n in (30, 60, 200)),
        *((documents, n) for n in (90, 200, 600)),
    ],
)
@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_losses_by_simulation(law, count, effect):
    random = np.random.default_rng(list(f"{law.__name__}{count}".encode()))

    def draw():
        differences, sizes = law(random, count)
        shared = random.normal(3.0, 0.5, count) * sizes
        totals = np.column_stack([shared + differences + effect * sizes, shared])
        return [Stratum(totals, sizes, "documents")], [[0], [1]], effect

    hold(rates(draw))


@pytest.mark.parametrize("items", [[30], [200], [400, 100, 50]])
@pytest.mark.parametrize("disagreeing", [0.04, 0.2])
@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_right_and_wrong_by_simulation(items, disagreeing, gain):
    random = np.random.default_rng(len(items))

    def draw():
        strata = []
        for count in items:
            shared = random.random(count) < 0.6
            differ = random.random(count) < disagreeing
            first_wins = random.random(count) < 0.5 + gain / 2
            first = np.where(differ, first_wins, shared)
            second = np.where(differ, ~first_wins, shared)
            strata.append(Stratum(np.column_stack([first, second]).astype(float), np.ones(count)))
        return strata, [[0], [1]], gain * disagreeing

    hold(rates(draw))


@pytest.mark.parametrize("seeds", [3, 6, 20])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
def test_random_masks_by_simulation(seeds, spread):
    """A method that is as good as the mean of all random masks, of which a few were drawn."""
    random = np.random.default_rng(seeds)

    def draw():
        figures = np.clip([0.6, *(0.6 + spread * random.standard_normal(seeds))], 0.05, 0.95)
        difficulty = random.random((400, 1))
        noise = 0.3 * (random.random((400, seeds + 1)) - 0.5)
        outcomes = (np.clip(difficulty + noise, 0, 1) < figures).astype(float)
        return [Stratum(outcomes, np.ones(400))], [[0], list(range(1, seeds + 1))], 0.0

    rejected, _, _ = rates(draw)
    assert rejected <= 0.065 + 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)


@pytest.mark.parametrize("equal", [0, 3, 5, 9])
def test_a_family_holds_at_once(equal):
    """Of nine methods some are equal and the others far apart: all intervals cover together, no
    equal pair is told apart, and whiskers say what the words say."""
    random = np.random.default_rng(equal)
    gains = np.r_[np.zeros(equal), 0.25 * np.arange(1, 10 - equal)]
    covered = wrong = 0
    repetitions = 400
    for _ in range(repetitions):
        sizes = np.ceil(random.lognormal(0, 0.5, 80) * 100)
        own = random.standard_t(5, (80, 9)) * sizes[:, None] * 0.3
        stratum = Stratum(own + gains * sizes[:, None], sizes, "documents")
        family = compare_family(
            "methods", pairwise([stratum], [[n] for n in range(9)]), list(pairs(9))
        )
        truths = {(a, b): gains[a] - gains[b] for a, b in family}
        covered += all(c.low <= truths[pair] <= c.high for pair, c in family.items())
        wrong += any(c.clear for pair, c in family.items() if truths[pair] == 0)
        assert all(c.clear == (c.low > 0 or c.high < 0) for c in family.values())
    room = 3 * math.sqrt(0.05 * 0.95 / repetitions)
    assert covered / repetitions >= 0.94 - room
    assert wrong / repetitions <= 0.05 + room


@pytest.mark.parametrize(("text", "counts"), [("c4", [60, 120, 300]), ("wikitext", [45, 62])])
def test_whole_real_documents(text, counts):
    """Documents of a real text are drawn with replacement, under masks whose difference over the
    whole text is set to zero; single windows reject up to 47 % here."""
    losses, tokens = losses_of_documents(text)
    random = np.random.default_rng(0)
    found = []
    for first, second in pairs(losses.shape[1]):
        difference = losses[:, first] - losses[:, second]
        centred = losses[:, [first, second]].copy()
        centred[:, 0] -= tokens * difference.sum() / tokens.sum()
        for count in counts:

            def draw(count=count, centred=centred):
                drawn = random.integers(len(tokens), size=count)
                return [Stratum(centred[drawn], tokens[drawn], "documents")], [[0], [1]], 0.0

            found.append(rates(draw, 600))
    tested = np.array([rate[2] for rate in found])
    assert tested.max() > 0.9
    for place, bound in ((0, 0.065), (1, None)):
        mean = np.average([rate[place] for rate in found], weights=tested)
        if bound is None:
            assert mean >= 0.94 - 0.005
        else:
            assert 0.025 <= mean <= bound + 0.005


def test_too_few_documents_are_not_tested():
    even = np.ones(29)
    assert Stratum(np.zeros((29, 2)), even, "documents").too_few() == (
        "too few documents to tell: 29"
    )
    assert not Stratum(np.zeros((30, 2)), np.ones(30), "documents").too_few()
    # One that dominates: it has half of all tokens.
    long = np.r_[99.0, np.ones(99)]
    text = Stratum(np.zeros((100, 2)), long, "documents").too_few()
    assert text == "too few documents to tell: 100, which count as 4: the largest has 50 % of it"
