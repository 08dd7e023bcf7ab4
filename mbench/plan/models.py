"""The models of a plan: found, identified by content and measured, but not loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.core.interfaces import ExpertMask
from mbench.core.model_facts import ModelFacts
from mbench.core.suite_inputs import Expected, ModelSpec
from mbench.core.suite_values import AttentionName, DtypeName, ExpertsKept
from mbench.plan.computing_code import Code
from mbench.plan.fact_keys import model_facts_key
from mbench.plan.keys import ModelIdentity
from mbench.plan.registry import Registry
from mbench.plan.yaml_source import Place, YamlSource
from mbench.storage.checkpoints import Checkpoint, find_checkpoint, model_key, naming_place
from mbench.storage.inputs import Inputs
from mbench.storage.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PlannedModel:
    """One model of the suite, found but not loaded."""

    name: str
    place: str
    """Directory or hub id."""
    revision: str | None
    """Commit of the hub repository."""
    dtype: DtypeName
    key: str
    """Hash of its files."""
    facts: ModelFacts
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""
    attention: AttentionName = "auto"
    """As the suite asks for it."""
    experts: ExpertsKept = "computed"
    """How they lie in memory. No key holds it: what they compute is the same bit for bit."""
    checkpoint: Checkpoint | None = field(default=None, repr=False, compare=False)
    """Its files; None where they are out of reach and its facts are what the suite expects."""

    @property
    def files_available(self) -> bool:
        """Whether its files are within reach."""
        return self.checkpoint is not None

    @property
    def place_and_revision(self) -> str:
        """Where it comes from, in words."""
        return self.place + (f" at {self.revision}" if self.revision else "")

    @property
    def identity(self) -> ModelIdentity:
        """The model as keys know it."""
        return ModelIdentity(self.name, self.key, self.dtype, self.attention)

    @property
    def computed_in(self) -> str:
        """The dtype of the forward passes."""
        return self.facts.computed_in(self.dtype)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, as the loaded model has it; raises what `tokenizer_and_padding` raises."""
        return self.tokenizer_and_padding[0]

    @cached_property
    def tokenizer_and_padding(self) -> tuple[PreTrainedTokenizerBase, str]:
        """See `mbench.moe.tokenizer.load_tokenizer`; read when it is first needed, no weights.

        Raises `UnsupportedModel` or `ModelNotFound` where it cannot be used.
        """
        from mbench.moe.tokenizer import tokenizer_of

        if self.checkpoint is None:
            raise ModelNotFound(f"model {self.name!r}: its files are out of reach")
        folder, rows = self.checkpoint.small_files(), self.facts.vocabulary
        with naming_place(folder, self.checkpoint.place):
            return tokenizer_of(str(folder), rows, trust_remote_code=self.trust_remote_code)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end what it generates, by its generation_config.json and its tokenizer.

        Raises as `tokenizer_and_padding`.
        """
        from mbench.moe.config import read_config

        own = self.tokenizer.eos_token_id
        assert self.checkpoint is not None
        folder = str(self.checkpoint.small_files())
        named = read_config(folder, self.trust_remote_code).generation.eos_token_id
        listed = named if isinstance(named, list) else [named]
        return frozenset({own, *listed} - {None})

    @cached_property
    def unpruned_mask(self) -> ExpertMask:
        """The mask that keeps every expert."""
        return ExpertMask(np.ones((len(self.facts.layers), self.facts.num_experts), dtype=bool))


def find_model(
    name: str,
    spec: ModelSpec,
    source: YamlSource,
    registry: Registry,
    inputs: Inputs,
    code: Code,
    trust_expected: bool,
    place: Place | None = None,
) -> PlannedModel:
    """Find one model of the suite without loading it, or fetching its weights.

    `place` is where the suite names it, if not among its models.

    With `trust_expected`, one whose files are out of reach is what the suite expects of it.
    Raises `ModelNotFound`, or `SuiteError` where the suite expects another model.
    """
    place = place or ("models", name)
    if spec.plugin is not None:
        if spec.plugin not in registry.models:
            at = (*place, "plugin")
            raise source.unknown(at, "plugin model", spec.plugin, registry.models)
        where = str(registry.models[spec.plugin])
    else:
        where = os.path.expanduser(spec.path) if spec.path else str(spec.hub)
    planned = partial(
        PlannedModel,
        name=name,
        place=where,
        dtype=spec.dtype,
        trust_remote_code=spec.trust_remote_code,
        attention=spec.attention,
        experts=spec.experts,
    )
    trusted = spec.trust_remote_code
    try:
        with source.naming(place):
            checkpoint = find_checkpoint(where, spec.revision, inputs, remote_code=trusted)
            key = model_key(checkpoint, remote_code=trusted)
            facts = _facts(name, checkpoint, trusted, key, inputs.store, code)
    except ModelNotFound:
        expected = _expected_facts(spec) if trust_expected else None
        if expected is None:
            raise
        return planned(revision=spec.revision, key=f"commit:{spec.revision}", facts=expected)
    if spec.expect is not None:
        _refuse_another_model(spec.expect, facts, (*place, "expect"), source)
    try:
        facts.attention(spec.attention)
    except UnsupportedModel as error:
        raise source.error((*place, "attention"), str(error)) from None
    if spec.experts == "stored" and not facts.may_stay_stored:
        stored = f"stored in {facts.stored_form}" if facts.stored_form else "plain numbers"
        raise source.error(
            (*place, "experts"),
            f"'stored' is for weights in FP8 (quant_method: fp8); those of {where} are {stored}",
        )
    return planned(revision=checkpoint.revision, key=key, facts=facts, checkpoint=checkpoint)


def refuse_false_twins(
    specs: Mapping[str, ModelSpec], models: Mapping[str, PlannedModel], source: YamlSource
) -> None:
    """Raise `SuiteError` where a model is no stored form of the one that it is `same_as`."""
    for name, spec in specs.items():
        place: Place = ("models", name, "same_as")
        if spec.same_as is None:
            continue
        if spec.same_as not in models:
            raise source.unknown(place, "model", spec.same_as, models)
        if specs[spec.same_as].same_as is not None or spec.same_as == name:
            raise source.error(
                place,
                f"same_as: {spec.same_as} must name the model that all other forms are forms of",
            )
        this, other = models[name].facts, models[spec.same_as].facts
        for fact in ("model_type", "num_experts", "top_k", "hidden_size", "parameters"):
            if getattr(this, fact) != getattr(other, fact) and other.model_type:
                raise source.error(
                    place,
                    f"{spec.same_as!r} is another model: its {fact} is {getattr(other, fact)},"
                    f" here it is {getattr(this, fact)}",
                )


def _refuse_another_model(
    expect: Expected, facts: ModelFacts, place: Place, source: YamlSource
) -> None:
    actual = {"layers": len(facts.layers), "experts": facts.num_experts, "top_k": facts.top_k}
    actual |= {"parameters": facts.parameters, "expert_parameters": facts.expert_parameters}
    for fact, expected in expect.model_dump(exclude_none=True).items():
        if actual[fact] != expected:
            raise source.error(
                (*place, fact),
                f"the model has {fact} = {actual[fact]}, the suite expects {expected}",
            )


def _expected_facts(spec: ModelSpec) -> ModelFacts | None:
    """Facts as the suite expects them, or None where it does not state enough of them."""
    expect = spec.expect
    if spec.hub is None or expect is None or not expect.parameters or not expect.expert_parameters:
        return None
    return ModelFacts(
        model_type="",
        architecture="",
        layers=tuple(f"MoE layer {layer}" for layer in range(expect.layers)),
        num_experts=expect.experts,
        top_k=expect.top_k,
        hidden_size=0,
        parameters=expect.parameters,
        expert_parameters=expect.expert_parameters,
        dtype="bfloat16" if spec.dtype == "auto" else spec.dtype,
    )


def _facts(
    name: str, checkpoint: Checkpoint, trusted: bool, content: str, store: Store, code: Code
) -> ModelFacts:
    key = model_facts_key(code, name, content, [field.name for field in fields(ModelFacts)])
    known = store.read_json(key)
    if known is not None:
        return ModelFacts.from_json(known)
    from mbench.moe.load import describe

    folder = checkpoint.small_files()
    with naming_place(folder, checkpoint.place):
        described = describe(str(folder), trust_remote_code=trusted)
    facts = ModelFacts.from_json(asdict(described))
    store.write_json(key, facts.to_json())
    return facts
