"""The model card of an exported checkpoint: what was pruned and how, its scores, and its origin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mbench.core.cell_results import UNPRUNED, CellResult
from mbench.core.errors import MbenchError
from mbench.core.provenance import ModelRecord
from mbench.core.results import ProtocolEntry, Results
from mbench.export.servers import servers
from mbench.export.written import span
from mbench.moe.deepseek import MODEL_TYPE
from mbench.plan.in_words import method_in_words
from mbench.report.words import bounds, number, percent

if TYPE_CHECKING:
    from mbench.export.written import Export


DROPPED = {
    "even": "The dropped experts and their router rows are gone",
    "merged": "The dropped experts and their router rows are gone; kept ones are weighted sums of"
    " themselves and those that were merged into them",
    "mapped": "The dropped experts are gone, and their tokens go to the experts that they were"
    " merged into, whose weights are weighted sums; routers keep all rows",
    "constants": "The dropped experts are gone, and give a constant instead of an output; routers"
    " keep all rows",
}
DROPPED |= {"uneven": DROPPED["even"], "uneven-merged": DROPPED["merged"]}
"""What became of experts, by the kind of export."""


def model_card(results: Results, cell: CellResult, written: Export, source: Path) -> str:
    """The card as Markdown with the front matter that model hubs read.

    Licence and languages are those that the card in `source` declares, if there is one. Raises
    `MbenchError` if the results lack something.
    """
    recorded = results.provenance.models[cell.model]
    origin = recorded.source.name if recorded.source.kind == "hub" else None
    name = origin or cell.model
    kept = percent(cell.retain)
    loading = servers(written.kind, written.stored_form)
    lines = [
        "---",
        yaml.safe_dump(
            _front_matter(source, origin, written), sort_keys=False, allow_unicode=True
        ).strip(),
        "---",
        "",
        f"# {name}, {kept} of its experts",
        "",
        f"{span(written.kept)} of the {written.num_experts} routed experts in each of its "
        f"Mixture-of-Experts layers, chosen by `{cell.method}`. {DROPPED[written.kind]}; all other "
        "weights are those of the full model, bit for bit"
        f"{', except the shared experts' if written.is_translated else ''}. Which experts were "
        "kept is in `expert_mask.json`.",
        "",
        "| | full | pruned |",
        "| --- | --- | --- |",
        f"| routed experts per layer | {written.num_experts} | {span(written.kept)} |",
        f"| experts per token | {written.top_k} | {span(written.pruned_top_k)} |",
        f"| parameters | {written.full.parameters:,} | {written.pruned.parameters:,} |",
        f"| bytes of weights | {written.full.bytes:,} | {written.pruned.bytes:,} |",
        "",
        *_remarks(cell, written),
        "## What loads it",
        "",
        *(f"- {program}: {text}" for program, text in loading.items()),
        "",
        "## Method",
        "",
        *_method(results, cell),
        "",
        "## Results",
        "",
        f"Measured in the suite `{results.suite}` by running the full model under this mask, which "
        f"computes what this checkpoint computes. {_dtype(recorded, written)} ± is the standard "
        "error over items.",
        "",
        *_figures(results, cell),
        "",
        "## Settings of the suite",
        "",
        *(f"- {entry.name}: {entry.text}" for entry in _settings(results, cell)),
        "",
        "## Provenance",
        "",
        *(f"- {name}: {text}" for name, text in _provenance(results, cell, recorded).items()),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(source: Path, origin: str | None, written: Export) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    try:
        declared = metadata_load(source / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        declared = {}
    kept = ("license", "license_name", "license_link", "language")
    return {
        **{key: declared[key] for key in kept if key in declared},
        **({"base_model": origin} if origin else {}),
        **({"library_name": "transformers"} if _is_of_transformers(written) else {}),
        "pipeline_tag": "text-generation",
        "tags": ["mixture-of-experts", "expert-pruning", "mbench"],
    }


def _is_of_transformers(written: Export) -> bool:
    return written.is_stock and written.model_type != MODEL_TYPE


def _remarks(cell: CellResult, written: Export) -> list[str]:
    """What users of this checkpoint must know, one paragraph each."""
    remarks = []
    if written.is_translated:
        remarks.append(
            f"Written as `{written.model_type}`, because transformers has no class for "
            f"`{written.full_model_type}`: the shared experts' `down_proj` is doubled, and a gate "
            "of zeros halves their output again, so that the outputs are the same."
        )
    elif written.is_stock and written.model_type == MODEL_TYPE:
        remarks.append(
            f"In the original form (`{MODEL_TYPE}`), for which transformers has no class: load it "
            "with a program that has one."
        )
    remarks += [f"{note}." for note in cell.notes]
    if min(written.pruned_top_k) < written.top_k:
        remarks.append(
            f"A token gets {span(written.pruned_top_k)} experts instead of the full model's "
            f"{written.top_k}: the router cannot choose more among those kept."
        )
    if written.stored_form:
        remarks.append(
            f"Weights are stored in {written.stored_form}, as those of the full model; they are"
            " counted as the parameters that they stand for, and in the bytes that they take."
        )
    if written.left_out:
        remarks.append(
            f"Left out, because the model's class does not use them: {len(written.left_out)} "
            f"tensors, e.g. `{written.left_out[0]}`."
        )
    return [line for remark in remarks for line in (remark, "")]


def _method(results: Results, cell: CellResult) -> list[str]:
    """The parts of the method, of its candidate, and so on, with their parameters."""
    lines = []
    provenance = results.provenance
    name: str | None = cell.method
    while name is not None:
        method = provenance.methods[cell.model][name]
        lines.append(f"- {name}: {method_in_words(method, provenance.router)}")
        name = method.candidate
    if cell.seed is not None:
        lines.append(f"- seed of this mask: {cell.seed}")
    return lines


def _settings(results: Results, cell: CellResult) -> Iterator[ProtocolEntry]:
    """What the protocol says of the cell, but for the parts of its method."""
    for entry in results.protocol:
        if entry.kind != "method" and entry.concerns(cell):
            yield entry


def _dtype(recorded: ModelRecord, written: Export) -> str:
    measured = recorded.dtype
    if written.stored_form:
        asked = f", though the checkpoint asks for {written.activations}"
        return (
            f"Both were computed in {measured} from weights in {written.stored_form}; activations"
            f" were not quantised{asked if written.activations else ''}."
        )
    if measured == written.dtype:
        return f"Both were computed in {measured}."
    return (
        f"Both were computed in {measured}, but the weights are stored in {written.dtype}: "
        "computed in that dtype, figures can differ."
    )


def _figures(results: Results, cell: CellResult) -> list[str]:
    unpruned = (each for each in results.cells if each.method == UNPRUNED)
    full = next((each for each in unpruned if each.model == cell.model), None)
    if full is None:
        raise MbenchError(f"the results lack the full model {cell.model}")
    for task in results.task_metrics:
        if not (task in full.tasks and task in cell.tasks):
            raise MbenchError(f"the results lack the status of task {task} on {cell.model}")
    lines = ["| task | metric | full | pruned |", "| --- | --- | --- | --- |"]
    for task, metric in results.task_metrics.items():
        figures = (_figure(each, task, metric) for each in (full, cell))
        lines.append(f"| {task} | {metric} | {' | '.join(figures)} |")
    before, after = (results.average_of(each) for each in (full, cell))
    if before is not None and after is not None:
        lines.append(f"| {results.average} | mean | {before.value:.3f} | {after.value:.3f} |")
    return lines


def _figure(cell: CellResult, task: str, metric: str) -> str:
    figure = cell.metric(task, metric)
    if task in cell.early:
        known = cell.early[task]
        interval = bounds(known.low, known.high)
        return (
            f"{number(metric, known.figure)}, early: from {known.items:,} of {known.of:,} items,"
            f" {known.untold or f'{interval} to the full model'}"
        )
    if figure is None:
        return cell.task_status(task).status
    error = number(metric, figure.stderr, scale=figure.value)
    return number(metric, figure.value) + (f" ± {error}" if math.isfinite(figure.stderr) else "")


def _provenance(results: Results, cell: CellResult, recorded: ModelRecord) -> dict[str, str]:
    provenance = results.provenance
    suites = dict.fromkeys(f"sha256:{run.suite_sha256}" for run in provenance.runs)
    versions = provenance.versions
    return {
        "full model": recorded.content,
        "mask": f"sha256:{cell.mask}",
        "suite file": ", ".join(suites),
        "measured with": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "exported with": f"mbench {version('mbench')}",
    }
