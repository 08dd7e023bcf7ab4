"""Overlap of the experts that calibration texts choose, by budget."""

from __future__ import annotations

from mbench.report.statistics.corpus_choices import CorpusChoices
from mbench.report.tables.table import Cell, Column, Row, Table, heat
from mbench.report.words import pruned


def corpus_overlap(choices: CorpusChoices) -> Table:
    """A row for every pair of texts, and one for chance."""
    columns = [Column("Corpora", number=False)]
    columns += [Column(pruned(retain), "mean Jaccard") for retain in choices.chosen]
    rows = [Row(Cell(" and ".join(pair)), _cells(choices, pair)) for pair in choices.pairs]
    levels = [choices.chance(retain) for retain in choices.chosen]
    cells = tuple(Cell(f"{level:.2f}", sort=level) for level in levels)
    rows.append(Row(Cell("two random choices"), cells, "summary"))
    group = choices.boards.group
    caption = (
        f"Overlap of the texts' choices: {choices.heading}, {group.model}, router {group.router}"
    )
    return Table(f"{choices.id}-table", caption, tuple(columns), tuple(rows))


def _cells(choices: CorpusChoices, pair: tuple[str, str]) -> tuple[Cell, ...]:
    shares = (choices.overlap_by_layer(retain, pair) for retain in choices.chosen)
    return tuple(heat(None if share is None else float(share.mean())) for share in shares)
