"""Formats figures and texts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mbench.core.cell_results import UNPRUNED

MINUS = "\N{MINUS SIGN}"

DIGITS = 5
"""Decimals of a figure in the data of the page."""


def percent(ratio: float) -> str:
    """0.25 -> "25 %"."""
    return f"{100 * ratio:.4g}\N{NO-BREAK SPACE}%".replace("-", MINUS)


def pruned(retain: float) -> str:
    """What a budget is called: 0.75 -> "25 % pruned", as the field counts them."""
    return f"{percent(1 - retain)} pruned"


def number(metric: str, value: float, scale: float | None = None) -> str:
    """A figure with decimals by its metric; those of an error follow from the figure `scale`."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if metric != "perplexity":
        return f"{_as_stored(value):.3f}".replace("-", MINUS)
    size = value if scale is None else scale
    if not math.isfinite(size) or size >= 1e6:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    decimals = 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}"


def size(value: float, unit: str) -> str:
    """2,198,880 -> "2.20 M", with the unit after the prefix."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}\N{NO-BREAK SPACE}{prefix}{unit}"
    return f"{value:.0f}\N{NO-BREAK SPACE}{unit}".strip()


def count(parameters: int) -> str:
    """14,300,000,000 -> "14.3 B", as the field writes parameters."""
    for factor, prefix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= factor:
            return f"{parameters / factor:.3g}\N{NO-BREAK SPACE}{prefix}"
    return str(parameters)


def tokens(number_of: int) -> str:
    """98304 -> "98 304"."""
    return f"{number_of:,}".replace(",", "\N{THIN SPACE}")


def _as_stored(value: float) -> float:
    """As the data of the page have it, so that page, terminal and tables round alike."""
    return round(value, DIGITS) + 0.0


def score_text(value: float) -> str:
    """A score with three decimals."""
    return number("", value)


def difference(value: float) -> str:
    """A difference with its sign, and a fourth decimal where three would make it zero."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("+∞" if value > 0 else f"{MINUS}∞")
    stored = _as_stored(value)
    decimals = 4 if stored and abs(stored) < 0.0005 else 3
    text = f"{stored:+.{decimals}f}"
    return text.replace("-", MINUS if text.strip("-0.") else "+")


def bounds(low: float, high: float) -> str:
    """The interval of a difference; nothing where there is none."""
    return f"[{difference(low)}, {difference(high)}]" if math.isfinite(low) else ""


def finite(value: float) -> float | None:
    """A figure for JSON, which has no word for what is not finite."""
    return value if math.isfinite(value) else None


def method_name(method: str) -> str:
    """What readers are told: the unpruned model has the name `none` in results."""
    return "unpruned" if method == UNPRUNED else method


def shorten(reason: str, length: int = 70) -> str:
    """Shorten a reason for a narrow place; the table of failures has all of it."""
    text = " ".join(reason.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def listing(items: Iterable[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    names = list(items)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
