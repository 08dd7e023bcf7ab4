"""`mbench identify`: say what a pruned checkpoint is, beside the full one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbench.cli.completing import names
from mbench.cli.options import plugin_option, store_option
from mbench.cli.output import clean, console_of, print_json, print_place

if TYPE_CHECKING:
    import numpy as np

    from mbench.api.identifying import Identified

NO_MASK = 3
LAYERS, EXPERTS = 3, 16
"""Layers of a mask, and experts of a layer, that are shown."""


@click.command("identify")
@click.argument("base", shell_complete=names("plugin models"))
@click.argument("pruned", shell_complete=names("plugin models"))
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write its mask, in the form of expert_mask.json.",
)
@plugin_option
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every expert.")
def command(
    base: str,
    pruned: str,
    save: Path | None,
    plugin_files: tuple[Path, ...],
    store_root: Path | str | None,
    as_json: bool,
) -> None:
    """Say which experts of BASE the checkpoint PRUNED holds, and what else differs.

    Each is a directory, a hub id, maybe with @REVISION, or a plugin's model by name. All weights
    are read, no model is loaded. Masks of BASE in the store are compared with it.

    Exit status: 0 its experts are told, 2 a mistake, 3 it is no selection of BASE's experts.
    """
    from mbench.api.identifying import identified
    from mbench.cli.display import json_only
    from mbench.storage.atomic import write_text_atomically
    from mbench.storage.mask_json import mask_to_json
    from mbench.storage.reading import store_to_read

    json_stream = click.get_current_context().with_resource(json_only()) if as_json else None
    store = store_to_read(store_root)
    with _progress() as advance:
        found = identified(base, pruned, plugin_files, store, advance)
    if json_stream is not None:
        print_json(found.to_json(), json_stream)
    else:
        for line in _lines(found):
            click.echo(clean(line))
    if found.mask is None:
        if save is not None:
            click.echo(f"{save} is not written: there is no mask to save", err=True)
        sys.exit(NO_MASK)
    if save is not None:
        text = json.dumps(mask_to_json(found.mask, found.layers)) + "\n"
        write_text_atomically(save, text)
        if json_stream is None:
            print_place(save)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], object]]:
    """A bar over the layers on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    from rich.progress import Progress

    with Progress(console=console_of(stderr=True), transient=True) as bars:
        task = bars.add_task("comparing layers", total=None)
        yield lambda done, of: bars.update(task, completed=done, total=of)


def _lines(identified: Identified) -> Iterator[str]:
    found, mask = identified.found, identified.mask
    layers, experts = len(identified.layers), identified.num_experts
    if mask is not None:
        yield f"experts kept: {_counts(mask.keep)}, in {layers} layers"
        yield f"mask: {mask.content_hash[:12]}"
        for layer, row in list(zip(identified.layers, mask.keep, strict=True))[:LAYERS]:
            kept = row.nonzero()[0].tolist()
            more = f" and {len(kept) - EXPERTS} more" if len(kept) > EXPERTS else ""
            yield f"  {layer}: {' '.join(map(str, kept[:EXPERTS]))}{more}"
        if layers > LAYERS:
            yield f"  and {_more(layers - LAYERS, 'layer')} (--json has all)"
    else:
        yield f"experts kept: not a selection of the full model's {experts} in {layers} layers"
    for problem in found.problems:
        yield f"problem: {problem}"
    for each in found.differs:
        yield f"differs in: {each}"
    if found.is_mask:
        yield "differs in: nothing else, so it computes what the full model does under this mask"
    elif mask is not None:
        yield "so it does not compute what the full model does under this mask"
    yield from _likest(identified)


def _more(count: int, what: str) -> str:
    return f"{count} more {what}{'s' if count > 1 else ''}"


def _counts(keep: np.ndarray) -> str:
    counts, experts = keep.sum(axis=1), keep.shape[1]
    low, high = int(counts.min()), int(counts.max())
    if low == experts:
        return f"all {experts} in each layer"
    if low == high:
        return f"{low} of {experts} in each layer ({low / experts:.3g})"
    return f"{low} to {high} of {experts} in a layer ({counts.mean() / experts:.3g} on average)"


def _likest(identified: Identified) -> Iterator[str]:
    from mbench.api.identifying import NEAREST
    from mbench.report.words import percent

    if identified.mask is None:
        return
    same = [known for known in identified.known if known.is_same]
    for known in same:
        yield f"agrees with: {known.label}: the same mask"
    if same:
        return
    if not identified.known:
        yield "agrees with: no mask of this full model is in the store"
        return
    yield f"agrees with: none of {len(identified.known)} masks of this full model in the store"
    # One that keeps all has everything in common with any other.
    telling = [known for known in identified.known if known.chance < 1]
    for known in telling[:NEAREST]:
        yield (
            f"  nearest: {known.label}: {percent(known.common)} of kept experts in common"
            f" (by chance {percent(known.chance)}, standard deviation {percent(known.deviation)})"
        )
