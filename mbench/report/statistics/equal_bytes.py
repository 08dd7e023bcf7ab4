"""Checkpoints of one model in several stored forms: who is best with at most so many bytes.

A limit is the size of a checkpoint that was run. Under it stands what a reader with so much room
would choose from: of every stored form the unpruned checkpoint if it fits, otherwise each method's
largest one that does. Which ones these are follows from sizes alone, never from scores. Under a
limit all pairs are compared, as the methods of a budget are (see `families`): a family for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mbench.core.cell_results import UNPRUNED, CellKey, CellResult
from mbench.core.results import Results
from mbench.report.statistics.families import Comparison
from mbench.report.statistics.groups import RANDOM, Entry, Group
from mbench.report.statistics.pairing import Paired, join, pair, to_part
from mbench.report.statistics.ranking import Ranked, Ranking, rank_together
from mbench.report.statistics.scores import Score
from mbench.report.words import listing, pruned, size

NEARLY = 0.05
"""Sizes that differ by no more than this share of the larger one have one limit, the larger."""


@dataclass(frozen=True)
class Sized:
    """A checkpoint of known size: an unpruned model, or a method at a budget."""

    entry: Entry
    """Its cells, under a name that says model and budget too."""
    method: str
    form: str
    """In which form its weights are stored, e.g. `FP8 128x128`; of plain numbers their dtype."""
    bytes: int
    """Of all its tensors; the largest of its seeds."""
    score: float | None
    """None where it is not complete."""

    @property
    def name(self) -> str:
        """What it is called on the board: `qwen-fp8, reap, 50 % pruned`."""
        return self.entry.method

    @property
    def model(self) -> str:
        """The model that it was made of."""
        return self.entry.key.model

    @property
    def kind(self) -> tuple[str, str]:
        """Model and stored form."""
        return self.model, self.form


@dataclass(frozen=True)
class Limit:
    """Who is best with at most so many bytes."""

    bytes: int
    rows: tuple[Sized, ...]
    """Those that are compared, from best to worst; those that cannot be compared are last."""
    ranking: Ranking
    reference: str
    """What all are compared with on the page: the largest unpruned one, else the best."""

    @property
    def words(self) -> str:
        """`with at most 15.2 GB`."""
        return f"with at most {size(self.bytes, 'B')}"

    def row_of(self, sized: Sized) -> Ranked | None:
        """Where it stands; None if it cannot be compared."""
        return self.ranking.row_of(sized.name)

    def against_reference(self, sized: Sized) -> Comparison | None:
        """It minus the reference; None for the reference itself."""
        return self.ranking.compare(sized.name, self.reference)


@dataclass(frozen=True)
class EqualBytes:
    """All stored forms of one model."""

    id: str
    """Prefix of its anchors on the page."""
    results: Results
    score: Score
    models: tuple[str, ...]
    """In the order of the run."""
    forms: tuple[str, ...]
    rows: tuple[Sized, ...]
    """All but random pruning, from large to small."""
    random: tuple[Sized, ...]
    limits: tuple[Limit, ...]
    """From large to small; only those under which two forms fit."""
    frontier: tuple[Sized, ...]
    """From small to large: those than which no other one has a better score and no more bytes.
    Scores are as observed: neighbours may be tied."""
    unknown: tuple[str, ...]
    """Those whose size is not known."""

    @property
    def heading(self) -> str:
        """Its heading on the page."""
        return f"Equal bytes: {listing(self.models)}"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Models and their stored forms in words, as the chart tells them apart."""
        return tuple(dict.fromkeys(self.kind_name(row) for row in self.rows))

    def kind_name(self, row: Sized) -> str:
        """`qwen-fp8, FP8 128x128`."""
        return f"{row.model}, {row.form}"


def equal_bytes(
    results: Results, groups: Sequence[Group], score: Score | None
) -> tuple[EqualBytes, ...]:
    """A board for each model that was run in several stored forms, published ones included."""
    if score is None:
        return ()
    found: list[EqualBytes] = []
    for own in _families(results, groups):
        board = _board(f"bytes-{len(found) + 1}", results, own, score)
        if board is not None:
            found.append(board)
    return tuple(found)


def _families(results: Results, groups: Sequence[Group]) -> list[list[Group]]:
    """Groups by the model that they are stored forms of."""
    families: dict[str, list[Group]] = {}
    for group in groups:
        record = results.provenance.models.get(group.model)
        original = record.same_as if record and record.same_as else group.model
        families.setdefault(original, []).append(group)
    return list(families.values())


def _board(id: str, results: Results, groups: Sequence[Group], score: Score) -> EqualBytes | None:
    every, unknown = _sized(results, groups, score)
    random = tuple(row for row in every if row.method == RANDOM)
    rows = tuple(row for row in every if row.method != RANDOM)
    if len({row.kind for row in rows}) < 2:
        return None
    cells = {cell.key: cell for row in rows for cell in row.entry.cells}
    parts = [to_part(task, metric) for task, metric in score.parts]
    paired = join([pair(cells, [part]) for part in parts])
    limits = tuple(_limits(rows, score, paired))
    if not limits:
        return None
    return EqualBytes(
        id=id,
        results=results,
        score=score,
        models=tuple(group.model for group in groups),
        forms=tuple(dict.fromkeys(row.form for row in rows)),
        rows=rows,
        random=random,
        limits=limits,
        frontier=tuple(_frontier(rows, score)),
        unknown=tuple(unknown),
    )


def _sized(
    results: Results, groups: Sequence[Group], score: Score
) -> tuple[list[Sized], list[str]]:
    """Every checkpoint of the groups from large to small, and the names of those of no known
    size."""
    rows, unknown = [], []
    for group in groups:
        entries = [Entry(UNPRUNED, (group.unpruned,))] if group.unpruned else []
        entries += [entry for budget in group.budgets for entry in budget.entries]
        for entry in entries:
            name = _name(entry)
            sizes = [bytes_of(results, cell) for cell in entry.cells]
            known = [own for own in sizes if own is not None]
            if len(known) < len(sizes):
                if any(cell.status == "ok" for cell in entry.cells):
                    unknown.append(name)
                continue
            summary = entry.summary(score.value)
            value = None if summary is None else summary.mean
            form = stored_form(results, entry.cells[0])
            rows.append(Sized(Entry(name, entry.cells), entry.method, form, max(known), value))
    rows.sort(key=lambda row: -row.bytes)
    return rows, unknown


def _name(entry: Entry) -> str:
    if entry.method == UNPRUNED:
        return f"{entry.key.model}, unpruned"
    return f"{entry.key.model}, {entry.method}, {pruned(entry.key.retain)}"


def bytes_of(results: Results, cell: CellResult) -> int | None:
    """What a cell's checkpoint takes; None where it is not known."""
    if cell.weight_bytes is None and cell.method == UNPRUNED:
        record = results.provenance.models.get(cell.model)
        return record.size.bytes if record and record.size else None
    return cell.weight_bytes


def stored_form(results: Results, cell: CellResult) -> str:
    """In which form a cell's checkpoint is stored; of plain numbers their dtype, if it is known."""
    record = results.provenance.models.get(cell.model)
    # A checkpoint of plain numbers beside a model of plain numbers is taken to have its dtype.
    plain = record.facts.dtype if record and not record.facts.stored_form else "plain numbers"
    return results.stored_form_of(cell) or plain


def _limits(rows: Sequence[Sized], score: Score, paired: Paired[CellKey]) -> Iterator[Limit]:
    for most in limits_of(row.bytes for row in rows):
        chosen = contenders(rows, most)
        ranking = rank_together([row.entry for row in chosen], score, paired)
        there = [row for row in chosen if ranking.row_of(row.name) is not None]
        if len({row.kind for row in there}) < 2:
            continue
        places = {name: at for at, own in enumerate(ranking.ranked) for name in own.names}
        chosen.sort(key=lambda row: places.get(row.name, len(places)))
        whole = [row for row in there if row.method == UNPRUNED]
        best = next(row for row in chosen if row.name in places)
        reference = max(whole, key=lambda row: row.bytes, default=best)
        yield Limit(most, tuple(chosen), ranking, reference.name)


def limits_of(sizes: Iterable[int]) -> list[int]:
    """The limits from large to small: sizes but for those that are nearly a larger limit."""
    found: list[int] = []
    for own in sorted(set(sizes), reverse=True):
        if not found or own < (1 - NEARLY) * found[-1]:
            found.append(own)
    return found


def contenders(rows: Sequence[Sized], most: int) -> list[Sized]:
    """What a reader with room for `most` bytes would choose from (see above)."""
    by_kind: dict[tuple[str, str], list[Sized]] = {}
    for row in rows:
        if row.bytes <= most:
            by_kind.setdefault(row.kind, []).append(row)
    chosen = []
    for fitting in by_kind.values():
        whole = [row for row in fitting if row.method == UNPRUNED]
        # The last one of a method is its largest.
        ordered = sorted(fitting, key=lambda row: (row.bytes, row.entry.key.retain))
        chosen += whole or list({row.method: row for row in ordered}.values())
    return chosen


def _frontier(rows: Sequence[Sized], score: Score) -> Iterator[Sized]:
    sign = 1 if score.higher else -1
    scored = [
        (row.bytes, -sign * row.score, row)
        for row in rows
        if row.score is not None and math.isfinite(row.score)
    ]
    best = math.inf
    for _, worse, row in sorted(scored, key=lambda own: own[:2]):
        if worse < best:
            best = worse
            yield row
