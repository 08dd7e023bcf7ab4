"""What a generated answer looks like apart from being right: its length, its end, its repetitions.

All is counted on the token ids as the model generated them, from the first token of the answer to
the one that completes a text of `until`, or to the last one before the end-of-text token; so before
lm-eval cuts the text of `until` off, and before filters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REPEATS = 3
"""How often a passage must stand at the end of an answer, one after another, to be a loop."""

LEAST = 32
"""Tokens that a loop takes up, all its passes together: fewer are found in right answers, too,
such as `1.0000000` or the rule of a table."""

GRAM = 4
"""Tokens of the passages that are counted for `rep_4`."""


@dataclass(frozen=True)
class Shape:
    """One answer."""

    hit_limit: bool
    """Whether neither the end-of-text token nor a text of `until` ended it, but its limit."""
    loops: bool | None
    """Whether it ends in a loop; None where its limit leaves no room for one."""
    rep_4: float
    """Share of its passages that stood in it before."""
    tokens: int


def shape_of(tokens: Sequence[int], ended: bool, limit: int) -> Shape:
    """The shape of an answer of at most `limit` tokens that `ended` by itself, or was cut off."""
    loops = ends_in_loop(tokens) if limit >= LEAST else None
    return Shape(not ended, loops, repeated_grams(tokens), len(tokens))


def mean_shape(shapes: Sequence[Shape]) -> Mapping[str, float]:
    """The means over the answers to one item, by column; `loops` is NaN where it is None."""
    return {
        "hit_limit": _mean([shape.hit_limit for shape in shapes]),
        "loops": _mean([math.nan if shape.loops is None else shape.loops for shape in shapes]),
        "rep_4": _mean([shape.rep_4 for shape in shapes]),
        "answer_tokens": _mean([shape.tokens for shape in shapes]),
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def ends_in_loop(tokens: Sequence[int]) -> bool:
    """Whether an answer ends in a loop.

    It does if for some p >= 1 its last max(`REPEATS` * p, `LEAST`) tokens have period p: each
    equals the one p places before it, as far as that one is among them. So the last passage may be
    incomplete, as it is where the limit cut it off, and may be as long as a third of the answer.

    Holtzman et al. 2020 (arXiv 1904.09751) count such ends of generated texts; the engine vLLM
    stops them by the same rule (`repetition_detection`), with thresholds that are a user's.
    Time and memory are linear in the number of tokens.
    """
    backwards = list(tokens)[::-1]
    for period, matching in enumerate(_prefix_matches(backwards)):
        if period and period + matching >= max(REPEATS * period, LEAST):
            return True
    return False


def repeated_grams(tokens: Sequence[int]) -> float:
    """Share of an answer's passages of `GRAM` tokens that stood in it before: seq-rep-4.

    1 - (different 4-grams) / (4-grams), by Welleck et al. 2020 (arXiv 1908.04319); 0 of an answer
    of fewer than 4 tokens. It also sees loops that count up, which do not repeat exactly.
    """
    count = len(tokens) - GRAM + 1
    if count < 1:
        return 0.0
    different = {tuple(tokens[start : start + GRAM]) for start in range(count)}
    return 1 - len(different) / count


def _prefix_matches(text: Sequence[int]) -> list[int]:
    """For each start, how many tokens from there on equal those from the beginning on.

    The Z algorithm (Gusfield 1997): what lies in a match found before is not compared again.
    """
    matches = [len(text)] + [0] * (len(text) - 1) if text else []
    left = right = 0
    for start in range(1, len(text)):
        length = max(0, min(right - start, matches[start - left]))
        while start + length < len(text) and text[length] == text[start + length]:
            length += 1
        matches[start] = length
        if start + length > right:
            left, right = start, start + length
    return matches
