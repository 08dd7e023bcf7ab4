"""A model's configuration and tokenizer: what is ignored of them, and whether they fit together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mbench.core.admission import Finding
from mbench.core.errors import MbenchError
from mbench.core.suite import EfficiencySpec
from mbench.plan.admission.check import Check
from mbench.plan.fact_keys import admission_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan


def model_checks(plan: Plan) -> Iterator[Check]:
    """What is to be known of every model before its weights are loaded."""
    for model in plan.models:
        if not model.files_available:
            yield Check(partial(_not_looked_at, model))
            continue
        yield Check(partial(_configuration, model))
        if plan.suite.efficiency is not None:
            yield Check(partial(_efficiency, model, plan.suite.efficiency))
        key = admission_key(plan.code, f"the tokenizer of {model.name}", model_inputs(model))
        yield Check(partial(_tokenizer, model), key)


def model_inputs(model: PlannedModel) -> dict[str, str]:
    """What decides a tokenizer and the sizes of its model; findings say the model's name."""
    return {"name": model.name, "model": model.key}


def _not_looked_at(model: PlannedModel) -> Iterator[Finding]:
    words = "not looked at: they are out of reach, and sizes are those the suite states"
    yield Finding("models", model.name, "files", words, "note", model.name)


def _configuration(model: PlannedModel) -> Iterator[Finding]:
    facts = model.facts
    for words in facts.normalised:
        yield Finding("models", model.name, "config", words, "note", model.name)
    limit = "no limit" if facts.positions is None else f"{facts.positions}"
    yield Finding("models", model.name, "positions", limit, model=model.name)
    words = f"{facts.attention(model.attention)}, computed in {model.computed_in}"
    yield Finding("models", model.name, "attention", words, model=model.name)


def _efficiency(model: PlannedModel, spec: EfficiencySpec) -> Iterator[Finding]:
    positions, prompt = model.facts.positions, spec.prompt_tokens or 1
    if positions is not None and prompt + spec.new_tokens > positions:
        words = (
            f"prompt_tokens {prompt} and new_tokens {spec.new_tokens} need"
            f" {prompt + spec.new_tokens} positions, but the model has {positions}"
        )
        yield Finding("models", model.name, "efficiency", words, "refused", model.name)
    if model.experts == "stored":
        words = "is not measured of a model with experts: stored, which cannot be pruned in memory"
        yield Finding("models", model.name, "efficiency", words, "refused", model.name)


def _tokenizer(model: PlannedModel) -> Iterator[Finding]:
    rows = model.facts.vocabulary
    try:
        tokenizer, padding = model.tokenizer_and_padding
    except MbenchError as error:
        yield Finding("models", model.name, "tokenizer", str(error), "refused", model.name)
        return
    from mbench.moe.tokenizer import adds_bos

    largest = max(id for id in tokenizer.get_vocab().values() if id < rows)
    words = f"{largest}, and the embedding has {rows} rows"
    yield Finding("models", model.name, "largest token id", words, model=model.name)
    if tokenizer.bos_token_id is None:
        words = "none"
    else:
        default = "begins a text by default" if adds_bos(tokenizer) else "not added by default"
        words = f"{tokenizer.bos_token!r} ({tokenizer.bos_token_id}), {default}"
    yield Finding("models", model.name, "BOS", words, model=model.name)
    if tokenizer.eos_token_id is None:
        words = "none: what is generated ends where the task says, or at its limit"
        yield Finding("models", model.name, "EOS", words, "note", model.name)
    if padding:
        yield Finding("models", model.name, "padding", padding, "note", model.name)
