"""Figures and findings as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mbench.report.arrange import RANDOM, Group, Score, Setting
from mbench.report.ranking import Standing

MINUS = "\N{MINUS SIGN}"


def percent(ratio: float) -> str:
    """0.25 -> "25 %"."""
    return f"{100 * ratio:.4g}\N{NO-BREAK SPACE}%".replace("-", MINUS)


def number(metric: str, value: float, scale: float | None = None) -> str:
    """A figure with as many decimals as its metric bears; `scale` sets those of an error."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if metric != "perplexity":
        return f"{value:.3f}".replace("-", MINUS)
    size = value if scale is None else scale
    if not math.isfinite(size) or size >= 1e6:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    decimals = 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}"


def signed(value: float) -> str:
    """A difference of scores, always with its sign."""
    return f"{value:+.3f}".replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """Bounds of a difference."""
    return f"[{signed(low)}, {signed(high)}]"


def shorten(reason: str, length: int = 70) -> str:
    """A reason for a narrow place; the table of failures has the whole of it."""
    text = " ".join(reason.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def listing(names: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def verdict(setting: Setting, score: Score | None, standings: Sequence[Standing]) -> list[str]:
    """What one budget says, in sentences; the first names the leader."""
    if score is None:
        return ["The suite declares neither an average nor a perplexity: methods are not ranked."]
    ranked = [standing for standing in standings if standing.rank is not None]
    if not ranked:
        return [f"No method has a complete {score.name}."]
    best = ranked[0]
    sentences = [_lead(best, score), _separation(ranked), *_against_random(ranked, score)]
    missing = [s.entry.method for s in standings if s.rank is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        sentences.append(f"{listing(missing)} {verb} incomplete and not ranked.")
    return sentences


def _lead(best: Standing, score: Score) -> str:
    text = f"{best.entry.method} leads with a {score.name} of {best.summary.mean:.3f}"
    if best.from_random is None:
        return f"{text}."
    found = best.from_random
    word = "over" if score.higher else "against"
    text += f", {signed(found.value)} {word} the random mean {interval(found.low, found.high)}"
    return f"{text}." if best.differs_from_random else f"{text}, which is not separated from it."


def _separation(ranked: Sequence[Standing]) -> str:
    tied = [s.entry.method for s in ranked[1:] if s.tied]
    others = len(ranked) - 1 - len(tied)
    if not others and not tied:
        return "No other method is complete."
    if not tied:
        rest = "the other method" if others == 1 else f"all {others} other methods"
        return f"It is separated from {rest}."
    text = f"It is not separated from {listing(tied)}"
    return text + (f", and separated from the other {others}." if others else ", thus from none.")


def _against_random(ranked: Sequence[Standing], score: Score) -> list[str]:
    best = ranked[0].summary.mean
    random = next((s for s in ranked if s.entry.method == RANDOM), None)
    if random is None or random is ranked[0] or random.summary.count < 2:
        return []
    values = [score.value(cell) for cell in random.entry.cells]
    reached = sum(value >= best if score.higher else value <= best for value in values)
    verb = "reaches" if reached < 2 else "reach"
    return [f"{reached or 'None'} of the {len(values)} random seeds {verb} it."]


def perplexity_verdict(group: Group, score: Score, standings: Sequence[Standing]) -> str:
    """One sentence on the lowest perplexity, for suites that rank by something else."""
    ranked = [standing for standing in standings if standing.rank is not None]
    if not ranked:
        return ""
    best = ranked[0]
    tied = [s.entry.method for s in ranked[1:] if s.tied]
    text = f"{score.name} is lowest for {best.entry.method} ({best.summary.mean:.3f}"
    unpruned = score.value(group.unpruned) if group.unpruned else None
    text += f"; unpruned {unpruned:.3f})" if unpruned is not None else ")"
    return (
        f"{text}, not separated from {listing(tied)}." if tied else f"{text}, separated from all."
    )
