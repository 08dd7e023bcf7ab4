"""Published pruned checkpoints of a suite: methods that are models themselves, at one budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from mbench.core.errors import ModelNotFound, unknown
from mbench.core.suite import MethodSpec, Suite
from mbench.core.suite_inputs import ModelSpec
from mbench.core.suite_values import DtypeName
from mbench.plan.computing_code import Code
from mbench.plan.methods import ResolvedMethod, without_parts
from mbench.plan.models import PlannedModel, find_model
from mbench.plan.registry import Registry
from mbench.plan.yaml_source import Place, YamlSource
from mbench.storage.checkpoints import local_directory
from mbench.storage.inputs import Inputs


def find_published(
    suite: Suite,
    models: Mapping[str, PlannedModel],
    source: YamlSource,
    registry: Registry,
    inputs: Inputs,
    code: Code,
) -> list[tuple[PlannedModel, ResolvedMethod]]:
    """Every method that is a checkpoint, with the full model that it belongs to; loads no weights.

    Raises `ModelNotFound`, or `SuiteError` where it cannot be a pruned form of that model.
    """
    found = []
    for name, spec in suite.methods.items():
        if spec.checkpoint is None:
            continue
        place = ("methods", name)
        base = models[_base(name, spec, suite, source)]
        with source.naming((*place, "checkpoint")):
            given = _as_model(spec, suite.models[base.name])
        planned = find_model(
            f"{name} (checkpoint)", given, source, registry, inputs, code, False, place
        )
        if problem := _misfit(base, planned):
            problem = f"{planned.place} is no pruned form of {base.name!r}: {problem}"
            raise source.error((*place, "checkpoint"), problem)
        if planned.computed_in != base.computed_in:
            planned = replace(planned, dtype=cast("DtypeName", base.computed_in))
        method = replace(without_parts(name, "sliced"), published=planned)
        found.append((base, method))
    return found


def _as_model(spec: MethodSpec, full: ModelSpec) -> ModelSpec:
    """The checkpoint, computed as the full model is; its own code never runs."""
    place = str(spec.checkpoint)
    on_hub = local_directory(place) is None
    if not on_hub and spec.revision is not None:
        raise ModelNotFound(f"{place} is a directory, which has no revisions")
    return ModelSpec(
        hub=place if on_hub else None,
        path=None if on_hub else place,
        revision=spec.revision,
        dtype=full.dtype,
        attention=full.attention,
    )


def _base(name: str, spec: MethodSpec, suite: Suite, source: YamlSource) -> str:
    place: Place = ("methods", name)
    if spec.model is None:
        if len(suite.models) > 1:
            listed = ", ".join(suite.models)
            problem = f"{name!r} does not say which model it was pruned from: give `model`"
            raise source.error(place, f"{problem} (one of {listed})")
        return next(iter(suite.models))
    if spec.model not in suite.models:
        raise source.error((*place, "model"), unknown("model", spec.model, suite.models))
    return spec.model


def _misfit(full: PlannedModel, pruned: PlannedModel) -> str:
    """Why one cannot be made of the other by leaving experts out; empty where it can."""
    a, b = full.facts, pruned.facts
    if b.num_experts >= a.num_experts:
        return f"it has {b.num_experts} experts in a layer, the full model {a.num_experts}"
    for words, has, full_has in (
        ("MoE layers", len(b.layers), len(a.layers)),
        ("numbers in a hidden state", b.hidden_size, a.hidden_size),
        ("parameters in an expert", b.expert_parameters, a.expert_parameters),
    ):
        if has != full_has:
            return f"it has {has} {words}, the full model {full_has}"
    return ""
