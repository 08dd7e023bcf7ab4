"""`mbench merge`: bring stores together that were apart."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.options import STORE, json_option, kind_option
from mbench.cli.output import print_json
from mbench.cli.store_display import progress_over, say, size_of, warn

if TYPE_CHECKING:
    from mbench.storage.store import Store

SOME_DIFFER = 3


@dataclass
class _Counts:
    """What became of the artefacts of one kind."""

    copied: int = 0
    there: int = 0
    differ: int = 0
    damaged: int = 0


@dataclass
class _Merged:
    """What was done so far."""

    kinds: dict[str, _Counts] = field(default_factory=dict)
    differences: list[dict[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A line for each difference, each damaged artefact, and each kind."""
        lines = [
            f"{each['kind']} {each['key'][:12]} {each['label']}: {each['difference']};"
            f" {each['ours']} stays beside {each['theirs']}"
            for each in self.differences
        ]
        lines += [f"damaged, not copied: {each}" for each in self.damaged]
        for kind, counts in self.kinds.items():
            parts = Counter(asdict(counts))
            lines.append(f"{kind}: {', '.join(f'{parts[n]} {n}' for n in parts if parts[n])}")
        return lines


@click.command("merge")
@click.argument("stores", nargs=-1, required=True, type=STORE)
@click.option(
    "--into", required=True, type=STORE, metavar="STORE", help="The store that gets all of it."
)
@kind_option
@json_option
def command(
    stores: tuple[Path | str, ...], into: Path | str, kinds: tuple[Any, ...], as_json: bool
) -> None:
    """Bring STORES, folders or URLs, together in one; `mbench run` with it computes only the rest.

    Everything is verified on the way, and nothing whole is overwritten. Where two stores have
    different contents under one key, e.g. from two kinds of machines, what --into has stays, and
    both are named. Not copied: what is damaged, and what means nothing on another machine.
    Interrupted, the same command goes on. Exit status 3 if something differs or is damaged.

    Reports are merged by `mbench report`.
    """
    from mbench.core.errors import StoreError
    from mbench.storage.store import Store

    sources = [Store(place, make=False) for place in stores]
    for source in sources:
        _refuse_other(source)
    target = Store(into)
    for source in sources:
        if _one_place(source, target):
            raise StoreError(f"{source.root} cannot be merged into itself")
    target.require_writable("what is to be merged into it")
    target.listen(warn)
    merged = _Merged()
    for source in sources:
        _merge(source, target, kinds, merged)
    if as_json:
        counts = {kind: asdict(each) for kind, each in merged.kinds.items()}
        print_json({"kinds": counts, "differences": merged.differences, "damaged": merged.damaged})
    else:
        for line in merged.lines():
            say(line)
    if merged.differences or merged.damaged:
        sys.exit(SOME_DIFFER)


def _refuse_other(source: Store) -> None:
    """Raise `StoreError` for a folder of something else; an empty one may become a store."""
    from mbench.core.errors import StoreError
    from mbench.storage.artefacts import KINDS
    from mbench.storage.results_folder import JSON

    if not isinstance(source.root, Path):
        return
    names = {each.name for each in source.root.iterdir()}
    if JSON in names:
        raise StoreError(f"{source.root} is a report and no store: `mbench report` merges reports")
    if names and names.isdisjoint(KINDS):
        raise StoreError(f"{source.root} is no store: it has none of {', '.join(KINDS)}")


def _one_place(one: Store, other: Store) -> bool:
    """Whether two stores are the same, however they are written."""
    if isinstance(one.root, Path) and isinstance(other.root, Path):
        return one.root.samefile(other.root)
    return str(one.root) == str(other.root)


def _merge(source: Store, target: Store, kinds: tuple[Any, ...], merged: _Merged) -> None:
    from mbench.core.errors import Damaged
    from mbench.storage.artefacts import KINDS
    from mbench.storage.housekeeping import contents, copies
    from mbench.storage.merging import merge

    chosen = list(copies(contents(source, kinds or KINDS)))
    if not chosen:
        warn(f"{source.root} holds nothing that could be merged: is it a store?")
    with progress_over(chosen, f"merging {source.root}") as watched:
        for stored in watched:
            key = stored.key
            counts = merged.kinds.setdefault(key.kind, _Counts())
            try:
                outcome = merge(stored, target)
            except FileNotFoundError:
                continue
            except Damaged as damage:
                counts.damaged += 1
                merged.damaged.append(f"{stored.path} ({size_of([stored])}): {damage}")
                continue
            if isinstance(outcome, bool):
                counts.copied += outcome
                counts.there += not outcome
                continue
            counts.differ += 1
            merged.differences.append(
                {
                    "kind": key.kind,
                    "key": key.digest,
                    "label": outcome.label,
                    "difference": outcome.what,
                    "ours": str(target.path(key)),
                    "theirs": str(stored.path),
                }
            )
