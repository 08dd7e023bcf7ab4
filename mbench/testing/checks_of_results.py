"""Checks of scores and masks: what a method decides, and what it must not depend on."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask, MaskBuilder
from mbench.core.stand_ins import Constants, Merged, StandIn
from mbench.testing.cases import SIZES, Case, ladder, settings
from mbench.testing.failures import Broken, Found, Refused, Skipped
from mbench.testing.making import Made, make
from mbench.testing.profiling import profile_of
from mbench.testing.reading import Reading, refuse_writing
from mbench.testing.subject import Subject, statistics_of
from mbench.testing.trying import close, refuse_difference, some, through, tied, two_rows

REPEATED = 4096
"""Times the text, so that it is as long as real ones."""

TIED_CASES = 1 / 3
"""Of all cases may have ties that only the method knows of."""


def result(subject: Subject) -> None:
    """Scores, selection and mask are of the form that they promise, whatever the router."""
    try:
        through(some(16, settings(ladder())), lambda case: make(subject, case))
    except Skipped as skipped:
        raise Found("result", str(skipped)) from skipped


def budget(subject: Subject) -> None:
    """Exactly K experts per layer; with `layers = "any"` K on average, and none below the least."""
    cases = list(ladder())
    builder = subject.parts()["builder"]
    if isinstance(builder, MaskBuilder) and builder.layers == "any":
        least = [replace(case, fewest=min(2, case.kept)) for case in cases]
        evenly = [case for case in cases if case.kept % 2 == 0]
        cases += [*least, *(replace(case, groups=2, fewest=2) for case in evenly)]
    through(cases, lambda case: make(subject, case))


def all_experts(subject: Subject) -> None:
    """Where K is N, every expert is kept."""
    through((Case(size, size.experts, corpora=2) for size in SIZES), lambda c: make(subject, c))


def one_expert(subject: Subject) -> None:
    """Where K is 1, fewer than a token chooses, one is kept."""
    through((Case(size, 1, corpora=2) for size in SIZES), lambda case: make(subject, case))


def never_selected(subject: Subject) -> None:
    """Experts that no token chose, half of all, spoil nothing."""
    cases = [Case(size, max(1, size.experts // 2), kind="unused", corpora=2) for size in SIZES]
    through(cases, lambda case: make(subject, case))


def ties(subject: Subject) -> None:
    """Where experts have equal scores, exactly K are kept all the same, always the same ones."""
    if subject.method.scorer is None:
        raise Skipped("it has no scorer")

    def tried(case: Case) -> None:
        shape = (case.size.layers, case.size.experts)
        for levels in (1, 2):
            given = np.random.default_rng(case.seed).integers(0, levels, shape).astype(np.float64)
            every = [given] * max(1, subject.corpora(case.corpora))
            first, second = (make(subject, case, given=every) for _ in range(2))
            refuse_difference("ties", "two runs on equal scores", first, second)

    through(some(6, ladder()), tried)


def names(subject: Subject) -> None:
    """What the model and the corpora are called changes nothing."""

    def tried(case: Case) -> None:
        first, second = make(subject, case), make(subject, replace(case, renamed=True))
        scores = dict(zip(second.scores, first.scores.values(), strict=True))
        what = "with the same model and text under other names"
        refuse_difference("names", what, replace(first, scores=scores), second)

    through(some(4, ladder()), tried)


def long_text(subject: Subject) -> None:
    """On a text thousands of times as long, scores are still finite, and the mask right."""
    cases = (replace(case, repeated=REPEATED) for case in some(4, ladder()))
    through(cases, lambda case: make(subject, case))


def corpora(subject: Subject) -> None:
    """Of several corpora, the scores on each may decide."""
    if subject.method.corpora is not None or subject.method.scorer is None:
        raise Skipped("it does not combine scores of several corpora")
    last = [replace(case, corpora=3) for case in ladder(SIZES[-2:])]
    decided = [False] * 3

    def tried(case: Case) -> None:
        draw = np.random.default_rng(case.seed).random
        shape = (3, case.size.layers, case.size.experts)
        given = list(draw(shape))
        first = make(subject, case, given=given)
        for number in range(3):
            for others in draw((3, *shape[1:])):
                changed = [*given[:number], others, *given[number + 1 :]]
                second = make(subject, case, given=changed)
                same = np.array_equal(first.mask.keep, second.mask.keep)
                decided[number] = decided[number] or not same

    through(last, tried)
    # Two that decide before a last one may have filled what there is to choose.
    if any(decided) and not all(decided[:2]):
        number = decided.index(False)
        problem = f"whatever the scores on corpus {number + 1} of 3 are, it keeps the same experts"
        raise Found("corpora", problem, last[-1])


def deterministic(subject: Subject) -> None:
    """Twice the same gives the same, whatever was asked in between and of which instance."""

    def tried(case: Case) -> None:
        parts = subject.parts()
        first = make(subject, case, parts=parts)
        for kept in {1, case.size.experts - 1} - {case.kept}:
            with contextlib.suppress(Broken, Refused):
                make(subject, replace(case, kept=kept, seed=case.seed + 1), parts=parts)
        again = make(subject, case, parts=parts)
        refuse_difference("deterministic", "asked again, after other budgets", first, again)
        fresh = make(subject, case, parts=subject.parts())
        refuse_difference("deterministic", "asked of a new instance", first, fresh)

    through(some(5, ladder()), tried)


def pure(subject: Subject) -> None:
    """What a component is given stays as it was, and nothing is kept on the component."""
    cases = some(5, ladder())
    through(cases, lambda case: make(subject, case))
    measuring = [each for each in statistics_of(subject.parts()) if each.measures()]

    def tried(case: Case) -> None:
        for each in measuring:
            reading = Reading(each)
            with contextlib.suppress(Refused):
                profile_of(case.model, (reading,), "one", case, again=True)
            refuse_writing(reading)

    if measuring:
        through(cases[:2], tried)


def global_state(subject: Subject) -> None:
    """Nothing is drawn from, or set for, the whole process: random states, threads, dtypes."""
    through(some(5, ladder()), lambda case: make(subject, case))


def equivariant(subject: Subject) -> None:
    """With other numbers scores are the same, and mostly the same experts kept: up to ties."""
    if subject.stochastic():
        raise Skipped("it draws at random")
    cases = [*some(5, ladder()), *some(4, ladder(SIZES[-2:], seeds=3))]
    differing: list[Found] = []

    def tried(case: Case) -> None:
        order = case.order()
        first = make(subject, case)
        second = make(subject, case, model=case.model.renumbered(order))
        _refuse_other_scores(first, second, order)
        expected = np.take_along_axis(first.mask.keep, order, axis=1)
        if np.array_equal(expected, second.mask.keep):
            _refuse_other_stand_in(first, second, order)
        elif not (tied(first, second) or _merged_alike(first, second, order)):
            rows = two_rows(expected, second.mask.keep)
            problem = f"experts renumbered, {rows} (in their new numbers)"
            differing.append(Found("equivariant", problem, case))

    through(cases, tried)
    # Ties in what a method makes of scores, such as ranks, cannot be seen from outside.
    if len(differing) > len(cases) * TIED_CASES:
        raise differing[0]


def _refuse_other_scores(first: Made, second: Made, order: np.ndarray) -> None:
    for corpus, values in first.scores.items():
        expected = np.take_along_axis(values, order, axis=1)
        found = second.scores[corpus]
        if not close(expected, found):
            layer, expert = np.unravel_index(np.abs(expected - found).argmax(), found.shape)
            pair = f"{expected[layer, expert]:g} before and {found[layer, expert]:g} after"
            problem = f"experts renumbered, one of layer {layer} scores {pair}"
            raise Broken("equivariant", problem)


def _merged_alike(first: Made, second: Made, order: np.ndarray) -> bool:
    """Whether the same experts are merged by the same weights, whichever of them is said to stay.

    Where a router keeps all its rows, that is the same model.
    """
    one, two = first.mask.stand_in, second.mask.stand_in
    if not (isinstance(one, Merged) and isinstance(two, Merged)) or one.router != two.router:
        return False
    if two.router == "sliced" and not np.array_equal(
        np.take_along_axis(first.mask.keep, order, axis=1), second.mask.keep
    ):
        return False
    into = np.take_along_axis(one.into, order, axis=1)
    together = [each[:, :, None] == each[:, None, :] for each in (into, two.into)]
    weights = np.take_along_axis(one.weights, order, axis=1)
    return np.array_equal(*together) and close(weights, two.weights)


def _refuse_other_stand_in(first: Made, second: Made, order: np.ndarray) -> None:
    """The stand-ins of two masks that keep the same experts under other numbers."""
    one, two = first.mask.stand_in, second.mask.stand_in
    same = type(one) is type(two)
    if isinstance(one, Constants) and isinstance(two, Constants):
        same = close(np.take_along_axis(one.outputs, order[:, :, None], axis=1), two.outputs)
    if isinstance(one, Merged) and isinstance(two, Merged):
        same = _merged_alike(first, second, order)
    if not same:
        where = _other_merging(one, two, order)
        raise Broken(
            "equivariant", f"experts renumbered, what stands in for dropped ones differs{where}"
        )


def _other_merging(one: StandIn | None, two: StandIn | None, order: np.ndarray) -> str:
    """The first expert that another one takes up under other numbers; empty if there is none."""
    if not (isinstance(one, Merged) and isinstance(two, Merged)):
        return ""
    taken = np.take_along_axis(one.into, order, axis=1)
    # Back into the numbers of the first mask, which -1 is not.
    back = np.take_along_axis(order, np.maximum(two.into, 0), axis=1)
    back = np.where(two.into < 0, -1, back)
    if np.array_equal(taken, back):
        return ""
    layer, at = np.argwhere(taken != back)[0]
    into = ["none" if each < 0 else str(each) for each in (taken[layer, at], back[layer, at])]
    return (
        f": expert {order[layer, at]} of layer {layer} is taken up by {into[0]} before and by"
        f" {into[1]} after (in its first numbers); equals may not be told apart by number"
    )


def stand_ins(subject: Subject) -> None:
    """What stands in for dropped experts can be: shapes, kept experts untouched, groups closed."""
    seen = []

    def tried(case: Case) -> None:
        mask = make(subject, case).mask
        seen.append(mask.stand_in)
        if mask.stand_in is not None:
            _refuse_unusable(case, mask)

    through(some(8, settings(ladder())), tried)
    if not any(seen):
        raise Skipped("nothing stands in for the experts that it drops")


def _refuse_unusable(case: Case, mask: ExpertMask) -> None:
    """Raise `Broken` where a model cannot run under a mask, or gives what is not finite."""
    try:
        outputs = case.model.outputs("one", mask, case.router)
    except UnsupportedModel as error:
        raise Refused(str(error)) from error
    if not all(np.isfinite(each).all() for each in outputs):
        raise Broken("stand-ins", "with what stands in, the model's outputs are not finite")
