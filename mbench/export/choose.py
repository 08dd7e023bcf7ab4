"""Chooses the mask of a run that is exported, and finds the full model's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbench.core.cell_results import UNPRUNED, CellResult
from mbench.core.clean_text import restored
from mbench.core.errors import MbenchError, ModelNotFound, UnsupportedModel, unknown
from mbench.core.provenance import ModelSource
from mbench.core.results import Results
from mbench.storage import checkpoints
from mbench.storage.checkpoints import model_key
from mbench.storage.inputs import Inputs

OTHER_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py", "LICENSE*", "NOTICE*")
"""Tokenizer, generation configuration, chat template, code that a configuration refers to (never
run here), and the terms under which the weights may be passed on."""


def choose(
    results: Results,
    *,
    model: str | None = None,
    method: str | None = None,
    retain: float | None = None,
    seed: int | None = None,
) -> CellResult:
    """Return the one pruned model with these values; what has only one value need not be given.

    Raises `MbenchError` with the valid choices, or if the chosen one has no mask.
    """
    cells = [cell for cell in results.cells if cell.method != UNPRUNED]
    if not cells:
        raise MbenchError(f"the results of {results.suite} hold no pruned model")
    given = {"model": model, "retain": retain, "method": method, "seed": seed}
    for field, wanted in given.items():
        values = dict.fromkeys(getattr(cell, field) for cell in cells)
        valid = [_text(value) for value in values]
        if wanted is not None and wanted not in values:
            raise MbenchError(unknown(field, _text(wanted), valid))
        if wanted is None and len(values) > 1:
            raise MbenchError(f"choose one {field} with --{field} (valid: {', '.join(valid)})")
        cells = [cell for cell in cells if wanted is None or getattr(cell, field) == wanted]
    (cell,) = cells
    if cell.status != "ok":
        raise MbenchError(f"{cell.method} has no mask there: {cell.status}, {cell.reason}")
    if cell.published is not None:
        where = cell.published.source.name
        raise MbenchError(f"{cell.method} is a published checkpoint already: {where}")
    return cell


def _text(value: Any) -> str:
    if value is None:
        return "none: the method is deterministic"
    return f"{value:g}" if isinstance(value, float) else str(value)


def find_checkpoint(
    results: Results,
    model: str,
    place: str | None,
    plugin_models: Mapping[str, Path],
    inputs: Inputs,
) -> Path:
    """Return a folder of the full checkpoint, exactly the one that was evaluated.

    `place` is another directory or hub id to take it from. Raises `ModelNotFound` if it is not
    there or is another model, and `UnsupportedModel` if the model's own code was run.
    """
    recorded = results.provenance.models[model]
    if recorded.trust_remote_code:
        raise UnsupportedModel(
            f"{model!r} was run with its own code (trust_remote_code): an export does not run it, "
            "and without it the experts' tensors cannot be identified"
        )
    revision = recorded.revision if place in (None, recorded.source.name) else None
    place = place or _recorded_place(recorded.source, plugin_models)
    checkpoint = checkpoints.find_checkpoint(place, revision, inputs)
    if model_key(checkpoint) != recorded.content:
        short = recorded.content[:19]
        raise ModelNotFound(f"{place} is not the model {model!r} of the results ({short})")
    return checkpoint.all_files((*OTHER_FILES, "README.md"))


def _recorded_place(source: ModelSource, plugin_models: Mapping[str, Path]) -> str:
    """The directory or hub id that the model of the run came from."""
    if source.kind == "path":
        return restored(source.name)
    if source.kind == "hub":
        return source.name
    if source.name not in plugin_models:
        raise ModelNotFound(unknown("plugin model", source.name, plugin_models))
    return str(plugin_models[source.name])
