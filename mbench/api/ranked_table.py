"""The leaderboard as a pandas frame whose text fits a terminal and leaves nothing out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mbench.report.words import bounds, difference, method_name, pruned, score_text

DIFFERENCES = {"vs random": "vs_random", "vs unpruned": "vs_unpruned"}


class RankedTable(pd.DataFrame):  # type: ignore[misc]
    """The frame of `mbench.ranked`; what is selected from it is an ordinary one.

    Printed, it is a table for each model and budget, with ranks, scores and differences in words.
    """

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def __repr__(self) -> str:
        """All rows, whatever width pandas is set to."""
        groups = self.groupby(["model", "retain"], sort=False)
        lines = [line for _, rows in groups for line in _table(rows)]
        if self["tied"].any():
            lines.append("* tied for best; [intervals] of 95 % hold for all of them at once")
        if self["early"].any():
            lines.append("≈ from some of the items")
        return "\n".join([*lines, f"columns: {', '.join(self.columns)}"])


def _table(rows: pd.DataFrame) -> list[str]:
    first = rows.iloc[0]
    heads = ["rank", "method", str(first["score"]), *DIFFERENCES]
    cells = [heads, *(_cells(row) for _, row in rows.iterrows())]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    kept = f"{first['experts_kept']} experts kept in a layer"
    return [
        f"{first['model']}, {pruned(first['retain'])}, {kept}",
        *(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ),
        "",
    ]


def _cells(row: pd.Series) -> list[str]:
    ranks = [] if pd.isna(row["rank"]) else [str(row[name]) for name in ("rank", "last_rank")]
    tied = "*" if row["tied"] is True else ""
    early = "≈ " if row["early"] else ""
    spread = "" if pd.isna(row["seed_sd"]) else f" ± {row['seed_sd']:.3f}"
    return [
        "–".join(dict.fromkeys(ranks)) + tied,
        method_name(row["method"]),
        f"{early}{score_text(row['value'])}{spread}",
        *(_difference(row, name) for name in DIFFERENCES.values()),
    ]


def _difference(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return ""
    return f"{difference(row[name])} {bounds(row[f'{name}_low'], row[f'{name}_high'])}".rstrip()
