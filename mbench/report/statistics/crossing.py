"""Methods crossed with calibration texts: what the choice of either changes.

With scores y[i, j] of method i on text j, the spread between methods is the root of the mean, over
texts, of the variance between methods on that text; that between texts likewise. Both squares are
quadratic forms y'Ay. Items draw every score away from what more items would show, which makes
spreads too large: with V, the covariance of the scores over items, the expected square is y'Ay plus
trace(AV), which is therefore taken off, and its variance is 4 y'AVAy + 2 trace(AVAV), both for
scores that are normal about their own means. Which of the two is larger is told by the interval of
the difference of the squares, not by two intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mbench.core.provenance import MethodSettings
from mbench.plan.crossing import method_of
from mbench.report.statistics.boards import Board, GroupBoards
from mbench.report.statistics.corpus_choices import families
from mbench.report.statistics.groups import Entry
from mbench.report.statistics.pairing import join, pair
from mbench.report.statistics.strata import Stratum, columns_of

QUANTILE = 1.959964
"""Of the normal distribution, for intervals of 95 %."""


@dataclass(frozen=True)
class Spread:
    """How far scores lie apart, as standard deviations."""

    measured: float
    by_items: float
    """What items alone would make it, were there nothing else."""
    value: float
    """The measured one less that, as squares; 0 where nothing is left."""
    low: float
    high: float
    """Of a 95 % interval for `value`."""


@dataclass(frozen=True)
class Effects:
    """The two spreads of a full table of scores."""

    methods: Spread
    """Between methods on the same text."""
    texts: Spread
    """Between texts with the same method."""
    larger: str
    """`methods` or `texts`, where the interval of their difference excludes zero; else empty."""


@dataclass(frozen=True)
class Crossing:
    """Methods by texts at one budget."""

    board: Board
    methods: tuple[str, ...]
    texts: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    """(method, text) -> the cells, where the run has any."""
    scores: np.ndarray
    """float64 [methods, texts]; NaN where there is none."""
    effects: Effects | None
    """None where a score is missing, or there are too few items to tell."""
    untold: str
    """Why there are no effects; empty if there are."""


def crossings(boards: GroupBoards) -> tuple[Crossing, ...]:
    """A table for each budget, of the methods that were run on the same two or more texts."""
    names = crossed(boards.results.provenance.methods.get(boards.group.model, {}))
    if not names or boards.score is None:
        return ()
    return tuple(_crossing(board, names) for board in boards.boards)


def crossed(methods: Mapping[str, MethodSettings]) -> dict[str, dict[str, str]]:
    """Method -> text -> its name in the results, for methods that differ only in their text.

    Those of a cross where there are some, else any; each on the same texts. Empty unless there are
    two methods and two texts.
    """
    found = {_shared_name(family): family for family in families(methods)}
    of_cross = {
        name: family
        for name, family in found.items()
        if any(each != method_of(each) for each in family.values())
    }
    chosen = of_cross if len(of_cross) > 1 else found
    first = next(iter(chosen.values()), {})
    texts = [text for text in first if all(text in family for family in chosen.values())]
    if len(chosen) < 2 or len(texts) < 2:
        return {}
    return {name: {text: family[text] for text in texts} for name, family in chosen.items()}


def _shared_name(family: Mapping[str, str]) -> str:
    """What its names have in common, without the text: of `reap-c4` and `reap-wiki`, `reap`."""
    stems = {name.removesuffix(text).rstrip("@-_.") for text, name in family.items()}
    return stems.pop() if len(stems) == 1 and "" not in stems else next(iter(family.values()))


def _crossing(board: Board, names: Mapping[str, Mapping[str, str]]) -> Crossing:
    assert board.score is not None
    by_name = {entry.method: entry for entry in board.budget.entries}
    texts = tuple(next(iter(names.values())))
    entries = {
        (method, text): by_name[name]
        for method, own in names.items()
        for text, name in own.items()
        if name in by_name
    }
    scores = np.full((len(names), len(texts)), np.nan)
    for row, method in enumerate(names):
        for column, text in enumerate(texts):
            entry = entries.get((method, text))
            summary = None if entry is None else entry.summary(board.score.value)
            scores[row, column] = math.nan if summary is None else summary.mean
    effects, untold = _effects(board, entries, scores)
    return Crossing(board, tuple(names), texts, entries, scores, effects, untold)


def _effects(
    board: Board, entries: Mapping[tuple[str, str], Entry], scores: np.ndarray
) -> tuple[Effects | None, str]:
    assert board.score is not None
    if not np.isfinite(scores).all():
        return None, "a score is missing"
    cells = {cell.key: cell for entry in entries.values() for cell in entry.cells}
    paired = join([pair(cells, [part]) for part in board.score.parts])
    columns = [paired.columns_of(cell.key for cell in entry.cells) for entry in entries.values()]
    whole = [own for own in columns if own is not None]
    if len(whole) < len(columns):
        return None, next(iter(paired.problems.values()), "not all are on the same items")
    few = next(filter(None, (stratum.too_few() for stratum in paired.strata)), "")
    if few:
        return None, few
    return effects(scores, covariance(paired.strata, whole)), ""


def covariance(strata: Sequence[Stratum], columns: Sequence[Sequence[int]]) -> np.ndarray:
    """[n, n] covariance of n methods' scores over items, and over seeds where there are several.

    Args:
        strata: the tasks of the score, of which it is the mean.
        columns: each method's masks.
    """
    found = np.zeros((len(columns), len(columns)))
    for stratum in strata:
        outcomes, share = columns_of(stratum, columns), stratum.sizes / stratum.sizes.sum()
        figures = outcomes.sum(axis=0) / stratum.sizes.sum()
        residuals = outcomes - stratum.sizes[:, None] * figures
        residuals /= (stratum.sizes.sum() * (1 - share))[:, None]  # the jackknife's
        found += (stratum.units - 1) / stratum.units * residuals.T @ residuals
    found /= len(strata) ** 2
    for place, own in enumerate(columns):
        if len(own) > 1:
            figures = np.mean([stratum.figures[list(own)] for stratum in strata], axis=0)
            found[place, place] += figures.var(ddof=1) / len(own)
    return found


def effects(scores: np.ndarray, covariance: np.ndarray) -> Effects:
    """The spreads of scores [methods, texts] whose covariance [methods * texts, same] is known."""
    rows, columns = scores.shape

    def centring(count: int) -> np.ndarray:
        centred: np.ndarray = (np.eye(count) - 1 / count) / (count - 1)
        return centred

    between_methods = np.kron(centring(rows), np.eye(columns)) / columns
    between_texts = np.kron(np.eye(rows), centring(columns)) / rows
    flat = scores.ravel()
    difference, error = _square(between_methods - between_texts, flat, covariance)
    clear = abs(difference) > QUANTILE * error
    larger = ("methods" if difference > 0 else "texts") if clear else ""
    return Effects(
        _spread(between_methods, flat, covariance), _spread(between_texts, flat, covariance), larger
    )


def _spread(form: np.ndarray, flat: np.ndarray, covariance: np.ndarray) -> Spread:
    square, error = _square(form, flat, covariance)
    by_items = float(np.trace(form @ covariance))
    bounds = (square - QUANTILE * error, square, square + QUANTILE * error)
    low, value, high = (math.sqrt(max(0.0, each)) for each in bounds)
    return Spread(math.sqrt(square + by_items), math.sqrt(by_items), value, low, high)


def _square(form: np.ndarray, flat: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """A quadratic form of the scores without what items add to it, and its standard error."""
    moved = form @ covariance
    noise = 2 * float(np.trace(moved @ moved))
    # y'AVAy is itself too large, by trace(AVAV).
    along = 4 * float(flat @ form @ covariance @ form @ flat) - 2 * noise
    return float(flat @ form @ flat - np.trace(moved)), math.sqrt(max(0.0, along) + noise)
