"""Models and statistics that a profiling pass refuses, by name, and what the others get then."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from helpers.profiled import (
    ROUTING,
    SEQUENCES,
    Everything,
    assert_routing_sums_are_those_of_a_pass_alone,
    model_and_layers,
)
from helpers.tiny_models import qwen2_moe
from mbench.core.basics import RoutingSums
from mbench.core.errors import PluginError, UnsupportedModel
from mbench.core.interfaces import ExpertMask, Statistic
from mbench.core.stand_ins import Constants, Merged
from mbench.moe.adapter import find_moe_layers
from mbench.moe.profile import profile_model


class WrongShape(Statistic):
    name = "wrong-shape"

    def measure(self, batch):
        return {"mean": batch.output_norm.mean()}


class NotFinite(Statistic):
    name = "not-finite"

    def measure(self, batch):
        return {"ratio": torch.full((batch.num_experts,), torch.nan)}


class ChangingNames(Statistic):
    name = "changing-names"

    def measure(self, batch):
        return {f"at {int(batch.token[0])}": torch.zeros(batch.num_experts)}


@pytest.mark.parametrize(
    ("statistic", "message"),
    [
        (WrongShape(), "'wrong-shape': 'mean' must have 8 experts"),
        (NotFinite(), "'not-finite': 'ratio' of layer model.layers.0.mlp.experts is not finite"),
        (ChangingNames(), "'changing-names' returned arrays .* names must not vary"),
    ],
)
def test_statistics_that_break_their_contract_are_named(statistic, message):
    model, layers = model_and_layers("qwen2_moe")
    together = [statistic, RoutingSums()]
    collected = profile_model(model, layers, SEQUENCES, together, batch_size=3, shards=2)
    (failure,) = collected.failures.values()
    assert isinstance(failure, PluginError)
    assert re.search(message, str(failure))
    assert statistic.identity not in {*collected.sums, *collected.samples}
    assert_routing_sums_are_those_of_a_pass_alone(collected, model, layers, batch_size=3, shards=2)


def test_a_model_that_overflows_is_named():
    model = qwen2_moe()
    model.model.layers[1].mlp.experts.down_proj.fill_(torch.inf)
    with pytest.raises(UnsupportedModel, match=r"layers.1.mlp.experts: .* not finite"):
        profile_model(
            model, find_moe_layers(model), SEQUENCES, [RoutingSums()], batch_size=3, shards=1
        )


def test_a_layer_that_is_never_called_is_named():
    model = qwen2_moe()
    layers = find_moe_layers(model)
    model.model.layers[1].mlp.forward = lambda hidden: hidden
    with pytest.raises(UnsupportedModel, match=r"layers.1.mlp.experts was not called"):
        profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (lambda logits, gates, index: (gates, index), "does not return its logits"),
        (lambda logits, gates, index: (logits.softmax(-1), gates, index), "probabilities"),
        (lambda logits, gates, index: (-logits, gates, index), "does not rank"),
    ],
)
def test_logits_are_checked_before_they_are_believed(output, reason):
    model = qwen2_moe()
    router = model.model.layers[0].mlp.gate
    original = router.forward
    router.forward = lambda hidden: output(*original(hidden))
    block = model.model.layers[0].mlp
    if reason.endswith("its logits"):
        block.forward = lambda hidden: block.experts(
            hidden.flatten(0, 1), *router(hidden)[::-1]
        ).view(hidden.shape)
    collected = profile_model(
        model, find_moe_layers(model), SEQUENCES, [Everything()], batch_size=3, shards=1
    )
    failure = collected.failures[Everything().identity]
    assert isinstance(failure, UnsupportedModel)
    assert re.search(reason, str(failure))


class Meddler(Statistic):
    """Changes what it should only read."""

    name = "meddler"

    def measure(self, batch):
        batch.top_k_weight.mul_(3)
        return {"count": torch.zeros(batch.num_experts)}


def test_a_statistic_that_changes_the_models_tensors_is_refused():
    model, layers = model_and_layers("qwen2_moe")
    together = [Meddler(), RoutingSums()]
    collected = profile_model(model, layers, SEQUENCES, together, batch_size=4)
    assert "'meddler' changed a tensor" in str(collected.failures[Meddler().identity])
    assert_routing_sums_are_those_of_a_pass_alone(collected, model, layers, batch_size=4)


def test_choices_of_experts_with_stand_ins_are_counted_for_no_other():
    model, layers = model_and_layers("olmoe")
    experts, width = layers[0].num_experts, model.config.hidden_size
    keep = np.tile(np.arange(experts) % 2 == 0, (len(layers), 1))
    into = np.tile(np.arange(experts) // 2 * 2, (len(layers), 1))
    weights = keep.astype(np.float32)
    constants = Constants(np.zeros((*keep.shape, width), dtype=np.float32))
    for stand_in in (constants, Merged(into, weights)):
        mask = ExpertMask(keep, stand_in=stand_in)
        with pytest.raises(UnsupportedModel, match="constants or mapped experts"):
            profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3, mask=mask)
    mask = ExpertMask(keep, stand_in=Merged(into, weights, router="sliced"))
    found = profile_model(model, layers, SEQUENCES, [RoutingSums()], batch_size=3, mask=mask)
    counts = found.sums[ROUTING]["count"].sum(axis=0)
    assert (counts.sum(axis=1) == SEQUENCES.tokens * layers[0].top_k).all()
    assert (counts[~keep] == 0).all()
