"""Small models that a profiling pass runs through, and statistics that keep what it offers."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from helpers.tiny_models import FAMILIES, random_sequences
from mbench.core.basics import RoutingSums
from mbench.core.interfaces import Statistic
from mbench.moe.adapter import find_moe_layers
from mbench.moe.profile import profile_model

SEQUENCES = random_sequences([10, 7, 12, 3, 12, 1, 9])
ROUTING = RoutingSums().identity


@cache
def model_and_layers(family):
    model = FAMILIES[family]()
    return model, find_moe_layers(model)


def expert_output(layer, expert, hidden):
    gate, up = np.split(layer.experts.gate_up_proj[expert].double().numpy() @ hidden, 2)
    return layer.experts.down_proj[expert].double().numpy() @ (gate / (1 + np.exp(-gate)) * up)


class Everything(Statistic):
    """Keeps whatever a batch offers."""

    name = "everything"
    combine = "concatenate"

    def measure(self, batch):
        rows = torch.arange(len(batch.token))
        return {
            "hidden": batch.hidden,
            "token": batch.token,
            "index": batch.top_k_index,
            "weight": batch.top_k_weight,
            "norm": batch.output_norm,
            "logits": batch.router_logits(),
            "outputs": batch.expert_outputs(rows),
            "routed": batch.routed_outputs(),
            "inner": batch.inner_activations(rows),
            "total": torch.full((len(rows),), batch.total_tokens),
        }


def assert_routing_sums_are_those_of_a_pass_alone(collected, model, layers, **options):
    """Whatever became of the statistics beside them."""
    alone = profile_model(model, layers, SEQUENCES, [RoutingSums()], **options)
    for name, sums in alone.sums[ROUTING].items():
        np.testing.assert_array_equal(collected.sums[ROUTING][name], sums)
