"""`mbench store`: look at the store, check it, thin it out, and copy from it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.options import (
    STORE,
    json_option,
    kind_option,
    plugin_option,
    request,
    store_option,
)
from mbench.cli.output import print_json
from mbench.cli.store_display import (
    all_kinds,
    details_of,
    line_of,
    progress_over,
    say,
    size_of,
    to_json,
    totals_of,
    warn,
    with_mask,
)

if TYPE_CHECKING:
    from mbench.storage.housekeeping import Stored
    from mbench.storage.store import Key, Store

SOME_DAMAGED = 3
DAY = 24 * 3600.0
UNITS = {"h": 3600.0, "d": DAY, "w": 7 * DAY}

suites_argument = click.argument("suites", nargs=-1, type=click.Path(path_type=Path))


@click.group("store")
def command() -> None:
    """Look at the store, check it, thin it out, and copy from it.

    The store holds what runs have computed, each thing verified whenever it is read. What was
    damaged is moved to its folder `damaged` and computed again; nothing else is ever changed.
    """


@command.command("list", short_help="List what is stored, newest last.")
@click.argument("text", default="")
@kind_option
@store_option
@json_option
def list_(text: str, kinds: tuple[Any, ...], store_root: Path | str | None, as_json: bool) -> None:
    """List what is stored, newest last: key, size, date and label; then how much of each kind.

    TEXT: only those whose label or key has it.
    """
    from mbench.storage.housekeeping import contents, describe, set_aside

    store = _open(store_root)
    described = [describe(each, whole=False) for each in contents(store, kinds or all_kinds())]
    rows = [
        each
        for each in described
        if each is not None and (text in each.label or text in each.stored.key.digest)
    ]
    if as_json:
        print_json({"store": str(store.root), "artefacts": [to_json(each) for each in rows]})
        return
    for each in sorted(rows, key=lambda each: each.stored.written):
        say(line_of(each.stored, each.label))
    for total in totals_of([each.stored for each in rows]):
        say(total)
    moved = set_aside(store)
    if moved:
        say(f"damaged and set aside: {len(moved)} (mbench store prune --damaged removes them)")


@command.command("show")
@click.argument("key")
@store_option
@json_option
def show(key: str, store_root: Path | str | None, as_json: bool) -> None:
    """Show one artefact, given by the first characters of its key, or of its mask's number.

    Says what made it and whether it is whole; of a mask the experts it keeps, of an evaluation its
    metrics. Exit status: 0 whole, 2 there is no such artefact, 3 damaged.
    """
    from mbench.core.errors import StoreError
    from mbench.storage.housekeeping import contents, describe

    store = _open(store_root)
    found, which = [each for each in contents(store) if each.key.digest.startswith(key)], "keys"
    if not found:
        found, which = with_mask(store, key), "masks"
    if len(found) != 1:
        listed = ", ".join(f"{each.key.kind} {each.key.digest[:12]}" for each in found[:5])
        many = f"{len(found)} artefacts have {which} that start with {key!r}: {listed}"
        raise StoreError(many if found else f"no artefact of {store.root} has the key {key!r}")
    described = describe(found[0], whole=True)
    if described is None:
        raise StoreError(f"{key!r} is gone: somebody else removed it")
    details = {} if described.damage else details_of(store, described)
    if as_json:
        print_json({**to_json(described), "made_by": described.record, **details})
    else:
        say(line_of(described.stored, described.label))
        say(f"file: {described.stored.path}")
        say(f"checksum: {'wrong' if described.damage else 'right'}")
        for name, value in details.items():
            for part, text in value.items():
                say(f"{name} {part}: {text}")
        say(json.dumps({"made_by": described.record}, indent=1, sort_keys=True))
    if described.damage:
        sys.exit(SOME_DAMAGED)


@command.command("verify")
@click.option("--set-aside", "move", is_flag=True, help="Move what is damaged to `damaged/`.")
@kind_option
@store_option
@json_option
def verify(
    kinds: tuple[Any, ...], move: bool, store_root: Path | str | None, as_json: bool
) -> None:
    """Read everything that is stored, and name each damaged artefact.

    Exit status: 0 all is whole, 3 something is damaged.
    """
    from mbench.storage.housekeeping import contents, describe

    store = _open(store_root)
    every = contents(store, kinds or all_kinds())
    damaged = []
    with progress_over(every, "verifying") as watched:
        for stored in watched:
            described = describe(stored, whole=True)
            if described is not None and described.damage:
                damaged.append(described)
                if not as_json:
                    say(line_of(stored, described.label))
    reports: list[str] = []
    if move:
        store.listen(reports.append)
        for described in damaged:
            store.verify(described.stored.key)
    if as_json:
        print_json(
            {
                "verified": len(every),
                "bytes": sum(each.size for each in every),
                "damaged": [to_json(each) for each in damaged],
                "set_aside": reports,
            }
        )
    else:
        for report in reports:
            say(report)
        say(f"{len(every)} artefacts of {size_of(every)}, {len(damaged)} damaged")
    if damaged:
        sys.exit(SOME_DAMAGED)


@command.command("prune", short_help="Remove what SUITES do not need, or what is old.")
@suites_argument
@click.option("--older-than", metavar="30d", help="Only what is older: hours h, days d, weeks w.")
@click.option("--damaged", is_flag=True, help="Remove what was set aside because it was damaged.")
@click.option("--yes", is_flag=True, help="Remove it; without this, only say what would go.")
@kind_option
@plugin_option
@store_option
@json_option
def prune(
    suites: tuple[Path, ...],
    older_than: str | None,
    damaged: bool,
    yes: bool,
    kinds: tuple[Any, ...],
    plugin_files: tuple[Path, ...],
    store_root: Path | str | None,
    as_json: bool,
) -> None:
    """Remove what none of SUITES needs, what is older than some time, or both.

    Given both, only what is older and needed by none. Without --yes nothing is removed.
    """
    from mbench.cli.display import json_only
    from mbench.core.errors import StoreError
    from mbench.storage.housekeeping import contents, describe, set_aside

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    store = _open(store_root)
    age = _seconds(older_than) if older_than else 0.0
    if not suites and not older_than and not damaged:
        raise StoreError("say what may go: SUITES that need the rest, --older-than or --damaged")
    going = []
    if suites or older_than:
        keep = _needed(suites, plugin_files, store_root)
        going = [
            each
            for each in contents(store, kinds or all_kinds())
            if each.key not in keep and (not age or time.time() - each.written >= age)
        ]
    moved = set_aside(store) if damaged else []
    rows = [described for each in going if (described := describe(each, whole=False))]
    if yes:
        store.sweep()
        for name in (*(f"{each.key.kind}/{each.path.name}" for each in going), *moved):
            store.remove(name)
    if as_json:
        artefacts = list(map(to_json, rows))
        print_json({"removed": yes, "artefacts": artefacts, "damaged": moved}, json_stream)
        return
    for each in rows:
        say(line_of(each.stored, each.label))
    for name in moved:
        say(name)
    for total in totals_of(going):
        say(total)
    what = f"{len(going)} artefacts of {size_of(going)}"
    what += f" and {len(moved)} damaged ones" if damaged else ""
    say(f"removed {what}" if yes else f"would remove {what}; --yes removes them")


@command.command("copy", short_help="Copy all, or what SUITES need, to another store.")
@click.argument("destination", type=STORE)
@suites_argument
@kind_option
@plugin_option
@store_option
@json_option
def copy(
    destination: Path | str,
    suites: tuple[Path, ...],
    kinds: tuple[Any, ...],
    plugin_files: tuple[Path, ...],
    store_root: Path | str | None,
    as_json: bool,
) -> None:
    """Copy everything, or what SUITES need, into the store DESTINATION, verified on the way.

    What is there stays. Not copied: what is damaged, which is named, and what means nothing on
    another machine (hashes of its files, its speed). Exit status 3 if something is damaged.
    """
    from mbench.cli.display import json_only
    from mbench.core.errors import Damaged
    from mbench.storage.housekeeping import contents, copied, copies
    from mbench.storage.store import Store

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    store = _open(store_root)
    chosen = contents(store, kinds or all_kinds())
    if suites:
        wanted = _needed(suites, plugin_files, store_root)
        chosen = [each for each in chosen if each.key in wanted]
    target = Store(destination)
    target.listen(warn)
    new: list[Stored] = []
    damaged: list[str] = []
    chosen = list(copies(chosen))
    with progress_over(chosen, "copying") as watched:
        for stored in watched:
            try:
                if copied(stored, target):
                    new.append(stored)
            except Damaged as damage:
                damaged.append(line_of(stored, f"damaged: {damage}"))
            except FileNotFoundError:
                continue
    there = len(chosen) - len(new) - len(damaged)
    if as_json:
        size = sum(each.size for each in new)
        counts = {"copied": len(new), "bytes": size, "there": there, "damaged": damaged}
        print_json(counts, json_stream)
    else:
        for line in damaged:
            say(line)
        say(
            f"copied {len(new)} artefacts of {size_of(new)} to {destination};"
            f" {there} were there, {len(damaged)} are damaged"
        )
    if damaged:
        sys.exit(SOME_DAMAGED)


def _open(root: Path | str | None) -> Store:
    """The store, which must be there already."""
    from mbench.storage.store import Store, default_root

    store = Store(root or default_root(), make=False)
    store.listen(warn)
    return store


def _needed(
    suites: Sequence[Path], plugin_files: tuple[Path, ...], store_root: Path | str | None
) -> set[Key]:
    from mbench.plan.admission.admit import admit
    from mbench.plan.cost import estimate
    from mbench.plan.needed import needed

    keys: set[Key] = set()
    for suite in suites:
        asked = request(suite, plugin_files=plugin_files, store_root=store_root)
        # Both look up facts that a run of the suite looks up, too.
        admit(asked.plan, asked.store)
        estimate(asked.plan, asked.store)
        keys |= needed(asked.plan, asked.store)
    return keys


def _seconds(text: str) -> float:
    from mbench.core.errors import StoreError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if match is None:
        raise StoreError(f"--older-than takes a time such as 12h, 30d or 8w, not {text!r}")
    return float(match[1]) * UNITS[match[2]]
