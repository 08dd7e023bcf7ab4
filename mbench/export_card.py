"""The model card of an exported checkpoint: what was removed, how, what it cost, from where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mbench.report.words import number, percent
from mbench.results import UNPRUNED, CellResult, Results

if TYPE_CHECKING:
    from mbench.export import Export


def model_card(results: Results, cell: CellResult, done: Export, source: Path) -> str:
    """The card as Markdown with the front matter that model hubs read.

    Licence and languages are those that the card in `source` declares, if there is one.
    """
    recorded = results.provenance["models"][cell.model]
    origin = recorded.get("source", {}).get("hub")
    name = origin or cell.model
    kept = percent(cell.retain)
    lines = [
        "---",
        yaml.safe_dump(_front_matter(source, origin), sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {name}, {kept} of its experts",
        "",
        f"{done.kept} of the {done.num_experts} routed experts in each of its Mixture-of-Experts "
        f"layers, chosen by `{cell.method}`. The dropped experts and their router rows are gone; "
        "all other weights are those of the full model, bit for bit. Which experts stayed is in "
        "`expert_mask.json`.",
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
        "computes what this checkpoint computes. ± is the standard error over items.",
        "",
        *_figures(results, cell),
        "",
        "## Settings of the suite",
        "",
        *(f"- {name}: {text}" for name, text in results.protocol if not name.startswith("Method ")),
        "",
        "## Provenance",
        "",
        *(f"- {name}: {text}" for name, text in _provenance(results, cell, recorded).items()),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(source: Path, origin: str | None) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    try:
        declared = metadata_load(source / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        declared = {}
    kept = ("license", "license_name", "license_link", "language")
    return {
        **{key: declared[key] for key in kept if key in declared},
        **({"base_model": origin} if origin else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["mixture-of-experts", "expert-pruning", "mbench"],
    }


def _remarks(cell: CellResult, done: Export) -> list[str]:
    """What a user of the checkpoint must know beyond the usual."""
    remarks = [f"{note}." for note in cell.notes]
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
    names = {f"Method {cell.method}"}
    lines = [
        f"- {name.removeprefix('Method ')}: {text}"
        for name, text in results.protocol
        if name in names or (name.startswith(f"Method {cell.method} on ") and cell.model in name)
    ]
    if cell.seed is not None:
        lines.append(f"- seed of this mask: {cell.seed}")
    return lines


def _figures(results: Results, cell: CellResult) -> list[str]:
    full = next(
        each for each in results.cells if (each.model, each.method) == (cell.model, UNPRUNED)
    )
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
    versions = results.provenance.get("versions", {})
    return {
        "full model": recorded["content"],
        "mask": f"sha256:{cell.mask}",
        "suite file": f"sha256:{results.provenance.get('suite file sha256', 'unknown')}",
        "measured with": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "exported with": f"mbench {version('mbench')}",
    }
