"""Trying a method on cases in turn, and telling results apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from mbench.testing.cases import Case
from mbench.testing.failures import Broken, Found, Refused, Skipped
from mbench.testing.making import Made

TOLERANCE = 1e-4
"""Relative difference that rounding may make: statistics are measured in float32."""


def through(cases: Iterable[Case], tried: Callable[[Case], object]) -> None:
    """Try cases in turn.

    Raises `Found` at the first that shows something wrong, and `Skipped` where the method refuses
    every one.
    """
    done, reason = 0, "there is no such case"
    for case in cases:
        try:
            tried(case)
            done += 1
        except Refused as refusal:
            reason = str(refusal)
        except Broken as broken:
            raise Found(broken.check, broken.problem, case) from broken
    if not done:
        raise Skipped(f"it refuses every such case: {reason}")


def some(count: int, cases: Iterable[Case]) -> list[Case]:
    """Evenly spaced ones, the first and the last among them."""
    every = list(cases)
    rows = np.unique(np.linspace(0, len(every) - 1, count).round().astype(int))
    return [every[row] for row in rows]


def close(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two arrays are equal up to rounding, measured by the largest value."""
    if first.shape != second.shape:
        return False
    if first.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    scale = np.abs(first).max(initial=0)
    return bool(np.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE * scale))


def refuse_difference(check: str, what: str, first: Made, second: Made) -> None:
    """Raise `Broken` unless two results are the same, bit for bit."""
    for corpus, values in first.scores.items():
        if not np.array_equal(values, second.scores[corpus]):
            layer, expert = np.argwhere(values != second.scores[corpus])[0]
            pair = f"{values[layer, expert]:g} and {second.scores[corpus][layer, expert]:g}"
            problem = f"{what}: the score of layer {layer}, expert {expert} is {pair}"
            raise Broken(check, problem)
    if not np.array_equal(first.mask.keep, second.mask.keep):
        raise Broken(check, f"{what}: {two_rows(first.mask.keep, second.mask.keep)}")
    if first.mask.content_hash != second.mask.content_hash:
        raise Broken(check, f"{what}: what stands in for dropped experts differs")


def two_rows(first: np.ndarray, second: np.ndarray) -> str:
    """Which experts two masks keep in the first layer in which they differ."""
    layer = int(np.flatnonzero((first != second).any(axis=1))[0])
    kept = [np.flatnonzero(keep[layer]).tolist() for keep in (first, second)]
    return f"layer {layer} keeps experts {kept[0]} and {kept[1]}"


def tied(first: Made, second: Made) -> bool:
    """Whether two masks are equally good: by scores, or by the losses that a search asked for."""
    if first.scores and not (first.mask.stand_in or second.mask.stand_in):
        layers = range(len(first.mask.keep))
        rows = [(first.kept_scores(layer), second.kept_scores(layer)) for layer in layers]
        same_shape = all(len(one) == len(two) for one, two in rows)
        if first.rated and same_shape and all(close(np.array(a), np.array(b)) for a, b in rows):
            return True
    if first.probe is not None and second.probe is not None:
        return close(first.probe.loss_of(first.mask), second.probe.loss_of(second.mask))
    return False
