"""The model card of an exported checkpoint: what was removed, how, what it cost, from where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mbench.core.errors import MbenchError
from mbench.core.results import UNPRUNED, CellResult, Results
from mbench.moe.deepseek import MODEL_TYPE
from mbench.report.words import number, percent

if TYPE_CHECKING:
    from mbench.export.written import Export


def model_card(
    results: Results, cell: CellResult, recorded: Mapping[str, Any], done: Export, source: Path
) -> str:
    """The card as Markdown with the front matter that model hubs read.

    `recorded` is what the results say of the full model. Licence and languages are those that the
    card in `source` declares, if there is one. Raises `MbenchError` if the results lack something.
    """
    origin = (recorded.get("source") or {}).get("hub")
    name = origin or cell.model
    kept = percent(cell.retain)
    lines = [
        "---",
        yaml.safe_dump(
            _front_matter(source, origin, done), sort_keys=False, allow_unicode=True
        ).strip(),
        "---",
        "",
        f"# {name}, {kept} of its experts",
        "",
        f"{done.kept} of the {done.num_experts} routed experts in each of its Mixture-of-Experts "
        f"layers, chosen by `{cell.method}`. The dropped experts and their router rows are gone; "
        "all other weights are those of the full model, bit for bit"
        f"{'' if done.model_type == done.full_model_type else ' but for the shared experts'}. "
        "Which experts stayed is in `expert_mask.json`.",
        "",
        "| | full | pruned |",
        "| --- | --- | --- |",
        f"| routed experts per layer | {done.num_experts} | {done.kept} |",
        f"| experts per token | {done.top_k} | {done.pruned_top_k} |",
        f"| parameters | {done.full.parameters:,} | {done.pruned.parameters:,} |",
        f"| bytes of weights | {done.full.bytes:,} | {done.pruned.bytes:,} |",
        "",
        *_remarks(cell, done),
        "## Method",
        "",
        *_method(results, cell),
        "",
        "## Results",
        "",
        f"Measured in the suite `{results.suite}` by running the full model under this mask, which "
        f"computes what this checkpoint computes. {_dtype(recorded, done)} ± is the standard error "
        "over items.",
        "",
        *_figures(results, cell),
        "",
        "## Settings of the suite",
        "",
        *(f"- {name}: {text}" for name, text in _settings(results, cell)),
        "",
        "## Provenance",
        "",
        *(f"- {name}: {text}" for name, text in _provenance(results, cell, recorded).items()),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(source: Path, origin: str | None, done: Export) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    try:
        declared = metadata_load(source / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        declared = {}
    kept = ("license", "license_name", "license_link", "language")
    return {
        **{key: declared[key] for key in kept if key in declared},
        **({"base_model": origin} if origin else {}),
        **({} if done.model_type == MODEL_TYPE else {"library_name": "transformers"}),
        "pipeline_tag": "text-generation",
        "tags": ["mixture-of-experts", "expert-pruning", "mbench"],
    }


def _remarks(cell: CellResult, done: Export) -> list[str]:
    """What a user of the checkpoint must know beyond the usual."""
    remarks = []
    if done.model_type != done.full_model_type:
        remarks.append(
            f"Written as `{done.model_type}`, because transformers has no class for "
            f"`{done.full_model_type}`: the shared experts' `down_proj` is doubled, and a gate of "
            "zeros halves their output again, so that the same is computed."
        )
    elif done.model_type == MODEL_TYPE:
        remarks.append(
            f"In the original form (`{MODEL_TYPE}`), for which transformers has no class; it is "
            "for programs that have one."
        )
    remarks += [f"{note}." for note in cell.notes]
    if done.pruned_top_k != done.top_k:
        remarks.append(
            f"A token gets {done.pruned_top_k} experts where the full model gives it {done.top_k}: "
            "its router cannot choose more among those kept."
        )
    if done.left_out:
        remarks.append(
            f"Left out, because the model's class does not use them: {len(done.left_out)} tensors, "
            f"e.g. `{done.left_out[0]}`."
        )
    return [line for remark in remarks for line in (remark, "")]


def _method(results: Results, cell: CellResult) -> list[str]:
    """The parts of the method, of its candidate, and so on, with their parameters."""
    lines = []
    name = cell.method
    while name:
        try:
            parts = results.provenance["settings"]["methods"][cell.model][name]
        except (KeyError, TypeError):
            raise MbenchError(
                f"the results do not record the parts of {name!r} on {cell.model}: run the suite "
                "again (nothing in the store is computed again)"
            ) from None
        lines.append(f"- {name}: " + "; ".join(f"{part} {text}" for part, text in parts.items()))
        name = parts.get("candidate")
    if cell.seed is not None:
        lines.append(f"- seed of this mask: {cell.seed}")
    return lines


def _settings(results: Results, cell: CellResult) -> Iterator[tuple[str, str]]:
    """The protocol without what is said of methods, of other models and of other budgets."""
    own = {f"Model {cell.model}", _budget(cell)}
    others = {f"Model {each.model}" for each in results.cells} - own
    others |= {_budget(each) for each in results.cells} - own
    for name, text in results.protocol:
        methods = text.partition(": ")[0].split(", ")
        another = name == _budget(cell) and cell.method not in methods
        if not (name in others or another or name.startswith("Method ")):
            yield name, text


def _budget(cell: CellResult) -> str:
    """Where the protocol has notes on a budget."""
    return f"On {cell.model} at {100 * cell.retain:g} %"


def _dtype(recorded: Mapping[str, Any], done: Export) -> str:
    measured = recorded.get("dtype")
    if measured is None:
        return "The results do not say in which dtype."
    if measured == done.dtype:
        return f"Both were computed in {measured}."
    return (
        f"Both were computed in {measured}, but the weights are stored in {done.dtype}: computed "
        "in that, figures can differ."
    )


def _figures(results: Results, cell: CellResult) -> list[str]:
    unpruned = (each for each in results.cells if each.method == UNPRUNED)
    full = next((each for each in unpruned if each.model == cell.model), None)
    if full is None:
        raise MbenchError(f"the results lack the full model {cell.model}")
    for task in results.task_metrics:
        if not (task in full.tasks and task in cell.tasks):
            raise MbenchError(f"the results do not say what became of {task} on {cell.model}")
    lines = ["| task | metric | full | pruned |", "| --- | --- | --- | --- |"]
    for task, metric in results.task_metrics.items():
        figures = (_figure(each, task, metric) for each in (full, cell))
        lines.append(f"| {task} | {metric} | {' | '.join(figures)} |")
    averages = [results.average_of(each) for each in (full, cell)]
    if all(averages):
        values = " | ".join(f"{average.value:.3f}" for average in averages)
        lines.append(f"| {results.average} | mean | {values} |")
    return lines


def _figure(cell: CellResult, task: str, metric: str) -> str:
    found = cell.metric(task, metric)
    if found is None:
        return cell.task_status(task).status
    error = number(metric, found.stderr, scale=found.value)
    return number(metric, found.value) + (f" ± {error}" if math.isfinite(found.stderr) else "")


def _provenance(results: Results, cell: CellResult, recorded: Mapping[str, Any]) -> dict[str, str]:
    versions = results.provenance.get("versions") or {}
    return {
        "full model": recorded["content"],
        "mask": f"sha256:{cell.mask}",
        "suite file": f"sha256:{results.provenance.get('suite file sha256', 'unknown')}",
        "measured with": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "exported with": f"mbench {version('mbench')}",
    }
