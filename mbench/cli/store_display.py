"""How `mbench store` shows what is stored: lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mbench.cli.output import console_of

if TYPE_CHECKING:
    from mbench.storage.housekeeping import Described, Stored
    from mbench.storage.store import Store


def details_of(store: Store, described: Described) -> dict[str, dict[str, Any]]:
    """What people want to know of a mask or an evaluation, by what it is about."""
    key = described.stored.key
    if key.kind == "masks":
        stored = store.read_json(key) or {}
        kept = stored.get("kept") or {}
        if isinstance(kept, list):  # of a published checkpoint, whose layers have no names here
            kept = {f"layer {number}": experts for number, experts in enumerate(kept)}
        details = {layer: " ".join(map(str, experts)) for layer, experts in kept.items()}
        told = {fact: "; ".join(stored[fact]) for fact in ("differs", "problems") if fact in stored}
        return {"kept in": details, **({"published checkpoint": told} if told else {})}
    if key.kind == "evaluations":
        from mbench.core.evaluation import evaluation

        items = store.read_items(key)
        if items is None:
            return {}
        metrics = evaluation(key.digest, items).metrics
        return {"metric": {metric.name: metric.value for metric in metrics}}
    if key.kind in ("facts", "probes", "efficiency"):
        return {"content": {key.kind: json.dumps(store.read_json(key))}}
    return {"profile": dict(vars(store.read_profile(key)))}


def with_mask(store: Store, number: str) -> list[Stored]:
    """The masks whose number, by which labels and `mbench identify` name them, starts so."""
    from mbench.storage.housekeeping import contents

    def number_of(each: Stored) -> str:
        stored = store.read_json(each.key)
        return str(stored.get("content_hash", "")) if isinstance(stored, dict) else ""

    return [each for each in contents(store, ["masks"]) if number_of(each).startswith(number)]


def all_kinds() -> tuple[Any, ...]:
    """The folders of a store."""
    from mbench.storage.artefacts import KINDS

    return KINDS


def to_json(each: Described) -> dict[str, Any]:
    """An artefact as `--json` has it."""
    stored = each.stored
    return {
        "kind": stored.key.kind,
        "key": stored.key.digest,
        "label": each.record.get("label"),
        "bytes": stored.size,
        "written": date_of(stored.written),
        "damage": each.damage or None,
    }


def line_of(stored: Stored, label: str) -> str:
    """An artefact as one line: kind, short key, size, date and label."""
    key = stored.key
    size, date = size_of([stored]), date_of(stored.written)
    return f"{key.kind:11} {key.digest[:12]} {size:>9}  {date}  {label}"


def totals_of(stored: Sequence[Stored]) -> Iterator[str]:
    """A line for each kind: how many, bytes, oldest and newest."""
    for kind in all_kinds():
        every = [each for each in stored if each.key.kind == kind]
        if every:
            first, last = (date_of(choose(e.written for e in every)) for choose in (min, max))
            yield f"{kind}: {len(every)}, {size_of(every)}, written {first} to {last}"


def size_of(stored: Sequence[Stored]) -> str:
    """Bytes in a unit that suits them."""
    from rich.filesize import decimal

    return decimal(sum(each.size for each in stored))


def date_of(seconds: float) -> str:
    """Local date and minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def say(text: str) -> None:
    """Print a line."""
    click.echo(text)


def warn(text: str) -> None:
    """Print a warning."""
    click.echo(f"warning: {text}", err=True)


@contextmanager
def progress_over(stored: Sequence[Stored], what: str) -> Iterator[Iterator[Stored]]:
    """The artefacts, with a bar over their bytes on a terminal."""
    if not sys.stderr.isatty():
        yield iter(stored)
        return
    from rich.progress import Progress

    with Progress(console=console_of(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=sum(each.size for each in stored))

        def watched(advance: Callable[..., None] = bars.advance) -> Iterator[Stored]:
            for each in stored:
                yield each
                advance(task, each.size)

        yield watched()
