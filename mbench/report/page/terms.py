"""Which entry of `terms.html.j2` defines a column."""

from __future__ import annotations

from mbench.report.statistics.floors import GUESSING
from mbench.report.tables.table import Column

TERMS = {
    "Method": "method",
    "Method and seed": "method",
    "Rank": "rank",
    "higher is better": "average",
    "lower is better": "perplexity",
    "vs. random": "differences",
    "vs. unpruned": "differences",
    "Gap closed": "gap-closed",
    "acc": "acc",
    "acc_norm": "acc",
    "Looping": "looping",
    "Cut off": "looping",
    "Repeated": "looping",
    "hit_limit": "looping",
    "loops": "looping",
    "rep_4": "looping",
    "perplexity": "perplexity",
    "mean_nll": "perplexity",
    "bits_per_byte": "perplexity",
    "mean Jaccard": "overlap",
    "Pruned": "kept",
    "Pruned per layer": "layers",
    "In their place": "stand-in",
    "Mask stability": "stability",
    "Calibration": "cost",
    "Experts pruned": "kept",
    "Kept per layer": "kept",
    "Status": "failed",
    "Weights": "weights",
    "Bytes": "bytes",
    "Checkpoint": "bytes",
    "Candidate": "candidate",
    "Estimate": "early",
    "To unpruned": "early",
    "Evaluated": "look",
    "Predicted by": "early",
    "Ended": "ended",
}
"""Text or detail of a column's head -> id of the entry, without `term-`."""


def term_of(column: Column) -> str:
    """Id of the entry that a column's head links to, empty if it needs none."""
    if GUESSING in column.detail:
        return "floor"
    detail = column.detail.removesuffix(" ↓")
    if detail.startswith("exact_match"):
        return "exact-match"
    return TERMS.get(column.text) or TERMS.get(detail, "")
