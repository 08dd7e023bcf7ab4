"""`mbench export`: write a pruned checkpoint from one mask of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbench.cli.options import plugin_option
from mbench.cli.output import print_place

if TYPE_CHECKING:
    from mbench.export.written import Form


@click.command("export")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to create.")
@click.option(
    "--model",
    metavar="NAME[=PATH_OR_ID]",
    help="The model, if RESULT has several; PATH_OR_ID: where to load its weights from.",
)
@click.option("--method", metavar="NAME", help="The method, if RESULT has several.")
@click.option(
    "--retain",
    type=float,
    metavar="RATIO",
    help="The budget, as the share of experts kept, if RESULT has several.",
)
@click.option("--seed", type=int, metavar="N", help="The seed, if the method was run with several.")
@click.option(
    "--form",
    type=click.Choice(["transformers", "original"]),
    default="transformers",
    help="For DeepSeek-MoE: as Qwen2-MoE, which transformers loads, or as DeepSeek published it.",
)
@plugin_option
def command(
    result: Path,
    out: Path,
    model: str | None,
    method: str | None,
    retain: float | None,
    seed: int | None,
    form: Form,
    plugin_files: tuple[Path, ...],
) -> None:
    """Write a pruned model of RESULT, e.g. reports/quickstart, as a checkpoint for transformers.

    The weights are copied from the full model, which must be the one that was evaluated. Where
    layers keep different numbers of experts or something stands in for dropped ones, no stock
    program could load it: then it is written for mbench.load_pruned, and says so.
    """
    from mbench.export.choose import choose, find_checkpoint
    from mbench.export.servers import servers
    from mbench.export.write import export
    from mbench.export.written import span
    from mbench.plan.plugin_loading import load_registry
    from mbench.run.environment import set_up_libraries
    from mbench.storage.inputs import Inputs
    from mbench.storage.reading import store_to_read
    from mbench.storage.results_folder import read

    set_up_libraries()
    results = read(result)
    name, _, place = (model or "").partition("=")
    cell = choose(results, model=name or None, method=method, retain=retain, seed=seed)
    registry = load_registry(plugin_files)
    store = store_to_read()
    source = find_checkpoint(results, cell.model, place or None, registry.models, Inputs(store))
    written = export(results, cell, source, out, form)
    for full, pruned, size in (
        (written.num_experts, span(written.kept), "experts per layer"),
        (written.top_k, span(written.pruned_top_k), "experts per token"),
        (written.full.parameters, f"{written.pruned.parameters:,}", "parameters"),
        (written.full.bytes, f"{written.pruned.bytes:,}", "bytes of weights"),
    ):
        click.echo(f"{size}: {pruned} of {full:,}", err=True)
    if written.stored_form:
        click.echo(f"weights: in {written.stored_form}, as they were", err=True)
    for program, text in servers(written.kind, written.stored_form).items():
        click.echo(f"{program}: {text}", err=True)
    if written.left_out:
        text = f"{len(written.left_out)} tensors that the model's class ignores"
        click.echo(f"left out: {text}, e.g. {written.left_out[0]}", err=True)
    print_place(out)
