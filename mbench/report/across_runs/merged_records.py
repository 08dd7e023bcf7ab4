"""What stands beside the cells of merged runs: records, settings in words, what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from mbench.core.cell_results import CellResult, LeftOut
from mbench.core.provenance import Provenance
from mbench.core.results import ProtocolEntry, Results
from mbench.core.run_record import RunRecord
from mbench.core.savings import Saving
from mbench.report.across_runs.setting_differences import recorded_differences

K = TypeVar("K")
V = TypeVar("V")

MERGED, DIFFER = "Merged runs", "Differs between the merged runs"
SETTLED = "Contradiction settled by the preferred run"
"""Protocol entries that merging writes."""


def joined_provenance(joined: Sequence[Provenance]) -> Provenance:
    """The settings of all runs, and the record of each unmerged run once."""
    # A run of one stored form alone does not say of which model it is one.
    records = [pair for each in joined for pair in each.models.items()]
    models = first(sorted(records, key=lambda pair: pair[1].same_as is None))
    models = {name: models[name] for name, _ in records}
    return Provenance(
        router=joined[0].router,
        corpora=first(pair for each in joined for pair in each.corpora.items()),
        mixes=first(pair for each in joined for pair in each.mixes.items()),
        tasks=first(pair for each in joined for pair in each.tasks.items()),
        models=models,
        methods={
            model: first(pair for each in joined for pair in each.methods.get(model, {}).items())
            for model in models
        },
        runs=tuple(unique(run for each in joined for run in each.runs)),
    )


def joined_left_out(runs: Iterable[Results], cells: Iterable[CellResult]) -> tuple[LeftOut, ...]:
    """What no run has a cell of, one reason each."""
    made = {(cell.model, cell.method, cell.retain) for cell in cells}
    places = first(
        ((left.model, left.method, left.retain), left)
        for results in runs
        for left in results.left_out
    )
    return tuple(left for place, left in places.items() if place not in made)


def joined_efficiency(runs: Iterable[Results]) -> tuple[Saving, ...]:
    """The measurements on each machine; a failure only where no run succeeded there."""
    savings: dict[tuple[str, float, str], Saving] = {}
    for results in runs:
        for saving in results.efficiency:
            place = (saving.model, saving.retain, saving.device)
            known = savings.setdefault(place, saving)
            if known.status != "ok" and saving.status == "ok":
                savings[place] = saving
    return tuple(savings.values())


def joined_protocol(
    runs: Iterable[Results], records: Sequence[RunRecord], settled: Iterable[str]
) -> tuple[ProtocolEntry, ...]:
    """The settings in words of all runs, what was merged, what differs, and what was settled."""
    entries = unique(entry for results in runs for entry in results.protocol)
    if len(records) > 1:
        entries = [entry for entry in entries if entry.name not in (MERGED, DIFFER)]
        numbered = {f"{n} {record.suite}": record for n, record in enumerate(records, 1)}
        entries.append(ProtocolEntry(MERGED, ", ".join(numbered)))
        differences = sorted(map(str, recorded_differences(numbered)))
        entries += [ProtocolEntry(DIFFER, text) for text in differences]
    return (*entries, *(ProtocolEntry(SETTLED, text) for text in settled))


def unique(values: Iterable[V]) -> list[V]:
    """Without repeats and empty ones, in order, by equality: run records cannot be hashed."""
    found: list[V] = []
    for value in values:
        if value and value not in found:
            found.append(value)
    return found


def first(pairs: Iterable[tuple[K, V]]) -> dict[K, V]:
    """The first value of each key."""
    found: dict[K, V] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found
