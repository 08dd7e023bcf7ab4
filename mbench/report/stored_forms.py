"""Says in which form weights were stored, and what they were computed in."""

from __future__ import annotations

from collections.abc import Iterator

from mbench.core.results import Results

NOT_QUANTISED = "activations not quantised"


def stored_in_words(results: Results, model: str) -> str:
    """`weights as stored in FP8 128x128, computed in bfloat16`; empty for plain numbers."""
    record = results.provenance.models.get(model)
    if record is None or not record.facts.stored_form:
        return ""
    return f"weights as stored in {record.facts.stored_form}, computed in {record.dtype}"


def forms_in_words(results: Results) -> Iterator[tuple[str, str]]:
    """(what, how its weights are stored and computed) of every quantised checkpoint."""
    for model in results.provenance.models:
        if words := stored_in_words(results, model):
            yield f"Stored form of {model}", f"{words}; {NOT_QUANTISED}"
    seen = set()
    for cell in results.cells:
        told, record = cell.published, results.provenance.models.get(cell.model)
        if told is None or not told.stored_form or told.same_as_mask or record is None:
            continue
        if (cell.model, cell.method) not in seen:
            seen.add((cell.model, cell.method))
            words = f"weights as stored in {told.stored_form}, computed in {record.dtype}"
            yield f"Stored form of {cell.method}", f"{words}; {NOT_QUANTISED}"
