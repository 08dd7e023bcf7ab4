"""Which definition of `terms.html.j2` explains a column."""

from __future__ import annotations

from mbench.report.tables.table import Column

TERMS = {
    "Method": "method",
    "Method and seed": "method",
    "Rank": "rank",
    "higher is better": "average",
    "lower is better": "perplexity",
    "vs. random": "differences",
    "vs. best": "differences",
    "Masks beaten": "masks-beaten",
    "Gap closed": "gap-closed",
    "acc": "acc",
    "acc_norm": "acc",
    "perplexity": "perplexity",
    "mean_nll": "perplexity",
    "bits_per_byte": "perplexity",
    "mean Jaccard": "overlap",
    "Kept": "kept",
    "Experts kept": "kept",
    "Status": "failed",
    "Weights": "weights",
    "Candidate": "candidate",
}
"""Text or detail of a column's head -> id of the definition, without `term-`."""


def term_of(column: Column) -> str:
    """Id of the definition behind a column's head, empty if it speaks for itself."""
    if "at floor" in column.detail:
        return "floor"
    detail = column.detail.removesuffix(" ↓")
    if detail.startswith("exact_match"):
        return "exact-match"
    return TERMS.get(column.text) or TERMS.get(detail, "")
